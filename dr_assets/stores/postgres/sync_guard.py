"""A thread that sees to it that commits wait for the vault, and never longer than was declared.

What belongs here: when to look, acting on the rule's word, and what the newest look said. What stays out: the rule and
the SQL (sync_standby.py), the proof (sync_probe.py), sealing the changes (durability_facts.py).

It runs in two places: in the capture, which also makes commits wait again once it has caught up, and in the resident
`dr-assets sync-guard`, which only lets go: a capture that died can't do that for itself. Only the capture says that
commits wait, and only once it has seen one wait (sync_probe.py); until then they count as degraded.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import psycopg

from dr_assets.estate.errors import SourceError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.beside import Beside, keep_looking
from dr_assets.stores.postgres.dsn import masked
from dr_assets.stores.postgres.session import Connection, connect
from dr_assets.stores.postgres.sync_probe import why_unproven
from dr_assets.stores.postgres.sync_standby import (
    DEGRADED,
    SYNCHRONOUS,
    Change,
    Look,
    Mode,
    Rule,
    Sealed,
    change_to,
    changes_after,
    ensure_durability_table,
    last_change,
    log_change,
    look_at,
)
from dr_assets.stores.postgres.weak_commits import weak_commits

CAPTURE: Final = "capture"
OUTSIDE: Final = "sync-guard"
_LONGEST_INTERVAL_S = 1.0
_SHORTEST_INTERVAL_S = 0.1
_WEAK_EVERY_S = 60.0
_LONGEST_PROBE_S = 1.0
_SHORTEST_PROBE_S = 0.25
_OUTSIDE_GUARDS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"


def guard_application_name(dataset: str) -> str:
    """How an outside guard's session is known to the capture."""
    return f"dr-assets {OUTSIDE} {dataset}"[:63]


@dataclass(frozen=True, slots=True)
class Guarded:
    """The newest look. `since` is the source's clock, None before the first; `behind_s` is WAL's wait for the vault."""

    mode: Mode = DEGRADED
    since: datetime | None = None
    reason: str = "the source was not asked yet"
    behind_s: float = 0.0
    trouble: str | None = None
    warnings: tuple[str, ...] = ()


