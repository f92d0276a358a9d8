"""The vault's listing, its facts, inventories and witnesses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.facts import facts, latest_fact, record_fact
from dr_assets.vault.inventory import parse_inventory, record_inventory
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.witness import Witness, check_witness
from dr_assets_tests.faults.vault.sample import DATASET, SYSTEM_ID, StepClock, StillClock, build_sample, put


def memory_of(vault: Vault) -> MemoryStore:
    """Its store, which these tests know to be in memory."""
    assert isinstance(vault.store, MemoryStore)
    return vault.store


def test_objects_are_listed_by_dataset_stream_and_position() -> None:
    """Keys of data keys and foreign names are left out; a start position keeps what begins there or later."""
    vault = throwaway_vault(clock=StepClock())
    for first in (0, 10, 20):
        put(vault, "wal", "wal", first, first + 10, b"x" * 10)
    part = put(vault, "base-one", "part", 0, 1, b"part")
    memory_of(vault).add("casino/ledger/wal/notes.txt", b"hello")
    wal = [obj.key.first for obj in vault.objects(DATASET, "wal")]
    assert wal == [0, 10, 20]
    assert [obj.key for obj in vault.objects(DATASET, "base-one")] == [part.key]
    assert len(list(vault.objects())) == 4
    later = vault.objects(DATASET, "wal", system_id=SYSTEM_ID, timeline=1, start_after_position=10)
    assert [obj.key.first for obj in later] == [10, 20]
    assert list(vault.objects(DATASET, timeline=2)) == []
    assert len(list(vault.objects(timeline=1))) == 4
    with pytest.raises(ValueError, match="position"):
        list(vault.objects(DATASET, start_after_position=10))


def test_overlays_hide_nothing() -> None:
    """An object under a delete marker and other versions lists, fetches, opens and shows its header as before."""
    vault = throwaway_vault(clock=StepClock())
    sealed = put(vault, "wal", "wal", 0, 5, b"money")
    before = list(vault.objects())
    for data in (None, b"rubbish", None):
        memory_of(vault).add(str(sealed.key), data)
    (obj,) = vault.objects()
    assert [obj] == before
    assert vault.open(obj).plaintext == b"money"
    assert vault.header(obj) == sealed.header
    hidden = type(obj)(obj.key, "no such version", obj.size_bytes, obj.modified_at)
    assert vault.fetch(hidden) == sealed.data


def test_as_of_shows_the_vault_as_it_was() -> None:
    """By the store's clock."""
    clock = StepClock()
    vault = throwaway_vault(clock=clock)
    put(vault, "wal", "wal", 0, 5, b"early")
    between = clock.at
    put(vault, "wal", "wal", 5, 9, b"late")
    assert [obj.key.first for obj in vault.objects(as_of=between)] == [0]


def test_a_large_objects_header_is_believed_from_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle isn't read; a header with another trailer or place is refused all the same."""
    vault = throwaway_vault(clock=StepClock())
    one, other = (put(vault, "wal", "wal", n, n + 1, b"%d" % n * 3_000_000, extra={"k": "v" * 4000}) for n in (0, 1))
    store = memory_of(vault)
    read: list[int] = []
    whole = store.get_range

    def counted(key: str, version_id: str, begin: int, end: int) -> bytes:
        read.append(end - begin)
        return whole(key, version_id, begin, end)

    monkeypatch.setattr(store, "get_range", counted)
    monkeypatch.setattr("dr_assets.vault.vault.WHOLE_READ_BYTES", 600)
    big = [type(obj)(obj.key, obj.version_id, len(one.data), obj.modified_at) for obj in vault.objects()]
    assert vault.header(big[0]) == one.header
    assert max(read) < 10_000
    row = store.rows[str(one.key)][0]
    row.data = one.data[:-96] + other.data[-96:]
    with pytest.raises(VaultError, match="bad_signature"):
        vault.header(big[0])
    row.data = other.data
    with pytest.raises(VaultError, match="misplaced"):
        vault.header(big[0])


def test_the_latest_fact_is_found_however_old() -> None:
    """By widening windows over ordered names: seconds, days and years back; None where there is none."""
    clock = StillClock()
    vault = throwaway_vault(clock=clock)
    assert latest_fact(vault, DATASET, "drill") is None
    for days in (0, 0.5, 20, 300, 3000):
        clock.at += timedelta(days=days)
        record_fact(vault, DATASET, "drill", {"days": str(days)})
        clock.at += timedelta(days=days)
        found = latest_fact(vault, DATASET, "drill")
        assert found is not None
        assert found.body == {"days": str(days)}


