"""Taking a base backup: the server's stream into locked parts, the manifest last.

What belongs here: the order of the steps and what is asked of the source around them. What stays out: the protocol
(basebackup.py), the pool (parts.py), the manifest's form (base_manifest.py), whether a backup is usable (plan.py: not
before the WAL up to its stop LSN is in the vault's chain).

A backup that was killed has parts and no manifest, and so nothing ever takes it for one.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.base_manifest import BACKUP_MANIFEST, BaseManifest
from dr_assets.stores.postgres.basebackup import (
    ArchiveBegan,
    ArchiveData,
    BaseBackup,
    ManifestBegan,
    ManifestData,
    Progress,
    WalPosition,
    upload_manifest,
)
from dr_assets.stores.postgres.dsn import describe_dsn
from dr_assets.stores.postgres.heartbeat import source_clock
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.incremental import (
    Choice,
    Ground,
    backup_manifest_of,
    choose_ground,
    hold_ground,
    refused,
    require_incrementals,
)
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.measured import measured
from dr_assets.stores.postgres.parts import PART_BYTES, PartsPlace, PartWriter
from dr_assets.stores.postgres.patience import patiently
from dr_assets.stores.postgres.protocol import ConnectionLostError, ReplicationConnection, ServerRefusedError
from dr_assets.stores.postgres.session import connect, source_errors
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.keys import BASE
from dr_assets.vault.retention import lock_for
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

APPLICATION_NAME: Final = "dr-assets snapshot"
# A fast checkpoint still has to write every dirty page.
_CHECKPOINT_TIMEOUT_S: Final = 600.0
# What a server answers that lacks summaries of the WAL, or has another history than the manifest it was given.
_NOT_IN_PREREQUISITE_STATE: Final = "55000"
# What a restored server should know of its source: what a standby must not have less of, and what changes meaning.
_SETTINGS: Final = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_level",
    "shared_preload_libraries",
    "track_commit_timestamp",
    "lc_collate",
    "server_encoding",
    "block_size",
)
_READ_SETTINGS: Final = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
# The bootstrap superuser keeps its OID whatever it is called.
_READ_CLUSTER: Final = """
SELECT (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'), current_setting('data_checksums'),
       (SELECT rolname FROM pg_roles WHERE oid = 10), current_database(),
       coalesce(current_setting('summarize_wal', true), 'off'),
       current_setting('server_version_num'), (SELECT system_identifier::text FROM pg_control_system())
"""


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """How far a base backup is. `estimated_bytes` is the server's guess, None when it makes none."""

    received_bytes: int
    estimated_bytes: int | None
    stored_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class SnapshotResult:
    """A base backup in the vault. LSNs are byte positions; `mb_s` is plaintext, in units of 10^6 bytes.

    `depth` is 0 for a full, for an incremental how many there are since the full, and `parent_snapshot_id` what it
    builds on; `full_begin_at` is when the full of its chain began, by the source's clock. `why_full` tells why an
    incremental that was asked for came out as a full.
    """

    manifest_key: str
    snapshot_id: str
    start_lsn: int
    stop_lsn: int
    timeline: int
    system_id: str
    size_bytes: int
    stored_bytes: int
    parts: int
    duration_s: float
    mb_s: float
    lock: Lock
    full_begin_at: datetime
    depth: int = 0
    parent_snapshot_id: str | None = None
    why_full: str | None = None

    @property
    def kind(self) -> str:
        """`full` or `incremental`, as facts say it."""
        return "incremental" if self.depth else "full"


@dataclass(frozen=True, slots=True)
class _Source:
    """What an ordinary session tells of the source before the backup."""

    segment_bytes: int
    data_checksums: bool
    superuser: str
    dbname: str
    settings: dict[str, str]
    begin_at: datetime
    summarize_wal: str
    server_version: int
    system_id: str


def take_snapshot(
    vault: Vault,
    dataset: PostgresDataset,
    dsn: str,
    *,
    incremental: bool = False,
    full_if_refused: bool = False,
    progress: Callable[[SnapshotProgress], None] | None = None,
) -> SnapshotResult:
    """Take one base backup of the source at `dsn` and seal its manifest when every part is in the vault, locked.

    With `incremental` it holds what changed since the newest one, and everything that it rests on is locked for as long
    as itself; it comes out as a full where there is nothing to build on, the chain is at its longest, or the source
    left the newest one's timeline in a way that no incremental spans. A server that refuses otherwise (its summaries
    of the WAL are gone) is an error, or gives a full with `full_if_refused`.

    Raises SourceError (`source.unreachable`, `source.refused`, `snapshot.interrupted`, `snapshot.no_summaries`,
    `snapshot.incremental_refused`), VaultError when a part cannot be put, PolicyError for an unreadable or unsafe DSN
    and `snapshot.no_incrementals`. Records a `snapshot` fact.
    """
    begin_s = time.monotonic()
    keep_freed_memory()
    vault.check_clock()
    source = _ask(dsn)
    choice = _choose(vault, dataset, dsn, source) if incremental else Choice(None)
    take = _Take(vault, dataset, dsn, source, progress)
    try:
        manifest, lock = take.run(choice.ground)
    except _IncrementalRefused as error:
        if not (full_if_refused or error.ground.manifest.timeline != error.timeline):
            raise refused(dsn, error.ground, str(error)) from None
        choice = Choice(None, f"the server gives no incremental: {error}")
        manifest, lock = take.run(None)
    key = _seal_manifest(vault, manifest, lock)
    result = _result(manifest, key, lock, time.monotonic() - begin_s, choice)
    _record(vault, manifest, result)
    return result


class _IncrementalRefused(Exception):  # noqa: N818 - an answer that the caller judges, not an error yet
    """The server, on `timeline`, takes no incremental of this. Never leaves this module."""

    def __init__(self, ground: Ground, timeline: int, said: str) -> None:
        super().__init__(said)
        self.ground = ground
        self.timeline = timeline


def _choose(vault: Vault, dataset: PostgresDataset, dsn: str, source: _Source) -> Choice:
    require_incrementals(dsn, source.server_version, source.summarize_wal)
    return choose_ground(vault, dataset, source.system_id, source.server_version, data_checksums=source.data_checksums)


@dataclass(frozen=True, slots=True)
class _Take:
    """One base backup under way: what it is of and where it goes."""

    vault: Vault
    dataset: PostgresDataset
    dsn: str
    source: _Source
    progress: Callable[[SnapshotProgress], None] | None

    def run(self, ground: Ground | None) -> tuple[BaseManifest, Lock]:
        """The whole backup, its parts put and locked; the manifest is returned, not yet sealed."""
        lock = _lock(self.vault, self.dataset, is_full=ground is None)
        with (
            _replication_errors(self.dsn),
            ReplicationConnection.open(self.dsn, application_name=APPLICATION_NAME) as server,
        ):
            manifest = self._receive(server, ground, lock)
        if ground is not None:
            hold_ground(self.vault, ground, lock)
        return manifest, lock

    def _receive(self, server: ReplicationConnection, ground: Ground | None, lock: Lock) -> BaseManifest:
        source = self.source
        snapshot_id = f"{source.begin_at:%Y%m%dt%H%M%Sz}-{secrets.token_hex(4)}"
        identity = server.identify_system()
        if ground is None:
            backup = BaseBackup.begin(server, options=_options(snapshot_id), timeout_s=_CHECKPOINT_TIMEOUT_S)
        else:
            backup = self._begin_incremental(server, ground, snapshot_id, identity.timeline)
        place = PartsPlace(self.dataset.name, snapshot_id, identity.system_id, backup.start.timeline, lock)
        with PartWriter(self.vault, place) as writer:
            stop = _pour(backup, writer, self.progress)
            archives, parts = writer.finish()
        end_at, next_xid = _ask_after(self.dsn)
        return BaseManifest(
            dataset=self.dataset.name,
            snapshot_id=snapshot_id,
            system_id=identity.system_id,
            timeline=backup.start.timeline,
            server_version=server.server_version,
            start_lsn=backup.start.lsn,
            stop_lsn=stop.lsn,
            begin_at=source.begin_at,
            end_at=end_at,
            segment_bytes=source.segment_bytes,
            data_checksums=source.data_checksums,
            next_xid=next_xid,
            superuser=source.superuser,
            dbname=source.dbname,
            settings=source.settings,
            policy=_policy(self.dataset, lock),
            history=_history(server, backup.start.timeline),
            archives=tuple(archives[:-1]),
            backup_manifest=archives[-1],
            parts=parts,
            parent=None if ground is None else ground.parent(),
        )

    def _begin_incremental(
        self, server: ReplicationConnection, ground: Ground, snapshot_id: str, timeline: int
    ) -> BaseBackup:
        """Raises _IncrementalRefused when the server says that it has not what an incremental of this needs."""
        try:
            upload_manifest(server, backup_manifest_of(self.vault, ground))
            return BaseBackup.begin(
                server, options=_options(snapshot_id) | {"INCREMENTAL": True}, timeout_s=_CHECKPOINT_TIMEOUT_S
            )
        except ServerRefusedError as error:
            if error.sqlstate != _NOT_IN_PREREQUISITE_STATE:
                raise
            raise _IncrementalRefused(ground, timeline, error.message) from None


def _lock(vault: Vault, dataset: PostgresDataset, *, is_full: bool) -> Lock:
    """A full that incrementals will follow is needed until the last of them isn't, up to one interval later.

    So it gets that much more at once: extending every part of it again and again would cost a request each.
    """
    every, followed = dataset.snapshot.every, dataset.snapshot.incremental_every is not None
    return lock_for("full" if is_full and followed else "part", dataset.retention, every, vault.clock())


def _result(manifest: BaseManifest, key: str, lock: Lock, duration_s: float, choice: Choice) -> SnapshotResult:
    full = manifest if choice.ground is None else choice.ground.layers[0].manifest
    return SnapshotResult(
        manifest_key=key,
        snapshot_id=manifest.snapshot_id,
        start_lsn=manifest.start_lsn,
        stop_lsn=manifest.stop_lsn,
        timeline=manifest.timeline,
        system_id=manifest.system_id,
        size_bytes=manifest.size_bytes,
        stored_bytes=manifest.stored_bytes,
        parts=len(manifest.parts),
        duration_s=duration_s,
        mb_s=manifest.size_bytes / duration_s / 1e6,
        lock=lock,
        depth=manifest.depth,
        parent_snapshot_id=manifest.parent_snapshot_id,
        why_full=choice.why_full,
        full_begin_at=full.begin_at,
    )


def _pour(backup: BaseBackup, writer: PartWriter, progress: Callable[[SnapshotProgress], None] | None) -> WalPosition:
    """Every byte of the backup into the parts, in order; returns where the WAL that it needs ends."""
    report = _Report(writer, sum(space.estimated_bytes or 0 for space in backup.tablespaces) or None, progress)
    for message in backup.messages():
        match message:
            case ArchiveData(data) | ManifestData(data):
                writer.add(data)
                report.received(len(data))
            case ArchiveBegan(name, location):
                # A tablespace's archive is named by its OID; the data directory's is base.tar.
                stem = name.removesuffix(".tar")
                writer.begin(name, int(stem) if stem.isdigit() else None, location or None)
            case ManifestBegan():
                writer.begin(BACKUP_MANIFEST)
            case Progress():
                pass
    if backup.stop is None or backup.stop.timeline != backup.start.timeline:
        raise _interrupted("the server changed its timeline during the backup")
    return backup.stop


@dataclass(slots=True)
class _Report:
    """Tells about once per 16 MiB how far the backup is."""

    writer: PartWriter
    estimated_bytes: int | None
    tell: Callable[[SnapshotProgress], None] | None
    begin_s: float = field(default_factory=time.monotonic)
    done_bytes: int = 0
    told_bytes: int = 0

    def received(self, size_bytes: int) -> None:
        """So many more bytes have come from the server."""
        self.done_bytes += size_bytes
        if self.tell is None or self.done_bytes - self.told_bytes < PART_BYTES:
            return
        self.told_bytes = self.done_bytes
        elapsed_s = time.monotonic() - self.begin_s
        self.tell(SnapshotProgress(self.done_bytes, self.estimated_bytes, self.writer.stored_bytes, elapsed_s))


def _options(snapshot_id: str) -> dict[str, str | bool]:
    return {
        "LABEL": f"dr-assets {snapshot_id}",
        "PROGRESS": True,
        "CHECKPOINT": "fast",
        "WAL": False,
        # Else a server that archives keeps us waiting for its archive, which may stand still; our capture has the WAL.
        "WAIT": False,
        "MANIFEST": "yes",
        # Against a disk's errors, which is what pg_verifybackup looks for. Against people there are our own SHA-256 and
        # signature over every byte; a second one would cost the server as much as all of its reading and sending.
        "MANIFEST_CHECKSUMS": "CRC32C",
    }


def _ask(dsn: str) -> _Source:
    with source_errors(dsn), connect(dsn, application_name=APPLICATION_NAME) as session:
        rows = session.execute(_READ_SETTINGS, (list(_SETTINGS),)).fetchall()
        row = session.execute(_READ_CLUSTER).fetchone()
        begin_at = source_clock(session)
    assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
    segment_bytes, data_checksums, superuser, dbname, summarize_wal, version, system_id = (str(v) for v in row)
    return _Source(
        segment_bytes=int(segment_bytes),
        data_checksums=data_checksums == "on",
        superuser=superuser,
        dbname=dbname,
        settings={str(name): str(value) for name, value in rows},
        begin_at=begin_at,
        summarize_wal=summarize_wal,
        server_version=int(version),
        system_id=system_id,
    )


def _ask_after(dsn: str) -> tuple[datetime, int]:
    """The source's clock and the next transaction id, both behind everything that lies before the stop LSN.

    A session of its own: the first would have stood idle through the whole backup, which servers may forbid.
    """
    with source_errors(dsn), connect(dsn, application_name=APPLICATION_NAME) as session:
        row = session.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        return source_clock(session), int(str(row[0] if row else ""))


def _history(server: ReplicationConnection, timeline: int) -> str | None:
    """The timeline's history file, without which no server accepts that timeline as a target; 1 has none."""
    if timeline == 1:
        return None
    return server.execute(f"TIMELINE_HISTORY {timeline}")[0]["content"]


def _policy(dataset: PostgresDataset, lock: Lock) -> dict[str, str]:
    """What the set was locked under, so that a later look at it needs no declaration."""
    return {
        "lock": lock.mode.lower(),
        "retain_until": format_time(lock.retain_until),
        "retention_days": str(dataset.retention.days),
        "lock_days": str(dataset.retention.lock_days),
        "snapshot_every_s": f"{dataset.snapshot.every.total_seconds():g}",
    }


def _seal_manifest(vault: Vault, manifest: BaseManifest, lock: Lock) -> str:
    """Put the manifest, without which all parts were for nothing, as patiently as those; returns its key."""
    prepared = vault.prepare(
        dataset=manifest.dataset,
        stream=BASE,
        kind="manifest",
        system_id=manifest.system_id,
        timeline=manifest.timeline,
        first=manifest.start_lsn,
        last=manifest.stop_lsn,
        begin_at=manifest.begin_at,
        end_at=manifest.end_at,
        plaintext=manifest.encode(),
        extra={"snapshot_id": manifest.snapshot_id},
    )
    sealed = prepared.seal()
    return str(patiently(lambda: vault.put(sealed, lock), threading.Event()).key)


def _record(vault: Vault, manifest: BaseManifest, result: SnapshotResult) -> None:
    """The sealed fact that makes the asset green."""
    record_fact(
        vault,
        manifest.dataset,
        "snapshot",
        {
            "snapshot_id": manifest.snapshot_id,
            "kind": result.kind,
            "depth": result.depth,
            "full_begin_at": format_time(result.full_begin_at),
            **({} if manifest.parent_key is None else {"parent_key": manifest.parent_key}),
            **({} if result.why_full is None else {"why_full": result.why_full}),
            "manifest_key": result.manifest_key,
            "system_id": manifest.system_id,
            "server_version": manifest.server_version,
            "timeline": manifest.timeline,
            "start_lsn": format_lsn(manifest.start_lsn),
            "stop_lsn": format_lsn(manifest.stop_lsn),
            "begin_at": format_time(manifest.begin_at),
            "end_at": format_time(manifest.end_at),
            "size_bytes": result.size_bytes,
            "stored_bytes": result.stored_bytes,
            "parts": result.parts,
            "duration_s": measured(result.duration_s),
            "mb_s": measured(result.mb_s),
            "lock": manifest.policy["lock"],
            "retain_until": manifest.policy["retain_until"],
        },
    )


@contextmanager
def _replication_errors(dsn: str) -> Iterator[None]:
    try:
        yield
    except ConnectionLostError as error:
        raise _interrupted(str(error)) from None
    except ServerRefusedError as error:
        raise SourceError(
            "snapshot.refused",
            f"{describe_dsn(dsn)}: {error}",
            "`dr-assets preflight` lists the rights and settings that are needed",
        ) from None


def _interrupted(found: str) -> SourceError:
    return SourceError(
        "snapshot.interrupted",
        f"the base backup is not finished: {found}",
        "take it again; its parts without a manifest count for nothing and expire with their lock",
    )
