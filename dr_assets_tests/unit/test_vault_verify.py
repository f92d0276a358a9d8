"""Verification: what is an error, what a notice, and that it names it."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.signing import Trust
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import VerifyReport, verify
from dr_assets.vault.verify.report import KINDS
from dr_assets_tests.faults.vault.sample import (
    DATASET,
    SYSTEM_ID,
    Sample,
    StepClock,
    StillClock,
    build_sample,
    put,
)

WAL = f"casino/ledger/wal/{SYSTEM_ID}/00000001/"


@pytest.fixture
def sample() -> Sample:
    """Undamaged."""
    return build_sample(11)


def memory_of(vault: Vault) -> MemoryStore:
    """Its store, which these tests know to be in memory."""
    assert isinstance(vault.store, MemoryStore)
    return vault.store


def kinds(report: VerifyReport) -> dict[str, str]:
    """Kinds by name, joined by a plus where there are several."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.key, []).append(finding.kind)
    return {name: "+".join(sorted(set(several))) for name, several in found.items()}


def acknowledge(vault: Vault, begin: int, stored: int) -> None:
    """As a capture does."""
    body = {"system_id": SYSTEM_ID, "timeline": 1, "begin": f"0/{begin:X}", "stored": f"0/{stored:X}"}
    record_fact(vault, DATASET, "capture", body)


def test_an_undamaged_vault_has_no_finding(sample: Sample) -> None:
    """And everything is counted: objects, locks, bytes; progress reaches the end."""
    steps: list[tuple[int, int, int]] = []
    report = verify(sample.vault, witness=sample.witness, progress=lambda *step: steps.append(step))
    assert report.ok
    assert report.findings == ()
    assert report.objects_total == report.objects_locked == len(sample.sealed)
    assert report.size_bytes == sum(map(len, sample.sealed.values()))
    assert [step[:2] for step in steps] == [(number + 1, len(sample.sealed)) for number in range(len(sample.sealed))]
    assert steps[-1][2] == report.read_bytes == report.size_bytes
    assert report.to_json()["ok"] is True


def test_a_json_report_tells_all(sample: Sample) -> None:
    """Kind, severity, name, version and detail."""
    name = next(name for name in sample.sealed if name.startswith(WAL))
    memory_of(sample.vault).rows[name][0].data = b""
    report = verify(sample.vault)
    (row,) = [row for row in report.to_json()["findings"] if row["key"] == name]
    assert (row["kind"], row["severity"]) == ("cut", "error")
    assert row["version_id"]
    assert row["detail"]
    assert not report.ok


def test_an_unlocked_object_is_named(sample: Sample) -> None:
    """No lock, or one shorter than its rule; one that has ended is only told, but for WAL that is still needed."""
    names = sorted(name for name in sample.sealed if name.startswith(WAL))[:3]
    part = min(name for name in sample.sealed if "/base-" in name)
    rows = memory_of(sample.vault).rows
    soon = sample.vault.clock() + timedelta(days=2)
    rows[names[0]][0].lock = None
    rows[names[1]][0].lock = Lock("GOVERNANCE", soon)
    over = Lock("GOVERNANCE", sample.vault.clock() - timedelta(seconds=1))
    rows[names[2]][0].lock = rows[part][0].lock = over
    report = verify(sample.vault)
    assert kinds(report) == {
        names[0]: "unlocked",
        names[1]: "unlocked",
        names[2]: "lock_expired+unlocked",
        part: "lock_expired",
    }
    assert report.objects_locked == report.objects_total - 3


def test_governance_where_compliance_is_declared_is_no_lock() -> None:
    """The bypass would let one identity delete it."""
    clock = StepClock()
    rules = {"ledger": (ThrowawayRetention("compliance", 14), timedelta(days=1))}
    vault = throwaway_vault(clock=clock, rules=rules)
    sealed = put(vault, "wal", "wal", 0, 1, b"x")
    row = memory_of(vault).rows[str(sealed.key)][0]
    assert verify(vault).ok
    assert row.lock is not None
    row.lock = Lock("GOVERNANCE", row.lock.retain_until)
    assert kinds(verify(vault)) == {str(sealed.key): "unlocked"}


def test_a_hole_below_what_was_acknowledged_is_damage() -> None:
    """By a capture's fact, or by a header's own word; the missing positions are the name."""
    for word in ("fact", "header"):
        vault = throwaway_vault(clock=StepClock())
        put(vault, "wal", "wal", 0, 10, b"x" * 10)
        gone = put(vault, "wal", "wal", 10, 20, b"x" * 10)
        extra = {"acknowledged_to": f"{20:016X}"} if word == "header" else None
        put(vault, "wal", "wal", 20, 30, b"x" * 10, extra=extra)
        if word == "fact":
            acknowledge(vault, 0, 30)
        assert verify(vault).ok
        del memory_of(vault).rows[str(gone.key)]
        assert kinds(verify(vault)) == {f"{WAL}{10:016X}-{20:016X}-": "hole"}


