"""Catalogues of packs: few objects are opened, and whatever becomes of a catalogue, the packs say the same."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.catalogue import open_catalogue, row_of, seal_catalogue
from dr_assets.stores.kafka.export import Export, open_export
from dr_assets.stores.kafka.pack import open_pack
from dr_assets.vault.format import canonical
from dr_assets.vault.format.pack import Break
from dr_assets.vault.format.pack_list import PACK_LIST, PackRow, encode_pack_list, parse_pack_list
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.kafka_packs import BETS, PLAYERS, Topics

BET, PLAYER = (BETS, 0, 0), (PLAYERS, 0, 0)


def life(packs: int = 10) -> Topics:
    """Packs with a table at the begin, an empty one and a gap; a catalogue for every four."""
    topics = Topics()
    topics.put((BET, 3), (PLAYER, 1), table=True)
    topics.put()
    for number in range(2, packs):
        topics.put((BET, number), broken=Break("gap", topics.rows[BET].next) if number == 3 else None)
    topics.tell()
    topics.store.packs_read()
    return topics


def told(export: Export) -> object:
    """All that an export says."""
    wanted = {(topic.topic_id, index): (0, 10_000) for topic in export.topics.values() for index in topic.partitions}
    records = [(part.topic_id, part.first, bytes(part.batches)) for part in export.slices(wanted)]
    return export.topics, export.gaps, export.recovery_point_at, export.cluster_id, export.packs, records


def rows_of(topics: Topics) -> list[PackRow]:
    """As the packs themselves say."""
    found = [(obj, open_pack(topics.vault, obj)) for obj in topics.vault.objects("events", "packs")]
    return [row_of(obj.key, opened.header, opened.index) for obj, opened in found]


def test_only_the_packs_behind_the_last_catalogue_are_opened() -> None:
    """Ten packs in catalogues of four: two packs are read, and the export says what it says without catalogues."""
    topics = life()
    export = open_export(topics.vault, "events")
    assert topics.store.packs_read() == 2
    assert told(export) == told(open_export(topics.vault, "events", catalogues=False))
    assert topics.store.packs_read() == 10


@pytest.mark.parametrize("partitions", [1, 9000])
def test_of_large_packs_that_no_catalogue_has_the_first_frame_is_read(partitions: int) -> None:
    """The export is the same, and no pack was fetched whole, unless its index is larger than a frame."""
    topics = Topics(seals=False, bet=random.Random(1).randbytes(3 << 20))
    for _ in range(3):
        topics.put((BET, 1))
    topics.put((BET, 1), *(((PLAYERS, partition, 0), 1) for partition in range(partitions)))
    topics.tell()
    topics.store.packs_read()
    export = open_export(topics.vault, "events")
    assert topics.store.packs_read() == (0 if partitions == 1 else 1)
    assert told(export) == told(open_export(topics.vault, "events", catalogues=False))
    assert export.packs == 4


def test_a_first_frame_that_was_altered_is_refused() -> None:
    """The export is not opened: what a pack says of itself is authenticated before it is believed."""
    topics = Topics(seals=False, bet=random.Random(1).randbytes(3 << 20))
    topics.put((BET, 1))
    topics.tell()
    (name,) = topics.names("packs")
    (row,) = topics.store.rows[name]
    assert row.data is not None
    row.data = row.data[:9000] + bytes([row.data[9000] ^ 1]) + row.data[9001:]
    with pytest.raises(VaultError) as refused:
        open_export(topics.vault, "events")
    assert refused.value.code == "vault.tampered"


def test_a_catalogue_says_what_its_packs_say_and_names_the_one_before() -> None:
    """Row for row, by the packs' numbers; each continues the header of the one before."""
    topics = life(12)
    lists = list(topics.vault.objects("events", PACK_LIST))
    assert [row for obj in lists for row in open_catalogue(topics.vault, obj)] == rows_of(topics)
    assert [(obj.key.first, obj.key.last) for obj in lists] == [(0, 4), (4, 8), (8, 12)]
    headers = [topics.vault.header(obj) for obj in lists]
    assert headers[0].previous is None
    assert all(later.previous == earlier.digest for earlier, later in pairwise(headers))


