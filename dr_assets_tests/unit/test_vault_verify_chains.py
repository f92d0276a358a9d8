"""Judging a stream while it goes by: the same judgement however it is cut, in bounded memory."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr_assets.vault.chain import Hole
from dr_assets.vault.format.header import Header
from dr_assets.vault.retention import LockRules
from dr_assets.vault.throwaway import ThrowawayRetention
from dr_assets.vault.vault import StoredObject
from dr_assets.vault.verify import Finding, chains
from dr_assets.vault.verify.chains import ChainWatch
from dr_assets.vault.verify.examine import Examined
from dr_assets.vault.verify.said import Said, position_of
from dr_assets_tests.unit.test_vault_chain import BEGIN, Place, World

RULES = LockRules({"d": (ThrowawayRetention(), timedelta(days=1))})
NOW = datetime(2031, 1, 1, tzinfo=UTC)
PLACE = "e/d/wal/1/00000001/"


def examined(place: Place, obj: StoredObject, extra: dict[str, str] | None = None) -> Examined:
    """As if it had been read."""
    link = place.headers[obj.key.digest]
    header = SimpleNamespace(previous=link.previous, writer_epoch=link.writer_epoch, extra=extra or {})
    return Examined(str(obj.key), obj.key, (), obj=obj, header=cast("Header", header), header_sha256=place.digest(obj))


def judge(place: Place, said: Said) -> list[Finding]:
    """All pieces in the order of their names."""
    watch = ChainWatch(PLACE, said)
    for obj in sorted(place.objects, key=lambda obj: obj.key):
        watch.add(examined(place, obj))
    return sorted(watch.findings(RULES, NOW))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cutting_a_stream_into_chunks_changes_no_judgement(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Over crashes and late puts: nothing acknowledged is called damaged, and chunks of any size say the same."""
    world = World(data.draw(st.randoms(use_true_random=False)).randrange)
    for _ in range(data.draw(st.integers(1, 6))):
        world.run_a_writer()
    said = [Said(stored=world.acknowledged, begins={BEGIN: NOW}) for _ in range(3)]
    judged = []
    for size, words in zip((1, 3, 1000), said, strict=True):
        monkeypatch.setattr(chains, "CHUNK", size)
        judged.append(judge(world.place, words))
    assert judged[0] == judged[1] == judged[2]
    assert not [finding for finding in judged[0] if finding.severity == "error"]
    named = {finding.key for finding in judged[0] if finding.kind in {"orphan", "fork"}}
    strict = world.place.chain(strict=True)
    if strict.end == world.acknowledged:
        assert named == {str(obj.key) for obj in (*strict.orphans, *strict.forks)}


def test_a_long_stream_takes_no_more_memory_than_a_chunk() -> None:
    """Whatever its length; a hole far behind the first chunk is still named exactly."""
    place, watch = Place(), ChainWatch(PLACE, Said(stored=BEGIN + 50_000))
    previous, longest = None, 0
    for first in range(BEGIN, BEGIN + 20_000):
        obj = place.make(first, first + 1, previous)
        previous = place.digest(obj)
        if first != BEGIN + 15_000:
            watch.add(examined(place, obj))
        longest = max(longest, len(watch._buffer), len(watch._links))
    assert longest <= chains.CHUNK + 2
    findings = list(watch.findings(RULES, NOW))
    assert [(finding.kind, finding.key) for finding in findings] == [
        ("hole", f"{PLACE}{BEGIN + 15_000:016X}-{BEGIN + 15_001:016X}-"),
        ("hole", f"{PLACE}{BEGIN + 20_000:016X}-{BEGIN + 50_000:016X}-"),
    ]


def test_a_piece_that_continues_another_is_noted_where_it_was_acknowledged() -> None:
    """All bytes are there, but nobody vouches for the step."""
    place = Place()
    one = place.make(100, 110)
    place.land(one, place.make(110, 120, "f" * 64))
    assert judge(place, Said(stored=110))[0].kind == "orphan"
    (finding,) = judge(place, Said(stored=120))
    assert (finding.kind, finding.severity) == ("unvouched", "notice")


def test_a_gap_must_cover_the_hole() -> None:
    """A gap on record excuses its own positions and no others."""
    place = Place()
    place.land(place.make(100, 110), place.make(120, 130))
    assert [finding.kind for finding in judge(place, Said(stored=130, gaps=[Hole(110, 120)]))] == ["gap"]
    for gap in (Hole(111, 120), Hole(110, 119), Hole(0, 50)):
        assert [finding.kind for finding in judge(place, Said(stored=130, gaps=[gap]))] == ["hole"]


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("16/B374D848", 0x16B374D848),
        ("0/0", 0),
        ("00000016B374D848", 0x16B374D848),
        ("16B374D848", None),
        ("16/", None),
        ("16/1234567890", None),
        (7, None),
        (None, None),
    ],
)
def test_positions_in_facts(text: str | int | None, position: int | None) -> None:
    """Two halves in hex, or sixteen digits; anything else says nothing."""
    assert position_of(text) == position