def test_a_hole_of_which_nothing_was_said_is_damage_too() -> None:
    """Silence is no excuse."""
    vault = throwaway_vault(clock=StepClock())
    put(vault, "wal", "wal", 0, 10, b"x" * 10)
    put(vault, "wal", "wal", 20, 30, b"x" * 10)
    assert kinds(verify(vault)) == {f"{WAL}{10:016X}-{20:016X}-": "hole"}


def test_what_a_crash_leaves_beyond_everything_acknowledged_is_a_notice() -> None:
    """Orphans of parallel puts are listed by name and are no damage; neither is the fork of a late put."""
    vault = throwaway_vault(clock=StepClock())
    one = put(vault, "wal", "wal", 0, 10, b"x" * 10)
    acknowledge(vault, 0, 10)
    orphan = put(vault, "wal", "wal", 20, 30, b"x" * 10)
    report = verify(vault)
    assert report.ok
    assert kinds(report) == {str(orphan.key): "orphan"}
    late = put(vault, "wal", "wal", 10, 15, b"x" * 5, previous=one.header.digest, epoch=1)
    put(vault, "wal", "wal", 10, 40, b"x" * 30, previous=one.header.digest, epoch=2)
    acknowledge(vault, 0, 40)
    report = verify(vault)
    assert report.ok
    assert kinds(report) == {str(late.key): "fork", str(orphan.key): "fork"}


def test_a_gap_on_record_is_a_notice_and_the_chain_beyond_it_is_judged() -> None:
    """What was never captured is not missing from the vault; a hole behind the gap still is."""
    vault = throwaway_vault(clock=StepClock())
    put(vault, "wal", "wal", 0, 10, b"x" * 10)
    acknowledge(vault, 0, 10)
    body = {"system_id": SYSTEM_ID, "timeline": 1, "chain_end": "0/A", "available": f"0/{100:X}", "why": "slot lost"}
    record_fact(vault, DATASET, "gap", body)
    put(vault, "wal", "wal", 100, 110, b"x" * 10)
    gone = put(vault, "wal", "wal", 110, 120, b"x" * 10)
    put(vault, "wal", "wal", 120, 130, b"x" * 10)
    acknowledge(vault, 100, 130)
    gap = f"{WAL}{10:016X}-{100:016X}-"
    assert kinds(verify(vault)) == {gap: "gap"}
    del memory_of(vault).rows[str(gone.key)]
    assert kinds(verify(vault)) == {gap: "gap", f"{WAL}{110:016X}-{120:016X}-": "hole"}


def test_a_chains_lost_beginning_and_end_are_damage() -> None:
    """A capture said where the chain began and how far it reached; all of it gone is damage as well."""
    vault = throwaway_vault(clock=StepClock())
    pieces = [put(vault, "wal", "wal", first, first + 10, b"x" * 10) for first in (0, 10, 20)]
    acknowledge(vault, 0, 30)
    rows = memory_of(vault).rows
    kept = {str(piece.key): rows.pop(str(piece.key)) for piece in pieces}
    assert kinds(verify(vault)) == {f"{WAL}{0:016X}-{30:016X}-": "hole"}
    rows[str(pieces[1].key)] = kept[str(pieces[1].key)]
    assert kinds(verify(vault)) == {
        f"{WAL}{0:016X}-{10:016X}-": "hole",
        f"{WAL}{20:016X}-{30:016X}-": "hole",
    }


def test_what_has_left_at_the_end_of_its_lock_is_not_missing() -> None:
    """A fact's claim and a chain's beginning hold for as long as the rule keeps objects, not for ever."""
    clock = StillClock()
    vault = throwaway_vault(clock=clock)
    piece = put(vault, "wal", "wal", 0, 10, b"x" * 10)
    acknowledge(vault, 0, 10)
    record_fact(vault, DATASET, "snapshot", {"segment": str(piece.key)})
    put(vault, "wal", "wal", 10, 20, b"x" * 10)
    acknowledge(vault, 0, 20)
    del memory_of(vault).rows[str(piece.key)]
    clock.at += timedelta(days=20)
    assert kinds(verify(vault)) == {str(piece.key): "missing", f"{WAL}{0:016X}-{10:016X}-": "hole"}
    clock.at += timedelta(days=20)
    assert set(kinds(verify(vault)).values()) == {"lock_expired"}


def test_parts_of_a_backup_that_never_ended_are_a_notice() -> None:
    """No manifest lists them, so no restore uses them."""
    vault = throwaway_vault(clock=StepClock())
    part = put(vault, "base-one", "part", 0, 1, b"x")
    report = verify(vault)
    assert report.ok
    assert kinds(report) == {str(part.key): "unfinished"}


