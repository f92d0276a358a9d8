"""A full segment that stands for other WAL than was captured, signed by one of ours: verify names it, nothing goes."""

import hashlib
from dataclasses import replace
from datetime import timedelta

from dr_assets.stores.postgres.expire import plan_expiry
from dr_assets.stores.postgres.expiry_plan import MICRO
from dr_assets.stores.postgres.full_put import FullStored
from dr_assets.stores.postgres.rollup import roll_streams
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.format import canonical
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.full_segment import FULL, FULL_LIST, Covered, FullList, extra_of
from dr_assets.vault.inventory import digest_of
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_rollup import SIZE, SMALL, Clock, Wal, vault_of

AGED = timedelta(days=14, minutes=5)


def captured(count: int) -> tuple[Vault, Clock, Wal]:
    """So many pieces, told to be stored."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(count)
    wal.tell()
    return vault, clock, wal


def pieces(vault: Vault, count: int, begin: int = 0) -> tuple[list[ObjectKey], list[Header]]:
    """So many micros, from the first on or from this one."""
    found = list(vault.objects("ledger", "wal"))[begin : begin + count]
    return [obj.key for obj in found], [vault.header(obj) for obj in found]


def forge(vault: Vault, named: list[ObjectKey], headers: list[Header], *, says: str | None = None) -> str:
    """A full of these names and other bytes, with its list; returns its name. `says` replaces the digest of names."""
    data = b"EVIL" * (len(named) * SIZE // 4)
    first, last = headers[0], headers[-1]
    keys_sha256 = says or digest_of(str(key) for key in named)
    prepared = vault.prepare(
        dataset="ledger", stream=FULL, kind="wal", system_id="7", timeline=1, first=first.first, last=last.last,
        begin_at=first.begin_at, end_at=last.end_at, plaintext=data, writer_epoch=99,
        extra=extra_of(first, last, keys_sha256, len(named)),
    )  # fmt: skip
    full = vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock())).key
    slices = [hashlib.sha256(data[at * SIZE : (at + 1) * SIZE]).hexdigest() for at in range(len(named))]
    covered = tuple(Covered(key, digest) for key, digest in zip(named, slices, strict=True))
    listed = vault.prepare(
        dataset="ledger", stream=FULL_LIST, kind="manifest", system_id="7", timeline=1, first=first.first,
        last=last.last, begin_at=first.begin_at, end_at=last.end_at,
        plaintext=canonical.encode(FullList(full, prepared.header.digest, covered).to_json()),
    )  # fmt: skip
    vault.put(listed.seal(), vault.locks.lock("ledger", "manifest", vault.clock()))
    return str(full)


def invented(keys: list[ObjectKey]) -> list[ObjectKey]:
    """Names of pieces that never were, at the same positions."""
    return [replace(key, digest=f"{number:032x}") for number, key in enumerate(keys, start=1)]


def wrong(vault: Vault) -> set[str]:
    """What verify calls rolled wrong."""
    return {finding.key for finding in verify(vault).errors if finding.kind == "rolled_wrong"}


def doomed(vault: Vault, clock: Clock) -> list[int]:
    """Positions of the micros that would go once their lock is over."""
    clock.now += AGED
    return [row.key.first for row in plan_expiry(vault, "ledger").rows if row.stage == MICRO]


def test_a_full_of_invented_micros_is_named_and_removes_none() -> None:
    """Micros beneath a full that are not on its list stay, and the full stands for what it doesn't hold."""
    vault, clock, _ = captured(10)
    keys, headers = pieces(vault, 5)
    full = forge(vault, invented(keys), headers)
    assert wrong(vault) == {full}
    assert doomed(vault, clock) == []


def test_a_full_that_names_the_true_micros_and_holds_others_removes_none() -> None:
    """List and full agree with each other; each micro's own header tells another digest."""
    vault, clock, _ = captured(10)
    keys, headers = pieces(vault, 5)
    forge(vault, keys, headers)
    assert wrong(vault) == {str(key) for key in keys}
    assert doomed(vault, clock) == []


def test_beside_a_true_full_a_forged_one_keeps_the_micros_and_is_named() -> None:
    """A restore might take either, so the micros beneath the two stay; those beneath other fulls go."""
    vault, clock, _ = captured(30)
    roll_up(vault, "ledger", limits=SMALL)
    keys, headers = pieces(vault, 10)
    full = forge(vault, invented(keys), headers)
    assert wrong(vault) == {full}
    assert doomed(vault, clock) == list(range(6000, 7000, SIZE))


def test_two_fulls_of_the_same_micros_with_other_bytes_are_named() -> None:
    """The forged one says it was made of the true names, and its list says the same."""
    vault, clock, _ = captured(30)
    roll_up(vault, "ledger", limits=SMALL)
    (true, _) = [str(obj.key) for obj in vault.objects("ledger", FULL)]
    keys, headers = pieces(vault, 10)
    full = forge(vault, keys, headers)
    assert wrong(vault) & {full, true}
    assert doomed(vault, clock) == list(range(6000, 7000, SIZE))


def test_a_full_whose_list_names_other_micros_than_it_counted_has_no_list() -> None:
    """The list is believed only where its names have the digest in the full's header."""
    vault, clock, _ = captured(10)
    keys, headers = pieces(vault, 5)
    full = forge(vault, keys, headers, says="ab" * 32)
    assert ("unfinished", full) in {(finding.kind, finding.key) for finding in verify(vault).findings}
    assert doomed(vault, clock) == []


def test_a_micro_that_lost_a_fork_accuses_no_full() -> None:
    """A late put of a dead writer beneath a full: while the winners are there, and once they were removed on record."""
    vault, clock, wal = captured(5)
    position, previous = wal.position, wal.previous
    wal.epoch = 2
    wal.put(25)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    late = Wal(vault, position=position, previous=previous, epoch=1)
    late.bytes_at = {}
    late.put(1, stored=False)
    kinds = {finding.kind for finding in verify(vault).findings}
    assert kinds <= {"fork", "changed"}
    loser = max(
        (obj for obj in vault.objects("ledger", "wal") if obj.key.first == position),
        key=lambda obj: -vault.header(obj).writer_epoch,
    )
    clock.now += AGED
    plan = plan_expiry(vault, "ledger")
    gone = {str(row.key) for row in plan.rows if row.stage == MICRO}
    assert len(gone) == 20
    assert str(loser.key) not in gone


def test_a_roller_adopts_no_full_of_other_bytes() -> None:
    """What lies where its next full belongs, with the same ends, is not taken for another roller's unless it agrees."""
    vault, _, _ = captured(30)
    keys, headers = pieces(vault, 10, 10)
    forged: list[str] = []

    def forge_once(stored: FullStored) -> None:
        if stored.rolled_to == 6000:
            forged.append(forge(vault, keys, headers))

    (done,) = roll_streams(vault, "ledger", limits=SMALL, listener=forge_once)
    assert done.fulls == 2
    assert (done.trouble or "").startswith("rollup.contested")
    assert forged[0] in str(done.trouble)
