"""A clone: a database as it was at a moment, for investigators, for a few hours.

What belongs here: asking for one, restoring it, holding it up until its deadline, the facts it leaves. What stays out:
the records on disk (clone_shelf.py) and the command (cli/clone.py).

A clone comes from the vault alone, by the same way as every restore: verified, with everybody left out who was erased.
Its server listens on a Unix socket only and runs without the source's settings; whoever connects reads as a role that
may read everything and change nothing. It ends at its deadline, when it is dropped, and when somebody is erased while
it stands: then it would be the one place that still knows them.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import psycopg

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import Estate, Level, PostgresDataset
from dr_assets.proving.clone_shelf import UNKNOWN, CloneRecord, CloneShelf, new_record, remove_files
from dr_assets.proving.erasures import erasures_for, record_replayed
from dr_assets.proving.record import plain
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.stores.postgres.guarded import superuser_dsn
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, RestoreProgress, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import record_fact
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.subjects.erased import read_list
from dr_assets.vault.vault import Vault

CLONE: Final = "clone"
DROPPED: Final = "clone.dropped"
TTL_MAX: Final = timedelta(days=7)
_LOOK_S: Final = 0.5
_ERASURES_EVERY_S: Final = 60.0
_OS_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an investigator asks for: a dataset at `target`, for `ttl`, by whom and why.

    `into` is an empty or absent folder, one on the shelf by default. `os_users` may connect, too.
    """

    dataset: str
    target: str
    ttl: timedelta
    by: str
    reason: str
    into: Path | None = None
    os_users: tuple[str, ...] = ()
    level: Level = "quick"


def put_down(shelf: CloneShelf, asked: Asked, now: datetime) -> CloneRecord:
    """The record of a clone to be made; from here on a sweep takes away whatever becomes of it.

    Raises PolicyError `clone.too_long`, `clone.no_reason`, `clone.bad_user`, `restore.not_empty`, `target.unreadable`.
    """
    Target.parse(asked.target)
    if asked.ttl > TTL_MAX:
        raise PolicyError(
            "clone.too_long",
            f"a clone for {format_duration(asked.ttl)}; {format_duration(TTL_MAX)} is the most",
            "a clone is a copy of everybody's data: make it anew when it is needed again",
        )
    if not asked.by.strip() or not asked.reason.strip():
        raise PolicyError(
            "clone.no_reason",
            "nobody says who asks for this clone, or why",
            "give --by and --reason: both go on record",
        )
    for who in asked.os_users:
        if _OS_USER.fullmatch(who) is None:
            raise PolicyError(
                "clone.bad_user", f"{who[:40]!r} is no name of a user", "give the name that `id -un` prints"
            )
    clone_id = secrets.token_hex(4)
    into = (asked.into or shelf.folder / clone_id).absolute()
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise PolicyError(
            "restore.not_empty", f"{into} is not empty", "clone into a new or an empty folder: it is removed later"
        )
    record = CloneRecord(
        clone_id=clone_id,
        dataset=asked.dataset,
        target=asked.target,
        by=asked.by,
        reason=asked.reason,
        into=str(into),
        home=str(into),
        made_into=not into.exists(),
        begin_at=now,
        deadline_at=now + asked.ttl,
        os_users=asked.os_users,
        level=asked.level,
    )
    shelf.write(record)
    record = new_record(record)
    shelf.write(record)
    return record