def test_facts_are_chained_and_never_out_of_order() -> None:
    """Each names the one before it; a clock set back does not hide the newest."""
    clock = StillClock()
    vault = throwaway_vault(clock=clock)
    first = record_fact(vault, DATASET, "drill", {"n": 1})
    clock.at -= timedelta(seconds=3)
    record_fact(vault, DATASET, "drill", {"n": 2})
    one, two = facts(vault, DATASET, "drill")
    assert (one.body, two.body) == ({"n": 1}, {"n": 2})
    assert two.at - one.at == timedelta(microseconds=1)
    assert two.header.previous == one.header.digest
    assert two.header.extra["previous_key"] == str(first.key)
    assert one.header.previous is None
    assert list(facts(vault, DATASET, "drill", begin=two.at)) == [two]
    assert list(facts(vault, DATASET, "drill", end=two.at)) == [one]
    assert list(facts(vault, DATASET, "snapshot")) == []


def test_a_facts_time_may_be_given_and_as_of_ignores_later_ones() -> None:
    """What was true then; the newest at a time is the newest that the store held then."""
    clock = StepClock()
    vault = throwaway_vault(clock=clock)
    at = datetime(2031, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    record_fact(vault, DATASET, "drill", {"n": 1}, at=at)
    between = clock.at
    record_fact(vault, DATASET, "drill", {"n": 2})
    found = latest_fact(vault, DATASET, "drill", as_of=between)
    assert found is not None
    assert (found.at, found.body) == (at, {"n": 1})


def test_a_damaged_latest_fact_is_never_skipped() -> None:
    """Falling back to an older one would be a silent lie."""
    vault = throwaway_vault(clock=StepClock())
    record_fact(vault, DATASET, "drill", {"n": 1})
    receipt = record_fact(vault, DATASET, "drill", {"n": 2})
    memory_of(vault).rows[str(receipt.key)][0].data = b"gone"
    with pytest.raises(VaultError, match="tampered"):
        latest_fact(vault, DATASET, "drill")


def test_an_inventory_counts_what_has_settled() -> None:
    """What was put a moment ago may still gain a predecessor, so it is left to the next inventory."""
    clock = StillClock()
    vault = throwaway_vault(clock=clock)
    for first in range(3):
        put(vault, "wal", "wal", first, first + 1, b"x")
    clock.at += timedelta(minutes=5)
    put(vault, "wal", "wal", 3, 4, b"x")
    clock.at += timedelta(seconds=10)
    record_inventory(vault, DATASET)
    found = latest_fact(vault, DATASET, "inventory")
    assert found is not None
    shelves = parse_inventory(found.body, name="it")
    (wal,) = [shelf for place, shelf in shelves.items() if "/wal/" in place]
    assert (wal.count, wal.first.first, wal.last.first, len(wal.keys)) == (3, 0, 2, 3)
    for body in ({}, {"places": {"x": 1}}, {"places": {"x": {"first": "y"}}}):
        with pytest.raises(VaultError, match="malformed"):
            parse_inventory(body, name="it")  # type: ignore[arg-type]  # that is the point


def test_a_witness_refuses_an_older_vault_and_names_what_is_gone(tmp_path: Path) -> None:
    """Through its file; an unknown file is no witness yet, an odd one is refused, newer ones merge."""
    sample = build_sample(5)
    path = tmp_path / "deep" / "witness.json"
    assert Witness.load(path) == Witness()
    sample.witness.save(path)
    sample.witness.save(path)
    known = Witness.load(path)
    assert known == sample.witness
    check_witness(sample.vault, known)
    gone = max(name for name in sample.sealed if "/facts-inventory/" in name)
    del memory_of(sample.vault).rows[gone]
    with pytest.raises(VaultError, match="older_than_witness") as caught:
        check_witness(sample.vault, known)
    assert gone in caught.value.found
    check_witness(throwaway_vault(estate="another"), known)
    for text in ("", "{}", '{"newest": ["x"]}', '{"newest": 7}'):
        path.write_text(text)
        with pytest.raises(PolicyError, match="bad_witness"):
            Witness.load(path)


def test_merged_witnesses_keep_the_newer_of_both() -> None:
    """At each place."""
    old = build_sample(6)
    before = old.witness
    put(old.vault, "wal", "wal", old.next_position, old.next_position + 1, b"x")
    after = Witness.of(obj.key for obj in old.vault.objects())
    assert before.merged(after).newest == after.merged(before).newest
    place = f"casino/ledger/wal/{SYSTEM_ID}/00000001/"
    assert before.merged(after).newest[place].first == old.next_position
