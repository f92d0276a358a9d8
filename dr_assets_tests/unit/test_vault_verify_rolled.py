"""Verification of full segments: one chain over fulls and micros, the same bytes in both, nothing missed beneath."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from dr_assets.components.judgements import judge_locked
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.chain import Hole
from dr_assets.vault.format import canonical
from dr_assets.vault.full_segment import FULL, FULL_LIST
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets.vault.verify.rolled import Slices
from dr_assets.vault.verify.tallied import Covered, HashBag
from dr_assets_tests.unit.test_rollup import SMALL, T0, Clock, Wal, vault_of


@pytest.fixture
def rolled() -> Iterator[tuple[Vault, Wal]]:
    """Three fulls of ten micros each and five micros behind them, with an inventory of all."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(35)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    clock = vault.clock
    assert isinstance(clock, Clock)
    clock.now = T0.replace(hour=T0.hour + 1)
    record_inventory(vault, "ledger")
    return iter([(vault, wal)])


def rows(vault: Vault) -> dict[str, list[object]]:
    """What the store holds."""
    assert isinstance(vault.store, MemoryStore)
    return vault.store.rows  # type: ignore[return-value]  # only names are looked at


def found(vault: Vault) -> list[tuple[str, str]]:
    """Kinds and names."""
    return [(finding.kind, finding.key) for finding in verify(vault).findings]


def micros(vault: Vault, begin: int, end: int) -> list[str]:
    """Names of the micros within."""
    return [str(obj.key) for obj in vault.objects("ledger", "wal") if begin <= obj.key.first < end]


def test_a_rolled_up_vault_is_sound(rolled: Iterator[tuple[Vault, Wal]]) -> None:
    """Fulls, their lists and the micros they hold agree."""
    vault, _ = next(rolled)
    assert found(vault) == []


def test_micros_gone_beneath_a_full_are_no_loss(rolled: Iterator[tuple[Vault, Wal]]) -> None:
    """All of them, or some: their positions are covered, and neither inventory nor fact misses them."""
    vault, _ = next(rolled)
    for name in micros(vault, 5000, 5300) + micros(vault, 6400, 8000):
        del rows(vault)[name]
    assert found(vault) == []
    for name in micros(vault, 5000, 8000):
        del rows(vault)[name]
    assert found(vault) == []


def test_a_micro_that_no_full_holds_is_still_missed(rolled: Iterator[tuple[Vault, Wal]]) -> None:
    """Behind the last full, a hole is a hole."""
    vault, _ = next(rolled)
    (gone,) = micros(vault, 8100, 8200)
    for name in [*micros(vault, 5000, 8000), gone]:
        del rows(vault)[name]
    kinds = dict(found(vault))
    assert kinds["hole"] == gone.rpartition("-")[0] + "-"
    assert kinds["missing"] == gone


def test_a_full_gone_with_its_micros_is_a_hole(rolled: Iterator[tuple[Vault, Wal]]) -> None:
    """While its micros are there nothing is lost; afterwards exactly its positions are."""
    vault, _ = next(rolled)
    (full,) = [str(obj.key) for obj in vault.objects("ledger", FULL) if obj.key.first == 6000]
    del rows(vault)[full]
    place = full.rpartition("/")[0].replace("/full/", "/wal/")
    hole = f"{6000:016X}-{7000:016X}-"
    kinds = found(vault)
    assert ("hole", f"{place}/{hole}") not in kinds
    assert ("hole", f"{place.replace('/wal/', '/full/')}/{hole}") in kinds
    for name in micros(vault, 5000, 8000):
        del rows(vault)[name]
    assert ("hole", f"{place}/{hole}") in found(vault)