class SyncGuard(Beside):
    """Looks every second at most, and four times within what commits may wait, until `stop`.

    `locate` tells before each new connection which server is the primary now, as its DSN; it may raise SourceError.

    `sealed` tells the newest change that is a fact already, and `seal` takes those that are not; only the capture has
    them. What nobody foresaw ends the thread and is in `error`.
    """

    def __init__(
        self,
        dsn: str,
        dataset: PostgresDataset,
        *,
        told_by: str,
        rearm_after_s: float = 5.0,
        seal: Callable[[list[Change]], None] | None = None,
        sealed: Callable[[], Sealed] = Sealed,
        locate: Callable[[], str] | None = None,
    ) -> None:
        if dataset.zero_loss is None:
            raise ValueError(dataset.name)
        super().__init__(f"sync-{dataset.name}")
        degrade_after = dataset.zero_loss.degrade_after
        self._dsn = dsn
        self._locate = locate
        self._dataset = dataset
        self._told_by = told_by
        self._degrade_after_s = None if degrade_after is None else degrade_after.total_seconds()
        self._rule = Rule(dataset.slot, self._degrade_after_s, rearm_after_s)
        self._interval_s = min(
            _LONGEST_INTERVAL_S, max(_SHORTEST_INTERVAL_S, (self._degrade_after_s or _LONGEST_INTERVAL_S) / 4)
        )
        self._seal = seal
        self._sealed = sealed
        self._weak: tuple[str, ...] = ()
        self._weak_due_s = 0.0
        self._last: Change | None = None
        self._own: Change | None = None
        self._found: Mode | None = None
        self._unproven: str | None = None
        self.newest = Guarded()

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def run(self, stop: threading.Event, told: Callable[[Guarded], None]) -> None:
        """Look in this thread until `stop`, telling each look."""
        self._keep_looking(stop, told)

    def _watch(self) -> None:
        self._keep_looking(self._stop, lambda _: None)

    def _keep_looking(self, stop: threading.Event, told: Callable[[Guarded], None]) -> None:
        keep_looking(
            stop, self._interval_s, connect=self._connect, look=self._look, failed=self._failed,
            passing=(psycopg.Error, SourceError), after=lambda: told(self.newest),
        )  # fmt: skip

    def _failed(self, error: Exception) -> None:
        self.newest = replace(self.newest, trouble=f"{self._told_by}: {masked(str(error), self._dsn)}")

    def _connect(self) -> Connection:
        if self._locate is not None:
            self._dsn = self._locate()
        outside = self._told_by == OUTSIDE
        name = guard_application_name(self._dataset.name) if outside else "dr-assets durability"
        connection = connect(self._dsn, application_name=name, connect_timeout_s=3)
        if not outside:
            ensure_durability_table(connection)
        return connection

    def _look(self, connection: Connection) -> None:
        now_s, slot = time.monotonic(), self._dataset.slot
        look = look_at(connection, slot)
        mode = look.mode(slot)
        if self._found == SYNCHRONOUS and mode == DEGRADED:
            self._rule.degraded(now_s)  # somebody else let go, which is a flap like one of our own
        wanted, reason = self._rule.decide(look, now_s), self._reason(look, now_s)
        if wanted == DEGRADED or (wanted == SYNCHRONOUS and self._told_by == CAPTURE):
            change_to(connection, slot, wanted)
            mode = wanted
            if wanted == DEGRADED:
                self._rule.degraded(now_s)
            else:
                look, reason = look_at(connection, slot), "the vault has caught up"
        self._found, self._unproven = mode, None
        if mode == SYNCHRONOUS and self._is_news(connection, mode):
            mode, look, reason = self._prove(connection, look, reason)
        self._note(connection, look, mode, reason, now_s)

    def _prove(self, connection: Connection, look: Look, reason: str) -> tuple[Mode, Look, str]:
        """What may be logged: that commits wait, from a look after one was seen to; degraded until then."""
        slot = self._dataset.slot
        if self._told_by != CAPTURE:
            return DEGRADED, look, "no capture has seen commits wait yet"
        within_s = min(_LONGEST_PROBE_S, max(_SHORTEST_PROBE_S, self._interval_s))
        alone = len(look.names.names) == 1
        why_not = why_unproven(self._dsn, connection, slot, alone=alone, within_s=within_s)
        if why_not is None:
            proven = look_at(connection, slot)
            return proven.mode(slot), proven, reason
        self._unproven = f"commits do not count as synchronous yet: {why_not}"
        return DEGRADED, look, self._unproven

    def _reason(self, look: Look, now_s: float) -> str:
        slot = self._dataset.slot
        if look.mode(slot) == SYNCHRONOUS:
            waited_s = self._rule.behind.age_s(now_s)
            if waited_s == 0.0:
                return f"synchronous_standby_names asks for {slot}"
            who = "the capture streams, the vault did not take what it sent" if look.is_streaming else "no capture"
            return f"WAL waited {waited_s:.1f} s for the vault: {who}"
        if look.names.has(slot):
            return f"synchronous_standby_names is {look.names}: others may confirm in place of {slot}"
        return f"synchronous_standby_names does not ask for {slot}"

    def _is_news(self, connection: Connection, mode: Mode) -> bool:
        """Whether `mode` is to be logged: the log says otherwise, or what is sealed does and nothing is to follow.

        After a failover the newest fact may be of a row that never reached the server that is asked now.
        """
        if self._last is None or self._last.mode != mode:
            self._last = last_change(connection, self._dataset.name)
        if self._last is None or self._last.mode != mode:
            return True
        sealed = self._sealed()  # once: it moves on in another thread
        if self._last == self._own or sealed.mode in (None, mode):
            return False
        return not changes_after(connection, self._dataset.name, sealed)

    def _note(self, connection: Connection, look: Look, mode: Mode, reason: str, now_s: float) -> None:
        is_news, last = self._is_news(connection, mode), self._last
        if is_news or last is None:
            last = self._last = self._own = log_change(
                connection, self._dataset.name, mode, look, reason, self._told_by, after=last
            )
        if self._seal is not None:
            sealed = self._sealed()
            unsealed = changes_after(connection, self._dataset.name, sealed)
            if not unsealed and sealed.mode not in (None, mode):
                unsealed = [last]  # by a clock that is behind the other server's
            if unsealed:
                self._seal(unsealed)
        self._look_for_weak(connection, now_s)
        self.newest = Guarded(
            mode, last.since, last.reason, self._rule.behind.age_s(now_s), self._unproven,
            (*self._weak, *self._unguarded(connection)),
        )  # fmt: skip

    def _look_for_weak(self, connection: Connection, now_s: float) -> None:
        if self._told_by == CAPTURE and now_s >= self._weak_due_s:
            self._weak_due_s = now_s + _WEAK_EVERY_S
            self._weak = tuple(str(weak) for weak in weak_commits(connection))

    def _unguarded(self, connection: Connection) -> list[str]:
        if self._told_by != CAPTURE or self._degrade_after_s is None:
            return []
        row = connection.execute(_OUTSIDE_GUARDS, (guard_application_name(self._dataset.name),)).fetchone()
        if row != (0,):
            return []
        return ["no sync-guard watches: should this capture die, commits wait until it is back"]