def test_a_part_that_is_not_the_one_listed_is_named(sample: Sample) -> None:
    """Another genuine part at the same ordinal does not pass for the one in the manifest."""
    part = next(name for name in sample.sealed if "/base-2031" in name)
    key = ObjectKey.parse(part)
    assert key is not None
    del memory_of(sample.vault).rows[part]
    other = put(sample.vault, key.stream, "part", key.first, key.last, b"another")
    found = kinds(verify(sample.vault))
    assert found[part] == "missing"
    assert found[str(other.key)] == "unfinished"


def test_only_one_dataset_can_be_judged(sample: Sample) -> None:
    """Damage elsewhere is not looked at."""
    memory_of(sample.vault).add("casino/other/readme", b"hello")
    assert "casino/other/readme" in kinds(verify(sample.vault))
    assert verify(sample.vault, DATASET, witness=sample.witness).findings == ()


def test_as_of_judges_the_vault_as_it_was(sample: Sample) -> None:
    """An overlay and a stranger's name of later are not there yet."""
    before = sample.vault.clock()
    name = next(iter(sample.sealed))
    for data in (b"x", None):
        memory_of(sample.vault).add(name, data)
    memory_of(sample.vault).add("casino/readme", b"x")
    assert kinds(verify(sample.vault)) == {name: "delete_marker+overlay", "casino/readme": "foreign"}
    judged = verify(sample.vault, as_of=before)
    assert judged.ok
    assert kinds(judged) == {name: "delete_marker+overlay", "casino/readme": "foreign"}


def test_nobody_trusted_signed_it(sample: Sample) -> None:
    """With another trust file every object is named as untrusted."""
    vault = throwaway_vault(
        store=sample.vault.store, signer=sample.vault.signer, provider=sample.vault.keys.provider, trust=Trust({})
    )
    report = verify(vault)
    assert {finding.kind for finding in report.errors} == {"untrusted"}
    assert {finding.key for finding in report.errors} == set(sample.sealed)


def test_a_lost_key_object_is_one_missing_name(sample: Sample) -> None:
    """However many objects it opened, and although this process still has the key in memory."""
    name = next(name for name in sample.sealed if "/keys/" in name)
    del memory_of(sample.vault).rows[name]
    report = verify(sample.vault)
    assert [(finding.kind, finding.key) for finding in report.errors] == [("missing", name[: name.rindex("/") - 8])]


def test_a_stream_that_vanished_is_missed_by_the_inventory(sample: Sample) -> None:
    """Every name that the inventory spells out; a large stream by its place."""
    gone = [name for name in sample.sealed if "/facts-drill/" in name]
    for name in gone:
        del memory_of(sample.vault).rows[name]
    found = kinds(verify(sample.vault))
    assert {name: found.get(name) for name in gone} == dict.fromkeys(gone, "missing")


def test_a_large_stream_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many names to spell out: count and digest betray a loss, a late put is only noted."""
    monkeypatch.setattr("dr_assets.vault.inventory.NAMES_LIMIT", 3)
    vault = throwaway_vault(clock=StepClock())
    pieces = [put(vault, "facts-x", "fact", first, first + 1, b"{}") for first in range(0, 12, 2)]
    record_inventory(vault, DATASET, settled=timedelta())
    assert verify(vault).ok
    late = put(vault, "facts-x", "fact", 5, 6, b"{}")
    place = late.key.place
    assert kinds(verify(vault)) == {place: "changed"}
    rows = memory_of(vault).rows
    del rows[str(late.key)]
    del rows[str(pieces[2].key)]
    assert kinds(verify(vault)) == {place: "missing"}


def test_a_newer_versions_object_is_told(sample: Sample) -> None:
    """This program can say nothing of it, and says so."""
    name, data = next((name, data) for name, data in sample.sealed.items() if name.startswith(WAL))
    newer = data[:7] + b"\2" + data[8:]
    other = name[:-32] + hashlib.sha256(newer).hexdigest()[:32]
    memory_of(sample.vault).add(other, newer)
    assert kinds(verify(sample.vault))[other] == "newer_version+unlocked"


def test_a_store_that_cannot_be_read_is_no_report(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a verification would be a silent lie."""

    def unreachable(*_: object, **__: object) -> None:
        raise VaultError("vault.unreachable", "down", "wait")

    monkeypatch.setattr(memory_of(sample.vault), "get", unreachable)
    with pytest.raises(VaultError, match="unreachable"):
        verify(sample.vault)


def test_the_page_lists_every_kind_of_finding() -> None:
    """docs/format.md has each kind with its severity, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (error|notice) \|", page, re.MULTILINE)
    assert dict(rows) == KINDS
