"""Where a capture goes on: the end of what is stored, joined to what the source still keeps.

What belongs here: finding that position, the slot's creation, and the refusals when the two don't meet. What stays
out: streaming from there (capture.py).

Never skip: when WAL between the chain's end and the slot is gone, a gap is sealed in the vault and raised. Going on
behind it takes an operator's word (`accept_gap`), and begins a new chain.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.capture_facts import Anchor, Gap, anchor_of, latest_anchor, record_gap
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.protocol import ReplicationConnection, SystemIdentity
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.vault.believed import believed
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.vault import StoredObject, Vault

RECOVERY_POINT_AT = "recovery_point_at"
_READERS = 8
_UNITS = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "B": 1}


@dataclass(frozen=True, slots=True)
class StoredEnd:
    """The end of a stream's valid chain: what the next piece must continue. `header` is None for an empty chain."""

    begin: int
    end: int
    header: str | None
    segment: str | None
    writer_epoch: int
    recovery_point_at: datetime | None

    def anchor(self, identity: SystemIdentity) -> Anchor:
        """The same as a fact's content."""
        return Anchor(
            identity.system_id, identity.timeline, self.begin, self.end, self.header, self.segment,
            self.writer_epoch, self.recovery_point_at,
        )  # fmt: skip


def find_stored_end(
    vault: Vault, dataset: str, identity: SystemIdentity, *, known: StoredEnd | None = None
) -> StoredEnd | None:
    """The end of the valid chain of this system and timeline, None when nothing was ever captured from it.

    Walks from the newest capture fact, or from `known`, an end found before. Each step is held to the digest of the
    header before it: a piece that a crashed capture left behind may begin at the right position by accident and still
    continue something else. Raises VaultError.
    """
    end = known
    if end is None and not _was_captured(vault, dataset, identity):
        return None
    if end is None and (anchor := anchor_of(vault, dataset, identity.system_id, identity.timeline)) is not None:
        end = StoredEnd(
            anchor.begin, anchor.stored, anchor.header, anchor.segment, anchor.writer_epoch, anchor.recovery_point_at
        )
    objects = list(
        vault.objects(
            dataset,
            WAL,
            system_id=identity.system_id,
            timeline=identity.timeline,
            start_after_position=0 if end is None else end.end,
        )
    )
    if end is None:
        if not objects:
            return None
        begin = objects[0].key.first
        end = StoredEnd(begin, begin, None, None, 0, None)
    return _walk(_Headers(vault, objects), objects, end)


def _was_captured(vault: Vault, dataset: str, identity: SystemIdentity) -> bool:
    """Cheaply, since a stream that was never captured would have every capture fact read in search of it."""
    newest = latest_anchor(vault, dataset)
    if newest is not None and (newest.system_id, newest.timeline) == (identity.system_id, identity.timeline):
        return True
    stored = vault.objects(dataset, WAL, system_id=identity.system_id, timeline=identity.timeline)
    return next(iter(stored), None) is not None


class _Headers:
    """Headers of listed objects, read once, several at a time: each costs a round trip or two."""

    def __init__(self, vault: Vault, objects: list[StoredObject]) -> None:
        self._vault = vault
        with ThreadPoolExecutor(_READERS, thread_name_prefix="headers") as pool:
            self._read = {obj.key: pool.submit(vault.header, obj) for obj in objects}

    def of(self, obj: StoredObject) -> Header:
        """The object's header, its signature verified. Raises VaultError."""
        return self._read[obj.key].result()

    def continues(self, obj: StoredObject, header: str | None) -> bool:
        """Whether `obj` names `header` as the one before it; what can't be believed continues nothing."""
        own = believed(self.of, obj)
        return own is not None and own.previous == header


def _walk(headers: _Headers, objects: list[StoredObject], end: StoredEnd) -> StoredEnd:
    pieces = [obj for obj in objects if obj.key.first != end.end or headers.continues(obj, end.header)]
    # Strict: by position alone a dead writer's piece may seem to lead far, and win a fork before it (decision 0014).
    for obj in resolve(pieces, headers.of, end.end, strict=True).segments:
        if not headers.continues(obj, end.header):
            break
        header = headers.of(obj)
        at = header.extra.get(RECOVERY_POINT_AT)
        end = StoredEnd(
            begin=end.begin,
            end=obj.key.last,
            header=header.digest,
            segment=str(obj.key),
            writer_epoch=max(end.writer_epoch, header.writer_epoch),
            recovery_point_at=end.recovery_point_at if at is None else parse_time(at, f"{obj.key}: recovery point"),
        )
    return end