def test_the_tail_has_to_continue_the_last_full() -> None:
    """A micro that begins where the last full ends and names another piece is reachable by nobody."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(11)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    for name in micros(vault, 5000, 7000):
        del rows(vault)[name]
    stranger = Wal(vault, position=6000, previous="ab" * 32)
    stranger.put(2)
    assert ("hole", f"casino/ledger/wal/7/00000001/{6000:016X}-{6000:016X}-") in found(vault)


def test_a_full_with_other_bytes_than_its_micros_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A roller that errs is caught by the digests that its own list took from the micros."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(11)
    wal.tell()
    prepare = vault.prepare

    def prepared_wrongly(**fields):  # type: ignore[no-untyped-def] # noqa: ANN202, ANN003 - passes on what it gets
        if fields["stream"] == FULL:
            fields["plaintext"] = fields["plaintext"][::-1]
        return prepare(**fields)

    monkeypatch.setattr(vault, "prepare", prepared_wrongly)
    roll_up(vault, "ledger", limits=SMALL)
    (full,) = vault.objects("ledger", FULL)
    assert ("rolled_wrong", str(full.key)) in found(vault)


def test_a_list_that_says_another_digest_is_caught_by_the_micro() -> None:
    """Full and list may agree with each other and still not be what the capture sealed."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(11)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    (obj,) = vault.objects("ledger", FULL_LIST)
    opened = vault.open(obj)
    body = canonical.decode(opened.plaintext, limit_bytes=1 << 20, what="list")
    listed = body["micros"]
    assert isinstance(listed, list)
    assert isinstance(listed[4], list)
    listed[4][1] = "ab" * 32
    del rows(vault)[str(obj.key)]
    header = opened.header
    prepared = vault.prepare(
        dataset="ledger", stream=FULL_LIST, kind="manifest", system_id="7", timeline=1, first=header.first,
        last=header.last, begin_at=header.begin_at, end_at=header.end_at, plaintext=canonical.encode(body),
    )  # fmt: skip
    vault.put(prepared.seal(), vault.locks.lock("ledger", "manifest", vault.clock()))
    (full,) = vault.objects("ledger", FULL)
    assert found(vault) == [("rolled_wrong", str(full.key)), ("rolled_wrong", micros(vault, 5400, 5500)[0])]


def test_a_full_without_its_list_is_unfinished() -> None:
    """What a kill between the two leaves behind is named, and the next run makes it up."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(11)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    (obj,) = vault.objects("ledger", FULL_LIST)
    del rows(vault)[str(obj.key)]
    (full,) = vault.objects("ledger", FULL)
    assert found(vault) == [("unfinished", str(full.key))]
    roll_up(vault, "ledger", limits=SMALL)
    assert found(vault) == []


def test_micros_that_no_full_took_over_are_unlocked_once_their_short_lock_is_over() -> None:
    """A roller that died leaves WAL unprotected that is due to be locked for longer. What nobody needs is only told."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(21)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    late = Wal(vault, position=6000, previous="ab" * 32, epoch=0)
    late.put(1, stored=False)
    orphan = Wal(vault, position=9000, previous="cd" * 32, epoch=0)
    orphan.put(1, stored=False)
    wal.put(3)
    wal.tell()
    clock.now += timedelta(days=15)
    assert [key for kind, key in found(vault) if kind == "unlocked"] == micros(vault, 7000, 7400)
    report = verify(vault)
    assert not judge_locked(report).passed
    clock.now += timedelta(days=3650)
    assert "unlocked" not in dict(found(vault))
    assert judge_locked(verify(vault)).reason.startswith("0 objects locked; the locks of ")


def test_positions_covered_are_put_together_and_taken_out_of_holes() -> None:
    """Ranges in any order, touching or overlapping; what is left of a hole is exact."""
    covered = Covered()
    for begin, end in [(30, 40), (10, 20), (20, 30), (50, 60), (35, 45)]:
        covered.add(begin, end)
    assert covered.missing_of(Hole(0, 100)) == [Hole(0, 10), Hole(45, 50), Hole(60, 100)]
    assert covered.holds(10, 45)
    assert not covered.holds(44, 51)
    assert covered.missing_of(Hole(12, 12)) == []


def test_slices_are_those_of_the_whole_however_it_comes() -> None:
    """Pieces of any size give the digests of the slices asked for."""
    data = bytes(range(250))
    whole = Slices([100, 1, 149])
    whole.update(data)
    bit_by_bit = Slices([100, 1, 149])
    for at in range(0, 250, 7):
        bit_by_bit.update(data[at : at + 7])
    assert len(whole.digests) == 3
    assert whole.digests == bit_by_bit.digests


def test_a_bag_knows_what_was_added() -> None:
    """And nothing else, also when more is added after it was asked."""
    bag = HashBag()
    assert "a" not in bag
    bag.add("a")
    assert "a" in bag
    bag.add("b")
    assert ("b" in bag, "c" in bag, "a" in bag) == (True, False, True)
