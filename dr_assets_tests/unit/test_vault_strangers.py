"""What anybody with write access can lay into a vault, locked for years: it is reported, and it stops nothing."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import facts, latest_fact, record_fact
from dr_assets.vault.format import sizes
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import Blob, Head, Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.sample import DATASET, StillClock, put

KIND = "capture"
RUBBISH = b"\x00rubbish" * 9


class Careless(MemoryStore):
    """Keeps no checksums, as some stores don't."""

    def head(self, key: str, version_id: str | None = None) -> Head | None:
        """Without its digest."""
        head = super().head(key, version_id)
        return None if head is None else replace(head, sha256=None)


class Case:
    """A vault with two facts, and somebody who may put."""

    def __init__(self, store: type[MemoryStore] = MemoryStore) -> None:
        self.clock = StillClock()
        self.store = store(self.clock)
        self.vault = throwaway_vault(store=self.store, clock=self.clock)
        self.record(1)
        self.record(2)

    def record(self, number: int, vault: Vault | None = None) -> ObjectKey:
        """One more fact."""
        self.clock.at += timedelta(seconds=1)
        return record_fact(vault or self.vault, DATASET, KIND, {"n": number}).key

    def lay(self, at_us: int | None, data: bytes, digest: str | None = None, kind: str = KIND) -> str:
        """Lay locked bytes at a position, 2 s from now by default, under their own digest unless another is given."""
        first = int(self.clock.at.timestamp() * 1_000_000) + 2_000_000 if at_us is None else at_us
        name = ObjectKey(
            self.vault.estate, DATASET, f"facts-{kind}", "0", 0, first, min(first + 1, (1 << 64) - 1),
            digest or hashlib.sha256(data).hexdigest()[:32],
        )  # fmt: skip
        self.store.add(str(name), data, Lock("COMPLIANCE", self.clock.at + timedelta(days=4000)))
        return str(name)

    def newest(self) -> object:
        """The number in the newest fact."""
        fact = latest_fact(self.vault, DATASET, KIND)
        return None if fact is None else fact.body["n"]

    def seal(self, number: int, vault: Vault, **ahead: float) -> Sealed:
        """A fact of `vault`'s signer, dated some time ahead, not put yet."""
        at = self.clock.at + timedelta(**ahead)
        first = int(at.timestamp()) * 1_000_000
        return vault.prepare(
            dataset=DATASET, stream=f"facts-{KIND}", kind="fact", system_id="0", timeline=0, first=first,
            last=first + 1, begin_at=at, end_at=at, plaintext=b'{"n":%d}' % number,
        ).seal()  # fmt: skip


def test_rubbish_in_the_far_future_blocks_nothing() -> None:
    """Unsigned, locked, at the last position there is: reading and recording go on as if it were not there."""
    case = Case()
    name = case.lay((1 << 64) - 1, RUBBISH)
    assert case.newest() == 2
    case.record(3)
    assert case.newest() == 3
    assert [fact.body["n"] for fact in facts(case.vault, DATASET, KIND)] == [1, 2, 3]
    assert latest_fact(case.vault, DATASET, "nonesuch") is None
    report = verify(case.vault)
    assert {finding.key for finding in report.errors} == {name}
    assert "malformed" in {finding.kind for finding in report.errors}


def stranger(case: Case) -> bytes:
    """A perfect fact of somebody whom nobody trusts, who knows our data key."""
    other = throwaway_vault(store=case.store, clock=case.clock, provider=case.vault.keys.provider)
    other.keys = case.vault.keys
    return case.seal(99, other, seconds=2).data


def copy(case: Case) -> bytes:
    """An earlier fact of ours, to be laid at another position."""
    return next(blob for name, blob in blobs(case) if f"facts-{KIND}" in name)


def blobs(case: Case) -> list[tuple[str, bytes]]:
    """All that is stored."""
    return [(name, rows[0].data or b"") for name, rows in sorted(case.store.rows.items())]


def forged(case: Case) -> bytes:
    """A fact of ours with a flipped bit in its signature."""
    data = bytearray(copy(case))
    data[-1] ^= 1
    return bytes(data)


def newer(case: Case) -> bytes:
    """What claims to be of a later format; nobody can say whose it is."""
    data = copy(case)
    return data[:7] + b"\2" + data[8:]


