"""Restoring a base backup and its WAL into an empty folder: the phases, in order, with their times.

What belongs here: that order, what is handed out, what is left behind. What stays out: each phase's own work: plan.py,
fetch.py, lay.py, lay_wal.py, checks.py, recovery.py, site.py.

A restore yields a promoted server on which everything was proven and everybody erased who is to be, or nothing: on any
failure, also of the caller's, the server is stopped and what was laid is removed.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg

from dr_assets.engines.placement import engine_user
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs, find_programs
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Level
from dr_assets.stores.postgres.checks import check_data, verify_files
from dr_assets.stores.postgres.combine import lay_layers, needed_bytes
from dr_assets.stores.postgres.erase import Erasures, Replayed, replay_erasures
from dr_assets.stores.postgres.fetch import opened_in_order, opened_wal
from dr_assets.stores.postgres.guarded import create_reader, drop_reader, new_eraser_name, new_reader_name, stop_cleanly
from dr_assets.stores.postgres.heartbeat import read_heartbeat, verify_heartbeat
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.lay import LaidBase, finish_base, write_file
from dr_assets.stores.postgres.lay_wal import WalFrame, WalLayer
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.parts import PART_BYTES
from dr_assets.stores.postgres.plan import RestorePlan
from dr_assets.stores.postgres.recovery import Replay, promote, standby_settings
from dr_assets.stores.postgres.recovery import Replayed as WalReplayed
from dr_assets.stores.postgres.site import Site, abandon, keep, prepare_site
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal import Record
from dr_assets.stores.postgres.wal_check import check_wal
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.retention.thawing import require_thawed
from dr_assets.vault.subjects.erased import merge, read_list
from dr_assets.vault.vault import Vault

SANDBOX_NAME: Final = "dr_assets-sandbox"
RECOVERY_NAME: Final = "dr_assets-recovery"
# What of a source's limits a kept cluster may need: prepared transactions hold locks that were taken under them.
_LIMITS: Final = ("max_connections", "max_worker_processes", "max_prepared_transactions", "max_locks_per_transaction")


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a phase is; `total_bytes` is None where nobody can tell."""

    phase: str
    done_bytes: int
    total_bytes: int | None


@dataclass(slots=True)
class Restored:
    """A recovered cluster, promoted and running. LSNs are byte positions.

    `replayed_lsn` is where replay stood when it was proven, `end_lsn` the end of the last complete record that was
    laid, found without the server. `recovered_at` is the newest heartbeat in the data (source's clock, signature
    verified): every commit made before it is there. `stopped` is the server's own word for a target. `erased` is what
    was done about the people on the list of `erasures`, None where there is no such list.
    """

    plan: RestorePlan
    server: PostgresServer
    data_dir: Path
    replayed_lsn: int
    end_lsn: int
    timeline: int
    last_commit_at: datetime | None
    recovered_at: datetime | None
    stopped: str | None
    checks: tuple[str, ...]
    engine: str
    size_bytes: int
    phases_s: dict[str, float]
    reader: str
    notes: list[str] = field(default_factory=list)
    erasures: Erasures | None = None
    erased: Replayed | None = None

    def dsn(self, dbname: str | None = None) -> str:
        """A connection string of the superuser's, with whatever the source set for its sessions (see `reader_dsn`).

        The source's own database by default.
        """
        return self.server.dsn(dbname or self.plan.base.dbname)

    def reader_dsn(self, dbname: str | None = None) -> str:
        """A connection string for reading the data: of a role that may read everything and nothing else (guarded.py).

        Its search path is `pg_catalog`, so name every table with its schema.
        """
        return self.server.dsn(dbname or self.plan.base.dbname, user=self.reader)

    @property
    def duration_s(self) -> float:
        """All phases together."""
        return sum(self.phases_s.values())

    @property
    def mb_s(self) -> float:
        """Plaintext that was laid, base backup and WAL, over the whole duration, in units of 10^6 bytes."""
        return self.size_bytes / self.duration_s / 1e6