def keep(
    shelf: CloneShelf,
    clone_id: str,
    estate: Estate,
    dataset: PostgresDataset,
    vault: Vault,
    env: Mapping[str, str] | None = None,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Make the clone of a record and hold it up to its end; why it ended. Nothing is left of it then but the facts.

    `stopped` ends it early, also before it is ready: then nobody was let in, and no fact tells of it. Raises what a
    restore raises, which is in the record's `why` as well.
    """
    env = os.environ if env is None else env
    with shelf.kept(clone_id) as ours:
        if not ours:
            raise PolicyError("clone.kept", f"clone {clone_id} has a keeper", "it is made already")
        keeper = _Keeper(shelf, replace(_still_wanted(shelf, clone_id), pid=os.getpid()), vault, stopped)
        try:
            why = keeper.run(erasures_for(estate, dataset, vault, env), env)
        except DrError as error:
            keeper.note(state="failed", why=f"{error.code}: {error.found}\n{error.hint}")
            raise
        except BaseException as error:  # whoever waits for the clone is told of a signal, too
            keeper.note(state="failed", why=f"ended by {type(error).__name__}")
            raise
        finally:
            remove_files(keeper.record)
        if keeper.is_made:
            record_fact(vault, dataset.name, CLONE, plain(_ended(keeper.record, why)))
        shelf.forget(clone_id)
        return why


def _still_wanted(shelf: CloneShelf, clone_id: str) -> CloneRecord:
    """The record; of a clone that was dropped before its keeper looked, not even the lock just made is left."""
    try:
        return shelf.read(clone_id)
    except PolicyError as error:
        if error.code == UNKNOWN:
            shelf.forget(clone_id)
        raise


class _Keeper:
    """One clone under way. `is_made` once that is on record."""

    def __init__(self, shelf: CloneShelf, record: CloneRecord, vault: Vault, stopped: Callable[[], bool]) -> None:
        self._shelf = shelf
        self._vault = vault
        self._stopped = stopped
        self.record = record
        self.is_made = False

    def run(self, erasures: Erasures, env: Mapping[str, str]) -> str:
        """Restore, open the door, wait; why it ended."""
        try:
            return self._run(erasures, env)
        except PolicyError as error:
            if error.code != DROPPED:
                raise
            return self._ended_early() or "stopped"

    def _run(self, erasures: Erasures, env: Mapping[str, str]) -> str:
        self.note(phase="plan")
        begin_s = time.monotonic()
        record = self.record
        plan = plan_restore(self._vault, record.dataset, Target.parse(record.target))
        with restore(
            plan, self._vault, Path(record.into), level=record.level, env=env, progress=self._tell, erasures=erasures
        ) as restored:
            record_replayed(self._vault, restored, purpose="clone")
            _open_door(restored, record.os_users)
            phases_s = {**restored.phases_s, "in all": time.monotonic() - begin_s}
            self.note(phase="", recovered_at=restored.recovered_at, phases_s=phases_s)
            # On record before anybody is told how to connect.
            record_fact(self._vault, record.dataset, CLONE, plain(_made(self.record, restored)))
            self.is_made = True
            self.note(state="ready", dsn=restored.reader_dsn())
            why = self._wait(erasures)
            self.note(state="ending", why=why)
        return why

    def note(self, **changed: object) -> None:
        """Say how far it is."""
        self.record = replace(self.record, **changed)  # type: ignore[arg-type]
        self._shelf.write(self.record)

    def _tell(self, told: RestoreProgress) -> None:
        if self._ended_early():
            raise dropped(self.record.clone_id)
        if told.phase != self.record.phase:
            self.note(phase=told.phase)

    def _ended_early(self) -> str | None:
        if self._shelf.is_asked_to_end(self.record.clone_id):
            return "dropped"
        return "stopped" if self._stopped() else None

    def _wait(self, erasures: Erasures) -> str:
        looked_s = time.monotonic()
        while True:
            if (why := self._ended_early()) is not None:
                return why
            if self._vault.clock() >= self.record.deadline_at:
                return "its time was over"
            if time.monotonic() - looked_s >= _ERASURES_EVERY_S:
                looked_s = time.monotonic()
                if self._knows_too_much(erasures):
                    return "somebody was erased meanwhile"
            time.sleep(_LOOK_S)

    def _knows_too_much(self, erasures: Erasures) -> bool:
        try:
            return bool(read_list(self._vault).decisions - erasures.listed.decisions)
        except DrError as error:
            if error.code in STORE_AWAY:  # asked again in a minute; the deadline holds all the same
                return False
            raise


def dropped(clone_id: str) -> PolicyError:
    """Why there is no clone though nothing went wrong."""
    return PolicyError(DROPPED, f"clone {clone_id} was dropped", "nothing of it is left")


def _open_door(restored: Restored, os_users: Sequence[str]) -> None:
    """Read-only for everybody by default; other users of this host may log in as the reader and as nobody else."""
    server, reader = restored.server, restored.reader
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        session.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        _let_in(server, reader, os_users)
        session.execute("SELECT pg_reload_conf()")


def _let_in(server: PostgresServer, reader: str, os_users: Sequence[str]) -> None:
    path = server.run_dir / "pg_ident.conf"
    lines = [f'ours "{who}" "{reader}"\n' for who in os_users]
    path.write_text(path.read_text() + "".join(lines))


def _made(record: CloneRecord, restored: Restored) -> dict[str, object]:
    erased = restored.erased
    return {
        "event": "made",
        "clone_id": record.clone_id,
        "by": record.by,
        "reason": record.reason,
        "target": record.target,
        "deadline_at": record.deadline_at,
        "base_backup": restored.plan.base_key,
        "replayed_lsn": format_lsn(restored.replayed_lsn),
        "last_commit_at": restored.last_commit_at,
        "recovered_at": restored.recovered_at,
        "erasures": 0 if erased is None else erased.erasures,
        "os_users": list(record.os_users),
        "size_bytes": restored.size_bytes,
        "phases_s": dict(record.phases_s),
    }


def _ended(record: CloneRecord, why: str) -> dict[str, object]:
    return {"event": "ended", "clone_id": record.clone_id, "why": why, "by": record.by}