@pytest.mark.parametrize("store", [MemoryStore, Careless])
@pytest.mark.parametrize("digest", [None, "ab" * 16])
@pytest.mark.parametrize("make", [lambda _: RUBBISH, lambda _: b"", stranger, copy, forged, newer])
def test_what_was_never_ours_is_passed_over(
    make: Callable[[Case], bytes], digest: str | None, store: type[MemoryStore]
) -> None:
    """Dated a moment ahead, so that it is the newest: under its own digest or any other, it is reported and no more."""
    case = Case(store)
    name = case.lay(None, make(case), digest)
    assert case.newest() == 2
    assert record_fact(case.vault, DATASET, KIND, {"n": 3}).key.first < ObjectKey.parse(name).first  # type: ignore[union-attr]
    assert case.newest() == 3
    facts_seen = list(facts(case.vault, DATASET, KIND))
    assert [fact.body["n"] for fact in facts_seen] == [1, 2, 3]
    assert facts_seen[2].header.previous == facts_seen[1].header.digest
    assert name in {finding.key for finding in verify(case.vault).errors}


@pytest.mark.parametrize("store", [MemoryStore, Careless])
def test_what_was_ours_and_is_damaged_is_never_passed_over(store: type[MemoryStore]) -> None:
    """Altered beneath its lock: an older fact must not speak in its place, with or without the store's checksums."""
    case = Case(store)
    (row,) = case.store.rows[str(case.record(3))]
    whole = row.data or b""
    row.data = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    for attempt in (case.newest, lambda: case.record(4), lambda: list(facts(case.vault, DATASET, KIND))):
        with pytest.raises(VaultError, match="tampered"):
            attempt()
    row.data = whole
    assert case.newest() == 3


def test_a_fact_dated_after_the_store_took_it_is_ignored_for_ever() -> None:
    """Sealed by one of ours whose clock ran ahead: it counts neither now nor when its day has come, and is told."""
    case = Case()
    ahead = case.seal(77, case.vault, days=300)
    case.store.add(str(ahead.key), ahead.data, case.vault.locks.lock(DATASET, "fact", case.clock.at))
    assert case.newest() == 2
    case.record(3)
    report = verify(case.vault)
    assert report.ok
    assert [(finding.kind, finding.key) for finding in report.notices] == [("misdated", str(ahead.key))]
    case.clock.at += timedelta(days=301)
    assert case.newest() == 3
    assert [fact.body["n"] for fact in facts(case.vault, DATASET, KIND)] == [1, 2, 3]


def test_what_is_too_large_to_be_ours_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are known before bodies: a terabyte under a fitting name never gets into memory; verify names it."""
    case = Case()
    piece = put(case.vault, "wal", "wal", 0, 5, b"money")
    large = b"x" * 1_500_000
    fact = case.lay(None, large)
    wal = str(replace(piece.key, first=5, last=9, digest=hashlib.sha256(large).hexdigest()[:32]))
    key = next(name for name, _ in blobs(case) if "/keys/" in name)
    other_key = key[:-32] + hashlib.sha256(large).hexdigest()[:32]
    for name in (wal, other_key):
        case.store.add(name, large, Lock("COMPLIANCE", case.clock.at + timedelta(days=4000)))
    monkeypatch.setattr(sizes, "FACT_LIMIT_BYTES", 1000)
    monkeypatch.setattr(sizes, "SEGMENT_LIMIT_BYTES", 1000)
    read: list[str] = []
    whole = case.store.get

    def counted(key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
        blob = whole(key, version_id, limit_bytes=limit_bytes)
        read.append(key)
        return blob

    monkeypatch.setattr(case.store, "get", counted)
    assert case.newest() == 2
    case.record(3)
    with pytest.raises(VaultError, match="tampered"):
        case.vault.fetch(case.vault.find(ObjectKey.parse(wal)))  # type: ignore[arg-type]  # it is one
    report = verify(case.vault)
    assert {finding.key for finding in report.errors if finding.kind == "malformed"} == {fact, wal, other_key}
    assert not {fact, wal, other_key} & set(read)
    with pytest.raises(VaultError, match="too_large"):
        put(case.vault, "wal", "wal", 9, 10, b"x" * 1001)


@pytest.mark.parametrize("days", [300, -300])
def test_a_wrong_clock_leaves_nothing_in_the_store(days: int) -> None:
    """A locked object can't be taken back, so the clock is compared before the put: facts, segments, keys, locks."""
    case = Case()
    wrong = StillClock(case.clock.at + timedelta(days=days))
    vault = throwaway_vault(
        store=case.store, clock=wrong, provider=case.vault.keys.provider, signer=case.vault.signer or Signer.generate()
    )
    before = {name: [(row.version_id, row.lock) for row in rows] for name, rows in case.store.rows.items()}
    for attempt in (
        lambda: record_fact(vault, DATASET, "restore_test", {"outcome": "passed"}),
        lambda: put(vault, "wal", "wal", 0, 5, b"money"),
        lambda: vault.keys.for_writing("another"),
    ):
        with pytest.raises(VaultError, match="clock_skew"):
            attempt()
    assert {name: [(row.version_id, row.lock) for row in rows] for name, rows in case.store.rows.items()} == before