@contextmanager
def restore(
    plan: RestorePlan,
    vault: Vault,
    into: Path,
    *,
    programs: Programs | None = None,
    level: Level = "quick",
    keep_cluster: bool = False,
    env: Mapping[str, str] | None = None,
    progress: Callable[[RestoreProgress], None] | None = None,
    erasures: Erasures | None = None,
) -> Iterator[Restored]:
    """Carry out `plan` in the empty folder `into` and hand out the running, promoted server.

    Leaving the context destroys it; with `keep_cluster` it is stopped cleanly and kept at `into`/data instead. Any
    exception, from here or from the caller's block, leaves nothing.

    `erasures` is what must be applied before anybody sees the data: needed from a vault that knows of erasures.

    Raises PolicyError (`erasure.not_replayed`, `.list_stale` and those of erase.py; `restore.not_empty`, `.no_room`,
    `.target_not_reached`, `.tablespace_created`; `engine.no_programs`), VaultError for whatever is missing, damaged or
    disagrees, and `restore.cold` before anything is fetched, where something has to be thawed first.
    """
    require_thawed(plan.cold)
    _require_erasures(plan, vault, erasures)
    programs = programs or find_programs("postgres", plan.base.major, env)
    if programs.major != plan.base.major:
        raise PolicyError(
            "restore.wrong_major",
            f"the base backup is of PostgreSQL {plan.base.major}, the programs are {programs.describe()}",
            f"install the server programs of PostgreSQL {plan.base.major}",
        )
    site = prepare_site(into, needed_bytes(plan.layers) + plan.wal_bytes)
    work = _Restore(plan, vault, site, programs, level, progress, erasures, durable=keep_cluster)
    kept = False
    try:
        restored = work.run()
        yield restored
        if keep_cluster:
            work.hand_over(restored)
            kept = True
    finally:
        work.server.stop("immediate")
        if not kept:
            abandon(site)


def _require_erasures(plan: RestorePlan, vault: Vault, erasures: Erasures | None) -> None:
    """Nothing comes out of a vault that knows of erasures but by a list at least as new, with rules to apply it."""
    known = read_list(vault)
    if erasures is not None:
        erasures.listed.require_newest(known)
        erasures.require_applicable(plan.dataset)
    elif known.people:
        raise PolicyError(
            "erasure.not_replayed",
            f"{len(known)} people are erased by vault {vault.name}; this restore would bring them back",
            "restore with `dr-assets restore`, or give the erasure list (proving/erasures.py)",
        )


