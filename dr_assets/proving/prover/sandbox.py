"""One warm sandbox: a base backup laid from the vault, a standby on it that replays what it is given, and nothing else.

What belongs here: building it, where its replay stands, restartpoints, its end. What stays out: what it is given
(follow.py, in_place.py), when it is built anew (prover.py), copies of it (image.py).

It has neither a source nor a command to fetch WAL, so it can know nothing but what the vault held. It never promotes.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg
from psycopg import pq

from dr_assets.engines.errors import EngineError
from dr_assets.engines.placement import engine_user
from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.engines.programs import find_programs
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.proving.prover.follow import Follower
from dr_assets.proving.prover.in_place import InPlaceWal
from dr_assets.proving.prover.points import Point
from dr_assets.stores.postgres.checks import verify_files
from dr_assets.stores.postgres.combine import lay_layers, needed_bytes
from dr_assets.stores.postgres.fetch import opened_in_order, opened_wal
from dr_assets.stores.postgres.guarded import standby_reader_dsn, superuser_dsn
from dr_assets.stores.postgres.heartbeat import read_heartbeat, verify_heartbeat
from dr_assets.stores.postgres.lay import finish_base, write_file
from dr_assets.stores.postgres.lay_wal import WalLayer
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.parts import PART_BYTES
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.recovery import raised_limit, standby_settings, wants_wal
from dr_assets.stores.postgres.restore import SANDBOX_NAME
from dr_assets.stores.postgres.site import Site, abandon, prepare_site
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal import Record
from dr_assets.stores.postgres.wal_check import check_wal
from dr_assets.vault.retention.thawing import require_thawed
from dr_assets.vault.vault import Vault

# A reader holds up the replay no longer than this; then it is cancelled, and reads from a clone instead.
READER_DELAY_S: Final = 4
_LOG_MAX_BYTES: Final = 8 << 20
_LOG_LINES: Final = 200
_RAISES_MAX: Final = 8
_POLL_S: Final = 0.05
_STATE: Final = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_get_wal_replay_pause_state(),
       pg_last_xact_replay_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Room:
    """How much disk a prover may take, all of its folders together. `used` is what the others take now."""

    max_bytes: int
    used: Callable[[], int]

    def require(self, needed_bytes: int, what: str) -> None:
        """Raise PolicyError (`prover.no_room`) before anything is laid that would not fit."""
        used = self.used()
        if used + needed_bytes > self.max_bytes:
            raise PolicyError(
                "prover.no_room",
                f"{what} needs about {needed_bytes >> 20} MiB beside the {used >> 20} MiB in use, and `prove.max` is "
                f"{self.max_bytes >> 20} MiB",
                "raise `max` of the declaration `prove`, or give the prover a larger disk",
            )


class Sandbox:
    """A standby that runs, with the WAL that it is fed. Use `build`; `close` leaves nothing of it on the disk."""

    def __init__(self, plan: RestorePlan, vault: Vault, site: Site, server: PostgresServer, wal: InPlaceWal) -> None:
        self.plan = plan
        self.site = site
        self.server = server
        self.wal = wal
        self.follower = Follower(vault, plan.base, wal)
        # Held by whoever copies its files, and for each restartpoint: one at a time.
        self.restartpoints = threading.Lock()
        self._vault = vault
        self._session: psycopg.Connection[tuple[object, ...]] | None = None
        self._reader: psycopg.Connection[tuple[object, ...]] | None = None
        self._beat_at: datetime | None = None
        self._beat_lsn = 0

    @classmethod
    def build(
        cls, vault: Vault, dataset: str, into: Path, room: Room, env: Mapping[str, str] | None = None
    ) -> "Sandbox":
        """Plan, lay, verify and start, from the newest base backup; nothing is left of it when that fails.

        It returns as soon as the server runs: `point` tells how far the replay is. Raises as `plan_restore` and
        `restore` do, PolicyError `prover.no_room`.
        """
        plan = plan_restore(vault, dataset, Target("latest"))
        require_thawed(plan.cold)
        needed = needed_bytes(plan.layers) + plan.wal_bytes
        room.require(needed, "a sandbox")
        programs = find_programs("postgres", plan.base.major, env)
        site = prepare_site(into, needed)
        server = PostgresServer(site.data_dir, programs, name=f"{SANDBOX_NAME}-{dataset}-{into.name}")
        try:
            sandbox = cls(plan, vault, site, server, _laid(plan, vault, site, server))
            sandbox._start()
        except BaseException:
            server.stop("immediate")
            abandon(site)
            raise
        return sandbox

    @property
    def end_lsn(self) -> int:
        """The end of the last complete record that it was given."""
        return self.wal.record.end

    def settings(self) -> dict[str, Setting]:
        """What its server runs with: a copy of it needs the same limits."""
        return dict(self.server.settings)

    def point(self) -> Point:
        """Where its replay stands; waits for no one. Raises VaultError `prover.sandbox_died`.

        A heartbeat that can't be read dates nothing, and the one before it stands.
        """
        lsn, last_commit_at = self._state()
        if lsn != self._beat_lsn and (at := self._heartbeat()) is not None:
            self._beat_at, self._beat_lsn = at, lsn
        return Point(lsn, self.wal.timeline, self._beat_at, last_commit_at)

    def is_on_its_way(self) -> bool:
        """Whether it takes no session yet because it still reads WAL that makes it consistent; nobody sees how far."""
        return self._session is None and not wants_wal(self.server.log_tail(_LOG_LINES))

    def reader_dsn(self) -> str | None:
        """For reading the data while it is replayed (guarded.py); None where that isn't safe."""
        return standby_reader_dsn(self.server, self.plan.base.dbname)

    def restartpoint(self) -> None:
        """Have the server write out what it holds, and remove the WAL that it needs no more."""
        if not self.restartpoints.acquire(blocking=False):
            return
        try:
            self._sql().execute("CHECKPOINT")
        except psycopg.OperationalError:
            self._hang_up()
        finally:
            self.restartpoints.release()
        log = self.server.log_path
        if log.stat().st_size > _LOG_MAX_BYTES:
            os.truncate(log, 0)  # a line for each end of WAL that the server meets, several a second

    def close(self) -> None:
        """Stop the server and remove everything."""
        self._hang_up()
        self.wal.close()
        self.server.stop("immediate")
        abandon(self.site)

    def _start(self) -> None:
        for _ in range(_RAISES_MAX):
            try:
                self.server.start(wait=False)
            except EngineError:
                raised = raised_limit(self.server.log_tail(_LOG_LINES))
                if raised is None or int(self.server.settings.get(raised[0], 0)) >= raised[1]:
                    raise
                self.server.settings[raised[0]] = raised[1]
            else:
                return

    def _state(self) -> tuple[int, datetime | None]:
        if not self.server.running:
            self._raised_or_died("its server ended")
        try:
            row = self._sql().execute(_STATE).fetchone()
        except psycopg.OperationalError:
            self._hang_up()  # not consistent yet, or a replayed DROP DATABASE ended the session
            return self._beat_lsn, None
        assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
        in_recovery, lsn, pause_state, last_commit_at = row
        if not in_recovery:
            raise _died("its server left recovery by itself")
        if pause_state == "paused":
            self._raised_or_died("its server paused")
        at = last_commit_at.astimezone(UTC) if isinstance(last_commit_at, datetime) else None
        return parse_lsn(str(lsn or "0/0")), at

    def _raised_or_died(self, found: str) -> None:
        """A source may raise limits that a standby must not have less of: the server is started again with them."""
        raised = raised_limit(self.server.log_tail(_LOG_LINES))
        if raised is None or int(self.server.settings.get(raised[0], 0)) >= raised[1]:
            raise _died(f"{found}; its log ends: {' '.join(self.server.log_tail(6).split())}")
        self._hang_up()
        self.server.stop("immediate")
        self.server.settings[raised[0]] = raised[1]
        self._start()

    def _heartbeat(self) -> datetime | None:
        dsn = self.reader_dsn()
        try:
            if self._reader is None:
                self._reader = psycopg.connect(dsn or self.server.dsn(self.plan.base.dbname), autocommit=True)
            row = read_heartbeat(self._reader, self.plan.dataset)
            if row is not None:
                verify_heartbeat(row, self._vault.trust)
        except psycopg.Error:
            self._hang_up()
            return None
        except VaultError:
            return None
        return None if row is None else row.at.astimezone(UTC)

    def _sql(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._session is None:
            dsn = superuser_dsn(self.server)
            if pq.PGconn.ping(dsn.encode()) != pq.Ping.OK:
                raise psycopg.OperationalError("the server takes no session yet")
            self._session = psycopg.connect(dsn, autocommit=True, connect_timeout=5)
        return self._session

    def _hang_up(self) -> None:
        for session in (self._session, self._reader):
            if session is not None:
                session.close()
        self._session = self._reader = None


def wait_replayed(sandbox: Sandbox, lsn: int, is_over: Callable[[], bool], *, stalled_s: float) -> None:
    """Wait until a sandbox has replayed up to `lsn`. Raises VaultError `prover.stalled`, `prover.sandbox_died`."""
    reached, moved_s = 0, time.monotonic()
    while not is_over():
        point = sandbox.point()
        if point.lsn >= lsn:
            return
        now_s = time.monotonic()
        if point.lsn > reached or (not point.lsn and sandbox.is_on_its_way()):
            reached, moved_s = point.lsn, now_s
        if now_s - moved_s > stalled_s:
            raise stalled(point.lsn, lsn)
        time.sleep(_POLL_S)


def stalled(lsn: int, end: int) -> VaultError:
    """Replay that doesn't move, though there is WAL to replay."""
    return VaultError(
        "prover.stalled",
        f"replay stands at {format_lsn(lsn)}, the last complete record that was laid ends at {format_lsn(end)}",
        "the WAL on the prover's own disk is damaged, or something blocks its server; it begins anew by itself. If "
        "this comes back at the same position, run `dr-assets vault verify`",
    )


def _laid(plan: RestorePlan, vault: Vault, site: Site, server: PostgresServer) -> InPlaceWal:
    """Everything that a restore does before its server starts, in the same order and with the same checks."""
    user = engine_user()
    parts = opened_in_order(vault, plan.parts, plaintext_bytes=PART_BYTES, plaintext_digest=False)
    laid = lay_layers(plan.layers, site, parts, user, server)
    frames = [stretch.frame for stretch in plan.stretches]
    layer = WalLayer(site.pg_wal, frames, user)
    layer.lay(opened_wal(vault, plan.pieces))
    record = _usable(layer.last_record(), plan)
    finish_base(laid, site, user)
    # Only the timelines that the laid WAL leads to: with a newer one's history the server would look for that.
    for timeline, text in plan.histories.items():
        if timeline <= frames[-1].timeline:
            write_file(site.pg_wal / f"{timeline:08X}.history", text.encode(), user)
    server.adopt(plan.base.superuser, site.tablespaces())
    verify_files(server)
    timeline = check_wal(server, site.pg_wal, frames, plan.base.start_lsn, record, plan.target)
    server.settings.update(follower_settings(timeline, plan.base.major))
    (site.data_dir / "standby.signal").touch()
    return InPlaceWal(site.pg_wal, user, frames, record, layer.last_header)


def follower_settings(timeline: int, major: int) -> dict[str, Setting]:
    """Those of a restore's standby, and what makes it one that goes on for days."""
    return {
        **standby_settings(Target("latest"), timeline, major),
        "recovery_target_timeline": "latest",
        "max_standby_archive_delay": f"{READER_DELAY_S}s",
        "shared_buffers": "128MB",
        # Files that are done with are removed: one that is used again under another name would have old bytes in it.
        "wal_recycle": False,
    }


def _usable(record: Record | None, plan: RestorePlan) -> Record:
    if record is None or record.end < plan.base.stop_lsn:
        raise VaultError(
            "restore.not_usable_yet",
            f"the stored WAL ends inside the record that would make base backup {plan.base.snapshot_id} consistent",
            "let `dr-assets capture` catch up; the prover tries again by itself",
        )
    return record


def _died(found: str) -> VaultError:
    return VaultError(
        "prover.sandbox_died",
        f"the sandbox died: {found}",
        "the prover begins anew from the newest base backup; if this comes back, look at the host's memory and disk",
    )
