"""Chains: whatever crashes and late puts leave behind, nothing acknowledged is lost and no byte is doubled."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.vault.chain import Chain, Hole, resolve
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.prefix import ContiguousPrefix
from dr_assets.vault.vault import StoredObject

AT = datetime(2031, 1, 1, tzinfo=UTC)
BEGIN = 100


@dataclass
class Place:
    """What a store holds of one stream: names, and the headers behind them."""

    objects: list[StoredObject] = field(default_factory=list)
    headers: dict[str, Any] = field(default_factory=dict)
    made: int = 0

    def make(self, first: int, last: int, previous: str | None = None, epoch: int = 1) -> StoredObject:
        """A piece with a digest of its own, not landed yet."""
        self.made += 1
        digest = hashlib.sha256(str(self.made).encode()).hexdigest()
        key = ObjectKey("e", "d", "wal", "1", 1, first, last, digest[:32])
        self.headers[key.digest] = SimpleNamespace(digest=digest, previous=previous, writer_epoch=epoch)
        return StoredObject(key, "v", last - first, AT)

    def land(self, *pieces: StoredObject) -> None:
        """The store has them."""
        self.objects += pieces

    def header_of(self, obj: StoredObject) -> Header:
        """As a vault would read it."""
        header = self.headers[obj.key.digest]
        if header is None:
            raise VaultError("vault.bad_signature", str(obj.key), "forged")
        return cast("Header", header)

    def digest(self, obj: StoredObject) -> str:
        """Of its header."""
        return cast("str", self.headers[obj.key.digest].digest)

    def chain(self, begin: int = BEGIN, *, strict: bool = False) -> Chain:
        """The longest."""
        return resolve(self.objects, self.header_of, begin, strict=strict)


def spans(pieces: Sequence[StoredObject]) -> list[tuple[int, int]]:
    """Their positions."""
    return [(obj.key.first, obj.key.last) for obj in pieces]


def test_a_plain_chain_is_taken_whole_and_no_header_but_the_last_is_read() -> None:
    """Names alone settle a stream without forks; only its last piece is believed by its header."""
    place, read = Place(), list[str]()
    for first in range(BEGIN, BEGIN + 50, 10):
        place.land(place.make(first, first + 10))

    def header_of(obj: StoredObject) -> Header:
        read.append(str(obj.key.first))
        return place.header_of(obj)

    chain = resolve(reversed(place.objects), header_of, BEGIN)
    assert (chain.end, len(chain.segments), chain.holes, chain.orphans, chain.forks) == (150, 5, (), (), ())
    assert read == ["140"]


def test_a_chain_may_begin_inside_a_piece() -> None:
    """A restore's begin lies anywhere; the piece that holds it is the first, earlier ones are left out."""
    place = Place()
    place.land(place.make(100, 110), place.make(110, 120), place.make(120, 130))
    chain = place.chain(115)
    assert spans(chain.segments) == [(110, 120), (120, 130)]
    assert (chain.begin, chain.end) == (115, 130)


def test_pieces_beyond_a_hole_are_listed_and_never_used() -> None:
    """The chain ends at the hole; islands beyond it are orphans, each hole is told."""
    place = Place()
    place.land(place.make(100, 110), place.make(120, 130), place.make(130, 140), place.make(150, 160))
    chain = place.chain()
    assert spans(chain.segments) == [(100, 110)]
    assert spans(chain.orphans) == [(120, 130), (130, 140), (150, 160)]
    assert chain.holes == (Hole(110, 120), Hole(140, 150))


def test_nothing_at_the_begin_is_an_empty_chain() -> None:
    """An empty store and one with later pieces only both give an end equal to the begin."""
    assert Place().chain() == Chain((), BEGIN, BEGIN, (), (), ())
    place = Place()
    place.land(place.make(120, 130))
    chain = place.chain()
    assert (chain.end, chain.segments, chain.holes) == (BEGIN, (), (Hole(BEGIN, 120),))


def test_a_late_put_of_a_crashed_writer_does_not_shorten_the_chain() -> None:
    """The successor went on from before it; the longest reach wins, the late piece is a fork."""
    place = Place()
    one = place.make(100, 110)
    late = place.make(110, 125, place.digest(one), 1)
    beyond = place.make(125, 130, place.digest(late), 1)
    two = place.make(110, 117, place.digest(one), 2)
    three = place.make(117, 140, place.digest(two), 2)
    place.land(one, beyond, two, three, late)
    chain = place.chain()
    assert spans(chain.segments) == [(100, 110), (110, 117), (117, 140)]
    assert spans(chain.forks) == [(110, 125), (125, 130)]


def test_of_equal_reach_the_higher_epoch_wins_then_the_smaller_digest() -> None:
    """So that every reader takes the same chain."""
    place = Place()
    pieces = sorted((place.make(100, 110) for _ in range(3)), key=lambda obj: obj.key.digest)
    for piece, epoch in zip(pieces, (1, 2, 2), strict=True):
        place.headers[piece.key.digest].writer_epoch = epoch
    place.land(*reversed(pieces))
    assert place.chain().segments == (pieces[1],)


def test_pieces_that_never_belonged_together_are_not_joined() -> None:
    """Where names leave a choice, `previous` decides: a fork's tail does not continue the other branch."""
    place = Place()
    mine, theirs = place.make(100, 110, None, 2), place.make(100, 110, None, 1)
    my_next = place.make(110, 115, place.digest(mine), 2)
    their_next = place.make(110, 150, place.digest(theirs), 1)
    place.land(mine, theirs, my_next, their_next)
    assert place.chain().segments == (theirs, their_next)