def test_a_catalogue_is_locked_as_its_packs_are() -> None:
    """It is of use as long as they are."""
    topics = life()
    heads = [topics.store.head(name) for name in (topics.names("packs")[0], topics.names(PACK_LIST)[0])]
    assert len({head.lock for head in heads if head is not None}) == 1


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_packs_of_a_catalogue_that_is_gone_or_damaged_are_opened(harm: str) -> None:
    """Nothing becomes unreachable: the export is the same."""
    topics = life()
    whole = told(open_export(topics.vault, "events"))
    name = topics.names(PACK_LIST)[0]
    if harm == "gone":
        del topics.store.rows[name]
    else:
        (row,) = topics.store.rows[name]
        assert row.data is not None
        row.data = row.data[:-200] + bytes(100) + row.data[-100:]
    topics.store.packs_read()
    export = open_export(topics.vault, "events")
    assert topics.store.packs_read() == 6
    assert told(export) == whole


def test_a_pack_that_no_catalogue_has_is_not_hidden_by_one() -> None:
    """A fork that reaches farther than what was catalogued counts, as the chain's rule says."""
    topics = life(4)
    branch = Topics(clock=topics.clock)
    branch.vault = topics.vault
    last = rows_of(topics)[-1]
    branch.begin, branch.previous, branch.rows = 3, last.previous, {BET: replace(topics.rows[BET], next=5)}
    branch.start()
    branch.put((BET, 7))
    branch.put((BET, 8))
    branch.tell()
    export = open_export(topics.vault, "events")
    assert export.packs == 5
    assert export.topic("bets").partitions[0].next == 20
    assert told(export) == told(open_export(topics.vault, "events", catalogues=False))


def test_a_catalogue_makes_up_no_pack() -> None:
    """A pack that it has and the vault has not is a hole as ever."""
    topics = life(8)
    del topics.store.rows[topics.names("packs")[5]]
    with pytest.raises(VaultError) as refused:
        open_export(topics.vault, "events")
    assert refused.value.code == "kafka.hole"


def test_a_catalogue_that_says_something_else_than_a_pack_is_told() -> None:
    """Reading there is refused, `vault verify` names the pack, and without catalogues all can be read."""
    topics = life(4)
    rows = rows_of(topics)
    moved = replace(rows[2].index.slices[0], next=rows[2].index.slices[0].next + 1)
    index = replace(rows[2].index, slices=(moved,))
    for name in topics.names(PACK_LIST):
        del topics.store.rows[name]
    seal_catalogue(topics.vault, "events", [*rows[:2], replace(rows[2], index=index), rows[3]], None)
    with pytest.raises(VaultError) as refused:
        told(open_export(topics.vault, "events"))
    assert refused.value.code == "kafka.catalogue"
    found = [(each.kind, each.key) for each in verify(topics.vault).findings if each.kind != "gap"]
    assert found == [("rolled_wrong", str(rows[2].key))]
    assert open_export(topics.vault, "events", catalogues=False).packs == 4


def test_verify_knows_catalogues() -> None:
    """A vault with them is sound; one whose rows are not those of its positions is malformed."""
    topics = life()
    assert [each for each in verify(topics.vault).findings if each.kind != "gap"] == []
    obj = next(topics.vault.objects("events", PACK_LIST))
    rows = open_catalogue(topics.vault, obj)
    body = canonical.decode(encode_pack_list(rows[1:]), limit_bytes=1 << 20, what="catalogue")
    with pytest.raises(VaultError):
        parse_pack_list(body, obj.key)


def test_rows_that_nobody_takes_are_let_go() -> None:
    """A vault that takes no catalogue for long costs time later, never memory now; packs are stored all the same."""
    topics = Topics(every=3, seals=False)
    for _ in range(7):
        topics.put((BET, 1))
    assert [row.key.first for row in topics.catalogue.cut()] == [6]