class _Restore:
    """One restore under way."""

    def __init__(
        self,
        plan: RestorePlan,
        vault: Vault,
        site: Site,
        programs: Programs,
        level: Level,
        progress: Callable[[RestoreProgress], None] | None,
        erasures: Erasures | None,
        *,
        durable: bool,
    ) -> None:
        self._erasures = erasures
        self._plan = plan
        self._vault = vault
        self._site = site
        self._level = level
        self._progress = progress
        self._durable = durable
        self._user = engine_user()
        self._phases_s: dict[str, float] = {"plan": plan.duration_s}
        self._held: dict[str, bytes] = {}
        self._reader, self._eraser = new_reader_name(), new_eraser_name()
        # Only a sandbox is called one: whoever plants damage for a drill looks at this name.
        name = f"{RECOVERY_NAME if durable else SANDBOX_NAME}-{plan.dataset}-{secrets.token_hex(4)}"
        self.server = PostgresServer(site.data_dir, programs, name=name)

    def run(self) -> Restored:
        """Every phase, one line each."""
        keep_freed_memory()
        with self._phase("fetch_base"):
            laid = self._fetch_base()
        if self._durable:
            # What is laid goes to the disk while the rest is done, so that the wait at the end is for the rest alone.
            threading.Thread(target=os.sync, name="sync", daemon=True).start()
        with self._phase("lay_wal"):
            record = self._lay_wal()
        with self._phase("verify"):
            timeline = self._verify(laid, record)
        with self._phase("replay"):
            replayed = self._replay(record, timeline)
        with self._phase("promote"):
            timeline = promote(self.server)
        erased = self._erase()
        with self._phase("check"):
            checks = check_data(self.server, self._level, has_checksums=self._plan.base.data_checksums)
        notes = [*self._plan.notes, *self.server.notes]
        return Restored(
            plan=self._plan,
            server=self.server,
            data_dir=self._site.data_dir,
            replayed_lsn=replayed.lsn,
            end_lsn=record.end,
            timeline=timeline,
            last_commit_at=replayed.last_commit_at,
            recovered_at=self._recovered_at(notes),
            stopped=replayed.stopped,
            checks=("pg_verifybackup", "pg_waldump", *checks),
            engine=self.server.programs.describe(),
            size_bytes=laid.size_bytes + self._plan.wal_bytes,
            phases_s=self._phases_s,
            reader=self._reader,
            notes=notes,
            erasures=self._erasures,
            erased=erased,
        )

    def hand_over(self, restored: Restored) -> None:
        """Erase whoever was erased meanwhile, stop cleanly and leave a cluster that people can start."""
        known = read_list(self._vault)
        if self._erasures is not None and known.decisions - self._erasures.listed.decisions:
            self._erasures = replace(self._erasures, listed=merge([self._erasures.listed, known]))
            restored.erasures, restored.erased = self._erasures, self._erase()
        elif self._erasures is None:
            _require_erasures(self._plan, self._vault, None)
        drop_reader(self.server, self._reader, self._plan.base.dbname)
        stop_cleanly(self.server)
        limits = {name: value for name, value in self._plan.base.settings.items() if name in _LIMITS}
        keep(self._site, self._held, limits, self._user)

    def _fetch_base(self) -> LaidBase:
        parts = self._told(
            "fetch_base",
            # pg_verifybackup will hold every file to the server's own checksum, and that list to its own digest.
            opened_in_order(self._vault, self._plan.parts, plaintext_bytes=PART_BYTES, plaintext_digest=False),
            total_bytes=self._plan.base_bytes,
        )
        laid = lay_layers(self._plan.layers, self._site, parts, self._user, self.server)
        self._held = laid.held
        return laid

    def _lay_wal(self) -> Record:
        """Lay every piece, then find the end of the last complete record in what the vault authenticated."""
        layer = WalLayer(self._site.pg_wal, self._frames, self._user)
        pieces = opened_wal(self._vault, self._plan.pieces)
        layer.lay(self._told("lay_wal", pieces, total_bytes=self._plan.wal_bytes))
        record = layer.last_record()
        if record is None or record.end < self._plan.base.stop_lsn:
            raise VaultError(
                "restore.not_usable_yet",
                f"the stored WAL ends inside the record that would make base backup {self._plan.base.snapshot_id} "
                "consistent",
                "let `dr-assets capture` catch up, then try again",
            )
        return record

    @property
    def _frames(self) -> list[WalFrame]:
        return [stretch.frame for stretch in self._plan.stretches]

    def _verify(self, laid: LaidBase, record: Record) -> int:
        """Hold the laid files to what they should be; returns the timeline to recover to."""
        plan = self._plan
        finish_base(laid, self._site, self._user)
        self._write_histories()
        self.server.adopt(plan.base.superuser, self._site.tablespaces(), roles=[self._reader, self._eraser])
        verify_files(self.server)
        return check_wal(self.server, self._site.pg_wal, self._frames, plan.base.start_lsn, record, plan.target)

    def _replay(self, record: Record, timeline: int) -> WalReplayed:
        target = self._effective_target(record)
        self.server.settings.update(standby_settings(target, timeline, self._plan.base.major))
        told = None if self._progress is None else self._tell_replay
        return Replay(self.server, target, record.end, progress=told).run()

    def _erase(self) -> Replayed | None:
        """Before the checks, which then look at what people will get, and before anybody can read anything."""
        if self._erasures is None:
            return None
        with self._phase("erase"):
            return replay_erasures(self.server, self._eraser, self._plan.base.dbname, self._erasures)

    def _effective_target(self, record: Record) -> Target:
        """A position with no record behind it is the end of the WAL: no server stops there, so it is proven as such."""
        lsn = self._plan.target.lsn
        if lsn is None or record.begin >= lsn:
            return self._plan.target
        if record.end < lsn:
            raise PolicyError(
                "restore.target_beyond",
                f"{format_lsn(lsn)} lies beyond the last complete record, which ends at {format_lsn(record.end)}",
                f"restore to `latest`, or to a position up to lsn:{format_lsn(record.end)}",
            )
        return Target("latest")

    def _recovered_at(self, notes: list[str]) -> datetime | None:
        """The heartbeat in the recovered data; a row that cannot be believed dates nothing, and says so."""
        plan = self._plan
        if not create_reader(self.server, self._reader, plan.base.dbname):
            notes.append(f"database {plan.base.dbname}, which held the heartbeat, does not exist at this target")
            return None
        try:
            with psycopg.connect(self.server.dsn(plan.base.dbname, user=self._reader), autocommit=True) as session:
                row = read_heartbeat(session, plan.dataset)
            if row is not None:
                verify_heartbeat(row, self._vault.trust)
        except psycopg.Error as error:
            notes.append(f"the heartbeat cannot be read: {' '.join(str(error).split())}")
            return None
        except VaultError as error:
            notes.append(f"the heartbeat is not believed: {error.code}: {error.found}")
            return None
        if row is None:
            notes.append("the recovered data holds no heartbeat: no capture was running before this target")
            return None
        return row.at

    def _write_histories(self) -> None:
        """History files: the server refuses a timeline without one, and never promotes to a number that has one."""
        for timeline, text in self._plan.histories.items():
            write_file(self._site.pg_wal / f"{timeline:08X}.history", text.encode(), self._user)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begin_s = time.monotonic()
        if self._progress is not None:
            self._progress(RestoreProgress(name, 0, None))
        yield
        self._phases_s[name] = time.monotonic() - begin_s

    def _told(self, phase: str, pieces: Iterator[Opened], *, total_bytes: int) -> Iterator[Opened]:
        done_bytes = 0
        for piece in pieces:
            yield piece
            done_bytes += piece.header.size_bytes
            if self._progress is not None:
                self._progress(RestoreProgress(phase, done_bytes, total_bytes))

    def _tell_replay(self, lsn: int) -> None:
        assert self._progress is not None  # noqa: S101 - for the type checker: the caller has looked
        begin = self._plan.base.start_lsn
        self._progress(RestoreProgress("replay", max(0, lsn - begin), self._plan.frame.end - begin))