def test_rubbish_with_a_fitting_name_at_the_end_is_not_believed() -> None:
    """Anybody who may write can put a name; without a header to believe it is told and left out, however long."""
    place = Place()
    good, bad, worse = place.make(100, 110), place.make(110, 120), place.make(120, 130)
    place.headers[bad.key.digest] = place.headers[worse.key.digest] = None
    place.land(good, bad, worse)
    chain = place.chain()
    assert (chain.segments, chain.end) == ((good,), 110)
    assert {obj.key for obj, _ in chain.unreadable} == {bad.key, worse.key}


def test_strict_does_not_let_rubbish_bridge_a_hole() -> None:
    """A writer that resumes must not take pieces beyond a hole for stored because somebody filled the hole's name."""
    place = Place()
    good, beyond = place.make(100, 110), place.make(120, 130, "0" * 64)
    bridge = place.make(110, 120)
    place.headers[bridge.key.digest] = None
    place.land(good, bridge, beyond)
    assert place.chain(strict=True).end == 110


def test_an_unreachable_store_is_no_damage() -> None:
    """What waits for a person or the network is raised, not taken for a bad piece."""

    def header_of(obj: StoredObject) -> Header:
        raise VaultError("vault.unreachable", str(obj.key), "wait")

    place = Place()
    place.land(place.make(100, 110))
    with pytest.raises(VaultError, match="unreachable"):
        resolve(place.objects, header_of, BEGIN)


def test_streams_are_never_mixed() -> None:
    """Positions of two timelines mean different things: a bug of the caller."""
    place = Place()
    one = place.make(100, 110)
    other = StoredObject(ObjectKey("e", "d", "wal", "1", 2, 110, 120, "0" * 32), "v", 1, AT)
    with pytest.raises(ValueError, match="several"):
        resolve([one, other], place.header_of, BEGIN)


class World:
    """A source, its writers one after another, and a store in which puts land in any order, late, or never."""

    def __init__(self, pick: Callable[[int], int]) -> None:
        self.pick = pick
        self.place = Place()
        self.late: list[StoredObject] = []
        self.acknowledged = BEGIN
        self.epoch = 0

    def run_a_writer(self) -> None:
        """Resume at the chain's end, put pieces in parallel, crash with some in flight."""
        self.epoch += 1
        chain = self.place.chain(strict=True)
        previous = self.place.digest(chain.segments[-1]) if chain.segments else None
        prefix, position, flying = ContiguousPrefix(chain.end), chain.end, list[StoredObject]()
        for _ in range(self.pick(8)):
            last = position + 1 + self.pick(12)
            piece = self.place.make(position, last, previous, self.epoch)
            prefix.begin(position, last)
            flying.append(piece)
            position, previous = last, self.place.digest(piece)
        while flying:
            piece = flying.pop(self.pick(len(flying)))
            fate = self.pick(5)
            if fate == 0:
                self.late.append(piece)
            elif fate > 1:
                self.place.land(piece)
                self.acknowledged = max(self.acknowledged, prefix.done(piece.key.first))
            self.land_a_late_one()

    def land_a_late_one(self) -> None:
        """Some put of a writer long gone arrives now."""
        if self.late and self.pick(4) == 0:
            self.place.land(self.late.pop(self.pick(len(self.late))))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_acknowledged_is_ever_lost(data: st.DataObject) -> None:
    """Over writers that crash with parallel puts in flight, the chain reaches at least to what was acknowledged.

    It covers every position from the begin once, in order. A writer resumes by the strict chain, in which each piece
    names the one before it; a reader's lazy chain never ends before that one.
    """
    chance = data.draw(st.randoms(use_true_random=False))
    world = World(chance.randrange)
    for _ in range(data.draw(st.integers(1, 6))):
        world.run_a_writer()
        lazy, strict = world.place.chain(), world.place.chain(strict=True)
        assert lazy.end >= strict.end >= world.acknowledged
        for chain in (lazy, strict):
            covered = [position for obj in chain.segments for position in range(obj.key.first, obj.key.last)]
            assert covered == list(range(BEGIN, chain.end))
            assert len(chain.segments) + len(chain.orphans) + len(chain.forks) == len(world.place.objects)
        named = [world.place.header_of(obj).previous for obj in strict.segments]
        assert named == [None, *map(world.place.digest, strict.segments)][: len(named)]


def test_a_left_over_piece_that_fits_by_accident_is_not_resumed_from() -> None:
    """A crashed writer's piece may begin where its successor's ends and still continue something else."""
    place = Place()
    one = place.make(100, 110, None, 1)
    lost = place.make(110, 120, place.digest(one), 1)
    left_over = place.make(120, 130, place.digest(lost), 1)
    again = place.make(110, 120, place.digest(one), 2)
    place.land(one, left_over, again)
    assert place.chain(strict=True).end == 120
    assert place.chain().end == 130


def test_a_resumed_writer_continues_the_very_piece_it_found() -> None:
    """Two pieces end where the successor begins; the one whose header it names is the chain's."""
    place = Place()
    left, right = place.make(100, 110, None, 1), place.make(100, 110, None, 2)
    successor = place.make(110, 120, place.digest(left), 3)
    place.land(left, right, successor)
    assert place.chain().segments == (left, successor)
