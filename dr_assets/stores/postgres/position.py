"""Where a dataset stands in its vault: the stored recovery point.

What belongs here: finding it from the vault alone, cheaply and again and again. What stays out: capturing, and how
far a restore has proven it.
"""

from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.capture_facts import Anchor, latest_anchor
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.keys import WAL, ObjectKey
from dr_assets.vault.vault import StoredObject, Vault


@dataclass(frozen=True, slots=True)
class RecoveryPoint:
    """The end of the contiguous WAL that a vault holds for one dataset.

    `lsn` is that end, a byte position on `timeline` of `system_id`. Every commit made before `at` (the source's
    clock) lies before it; None while no heartbeat was stored. `sealed_at` is the capture's clock. `key` names the
    last segment, locked until `retain_until` (None: the store shows no lock, which is an alarm). `chain_begin` is
    where the chain begins.
    """

    lsn: int
    at: datetime | None
    sealed_at: datetime
    key: str
    retain_until: datetime | None
    system_id: str
    timeline: int
    chain_begin: int


def stored_recovery_point(
    vault: Vault, dataset: PostgresDataset, since: RecoveryPoint | None = None
) -> RecoveryPoint | None:
    """The newest stored recovery point, None when nothing was ever stored.

    Begins at the newest capture fact, or at `since` (what an earlier call returned) when that is farther on the same
    stream, so a call costs a listing of what is new and one header. Raises VaultError.
    """
    anchor = latest_anchor(vault, dataset.name)
    if anchor is None:
        return None
    begin, segment = anchor.stored, anchor.segment
    if since is not None and _same_stream(since, anchor) and since.lsn > begin:
        begin, segment = since.lsn, since.key
    listed = vault.objects(
        dataset.name, WAL, system_id=anchor.system_id, timeline=anchor.timeline, start_after_position=begin
    )
    chain = resolve(listed, vault.header, begin)
    if chain.segments:
        return _point(vault, chain.segments[-1], anchor)
    if segment is None:
        return None
    return _point(vault, _find(vault, segment), anchor)


def _same_stream(point: RecoveryPoint, anchor: Anchor) -> bool:
    own = (point.system_id, point.timeline, point.chain_begin)
    return own == (anchor.system_id, anchor.timeline, anchor.begin)


def _find(vault: Vault, name: str) -> StoredObject:
    key = ObjectKey.parse(name)
    if key is None:
        raise VaultError(
            "vault.malformed", f"'{name[:200]}' is no object's name", "a capture fact names it: see its writer"
        )
    return vault.find(key)


def _point(vault: Vault, last: StoredObject, anchor: Anchor) -> RecoveryPoint:
    """`last` is the anchor's chain's, or, while that is empty behind a switch, the piece that the switch lies in."""
    header = vault.header(last)
    own = last.key.timeline == anchor.timeline
    at = header.extra.get(RECOVERY_POINT_AT) if own else None
    head = vault.store.head(str(last.key), last.version_id or None)
    lock = None if head is None else head.lock
    return RecoveryPoint(
        lsn=last.key.last if own else anchor.stored,
        at=anchor.recovery_point_at if at is None else parse_time(at, f"{last.key}: recovery point"),
        sealed_at=header.sealed_at,
        key=str(last.key),
        retain_until=None if lock is None else lock.retain_until,
        system_id=anchor.system_id,
        timeline=anchor.timeline,
        chain_begin=anchor.begin,
    )