def ensure_slot(connection: ReplicationConnection, status: SlotStatus | None, slot: str, *, accept_gap: bool) -> int:
    """The slot's restart LSN; creates the slot where absent, and anew where it is lost and the gap is accepted.

    Raises SourceError: `source.slot_kind`, `source.slot_unreserved`, `source.slot_lost`.
    """
    if status is not None and status.slot_type != "physical":
        raise SourceError(
            "source.slot_kind",
            f"slot {slot} is {status.slot_type}, a physical one is needed",
            "give the dataset another slot name in its declaration",
        )
    if status is not None and status.is_lost and accept_gap:
        connection.drop_slot(slot)
        status = None
    if status is None:
        connection.create_slot(slot)
    position = connection.read_slot(slot)
    if position is not None and position.restart_lsn is not None:
        return position.restart_lsn
    if status is not None and status.is_lost:
        raise slot_lost(slot)
    raise SourceError(
        "source.slot_unreserved",
        f"slot {slot} exists and keeps no WAL",
        f"run: SELECT pg_drop_replication_slot('{slot}'); the capture then creates it with WAL reserved",
    )


def begin_of(restart_lsn: int, segment_bytes: int) -> int:
    """From where on the source keeps WAL for a slot: it keeps whole segments, and a restore lays whole segments."""
    return restart_lsn - restart_lsn % segment_bytes


def first_end(vault: Vault, dataset: str, identity: SystemIdentity, available: int) -> StoredEnd:
    """Where a stream begins of which nothing is stored; what an older one does not reach is a gap on record."""
    old = latest_anchor(vault, dataset)
    if old is not None and old.system_id == identity.system_id and old.stored < available:
        why = f"timeline {old.timeline} was captured up to here, timeline {identity.timeline} begins later"
        record_gap(vault, dataset, Gap(identity.system_id, identity.timeline, old.stored, available, why))
    return StoredEnd(available, available, None, None, 0, None)


def require_reached(end: StoredEnd, identity: SystemIdentity, asked_again: Callable[[], SystemIdentity]) -> None:
    """The source's WAL must reach the stored end. Raises SourceError (`source.rewound`).

    Another capture may have stored on while we listed: only a source asked after the listing can be behind.
    """
    if end.end > identity.flushed_lsn and end.end > (identity := asked_again()).flushed_lsn:
        raise rewound(end.end, identity)


def gap_behind(dataset: str, end: int, available: int) -> SourceError:
    """WAL between the chain's end and what the source keeps is gone (`source.gap`)."""
    return SourceError(
        "source.gap",
        f"the vault's chain of {dataset} ends at {format_lsn(end)}, the source keeps WAL from "
        f"{format_lsn(available)}: what lies between is lost, and is on record as a gap",
        "start the capture with --accept-gap to begin a new chain, then take a base backup at once: nothing newer than "
        "the chain's end can be restored before it is there",
    )


def rewound(position: int, identity: SystemIdentity) -> SourceError:
    """The source's WAL ends before ours."""
    return SourceError(
        "source.rewound",
        f"the source's WAL ends at {format_lsn(identity.flushed_lsn)}, captured already is {format_lsn(position)}",
        "the source lost WAL or was set back to an older copy without a new timeline; compare it with a restore before "
        "anybody writes to it",
    )


def slot_lost(slot: str) -> SourceError:
    """The source gave up keeping WAL for us."""
    return SourceError(
        "source.slot_lost",
        f"slot {slot} is lost: the source has removed WAL that was not captured",
        "raise max_slot_wal_keep_size, start the capture with --accept-gap to begin a new chain, then take a base "
        "backup at once",
    )


def other_source(found: SystemIdentity, expected: SystemIdentity) -> SourceError:
    """The connection string leads to another system than a moment ago."""
    return SourceError(
        "source.other_system",
        f"the connection string now leads to system {found.system_id}, the stream was of {expected.system_id}",
        "check where it points; to capture the new server, start the capture again",
    )


def older_timeline(server: SystemIdentity, known: int) -> SourceError:
    """An old primary that came back, and may be writable: nothing of it belongs to what was captured since."""
    return SourceError(
        "source.older_timeline",
        f"the server is on timeline {server.timeline}, but timeline {known} of the same system was captured already: "
        "it is a primary that was failed over from",
        "stop it, or make it a standby of the new primary (pg_rewind), and let the connection string or Patroni lead "
        "to the new one; should this be the true side after all, start the capture with --accept-gap",
    )


def size_bytes(setting: str) -> int:
    """Bytes of a setting as SHOW prints it: `16MB`."""
    digits = setting.rstrip("kMGB")
    return int(digits) * _UNITS[setting[len(digits) :]]
