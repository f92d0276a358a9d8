"""The capture's slot on the standbys: made and moved on, so that whichever is promoted has kept the WAL we need.

What belongs here: a thread that looks after those slots and sees when another server has become the primary, and what
an operator should know of them beforehand. What stays out: which servers there are (nodes.py), the slot on the primary
(resume.py, slot.py), leaving it (source_stream.py).

A standby doesn't copy physical slots from its primary. One of its own, left behind at what the vault holds, keeps the
WAL from there on; left alone it would keep it for ever.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from dr_assets.stores.postgres.beside import Beside
from dr_assets.stores.postgres.dsn import describe_dsn, masked
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.preflight_sync import Judgement
from dr_assets.stores.postgres.session import Connection, connect
from dr_assets.stores.postgres.slot import SlotStatus, slot_status
from dr_assets.stores.postgres.sync_names import parse_sync_names

INTERVAL_S = 10.0

# The control file may name the timeline before until the first checkpoint of a promoted server is over.
_WHO = """
SELECT system_identifier::text,
       CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
FROM pg_control_system()
"""
_CREATE = "SELECT pg_create_physical_replication_slot(%s, true)"
# A slot can't be moved beyond what its server has replayed, nor back.
_ADVANCE = """
SELECT pg_replication_slot_advance(slot_name, least(%(to)s::pg_lsn, pg_last_wal_replay_lsn()))
FROM pg_replication_slots
WHERE slot_name = %(slot)s AND NOT active AND restart_lsn < least(%(to)s::pg_lsn, pg_last_wal_replay_lsn())
"""
_RECEIVERS = """
SELECT count(*) FROM pg_stat_replication AS sender
LEFT JOIN pg_replication_slots AS slot ON slot.active_pid = sender.pid
WHERE sender.application_name NOT IN (%s, 'pg_basebackup', 'pg_receivewal')
  AND sender.application_name NOT LIKE 'dr-assets %%'
  AND sender.state IN ('streaming', 'catchup') AND slot.slot_type IS DISTINCT FROM 'logical'
"""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The primary is another server than the one we stream from. `timeline` is the oldest that it may be on."""

    why: str
    timeline: int


class StandbySlots(Beside):
    """Looks after the slots on all standbys every `interval_s` until `stop`.

    What `start` is given tells up to where the vault holds the stream, and from which server (its DSN) it comes now.
    `timeline` is the one that this server writes to. `warnings` name the standbys whose promotion might leave a gap,
    and other primaries. What nobody foresaw ends the thread and is in `error`.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        slot: str,
        system_id: str,
        timeline: int,
        zero_loss: bool = False,
        interval_s: float | None = None,
    ) -> None:
        super().__init__(f"standbys-{slot}")
        self._nodes = nodes
        self._slot = slot
        self._system_id = system_id
        self._timeline = timeline
        self._zero_loss = zero_loss
        self._stored: Callable[[], int] = lambda: 0
        self._serving: Callable[[], str | None] = lambda: None
        self._elsewhere: Elsewhere | None = None
        self._interval_s = INTERVAL_S if interval_s is None else interval_s
        self.warnings: tuple[str, ...] = ()

    def start(self, stored: Callable[[], int], serving: Callable[[], str | None] = lambda: None) -> None:
        """Begin, if there may be standbys at all."""
        self._stored, self._serving = stored, serving
        if self._nodes.are_several:
            self._thread.start()

    def take_elsewhere(self) -> Elsewhere | None:
        """Whether the last look found the primary elsewhere; told once for each look."""
        found, self._elsewhere = self._elsewhere, None
        return found

    def _watch(self) -> None:
        while not self._stop.is_set():
            found = [self._look(dsn) for dsn in self._nodes.members()]
            found.append(self._told_elsewhere())
            self.warnings = tuple(warning for warning in found if warning)
            self._stop.wait(self._interval_s)

    def _told_elsewhere(self) -> str | None:
        """Patroni's word counts even where we can't reach whom it names: then ours is the one that was cut off."""
        leader, serving = self._nodes.told_leader, self._serving()
        if leader is None or serving is None or leader == serving:
            return None
        why = f"patroni names {describe_dsn(leader)} the leader, the stream came from {describe_dsn(serving)}"
        self._elsewhere = self._elsewhere or Elsewhere(why, self._timeline)
        return why

    def _judge_primary(self, dsn: str, timeline: int) -> str | None:
        """What a primary of our system means; where Patroni names a leader, nobody else is gone to."""
        name = describe_dsn(dsn)
        if timeline > self._timeline and self._nodes.told_leader not in (None, dsn):
            return f"{name} takes writes on the newer timeline {timeline}, and patroni names another leader: stop it"
        if timeline > self._timeline:
            why = (
                f"{name} was promoted to timeline {timeline}, the server of the stream is on {self._timeline}: it is "
                "left, what it goes on committing belongs to no future"
            )
            self._elsewhere = Elsewhere(why, timeline)
            return why
        if timeline < self._timeline:
            return f"{name} takes writes on timeline {timeline}, which was left for {self._timeline}: stop it"
        return None

    def _look(self, dsn: str) -> str | None:
        """Make or move the slot of one server, if it is a standby of ours; what speaks against its promotion."""
        if self._stop.is_set():
            return None
        name = describe_dsn(dsn)
        try:
            with connect(dsn, application_name="dr-assets standby slot") as connection:
                system_id, writes_to = connection.execute(_WHO).fetchone() or (None, None)
                if system_id != self._system_id:
                    return None
                if writes_to is not None:
                    return self._judge_primary(dsn, int(str(writes_to), 16))
                return self._tend(connection, name)
        except psycopg.Error as error:
            said = masked(str(error), dsn)
            return f"standby {name}: the slot {self._slot} can't be looked after: {said}"

    def _tend(self, connection: Connection, name: str) -> str | None:
        stored, slot = self._stored(), slot_status(connection, self._slot)
        if slot is not None and slot.is_lost and slot.slot_type == "physical" and not slot.active:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (self._slot,))  # it keeps nothing any more
            slot = None
        if slot is None:
            connection.execute(_CREATE, (self._slot,))
        connection.execute(_ADVANCE, {"slot": self._slot, "to": format_lsn(stored)})
        said = _judge(slot_status(connection, self._slot), self._slot, name, stored)
        return said or (_unsynchronous(connection, self._slot, name) if self._zero_loss else None)


def _judge(slot: SlotStatus | None, wanted: str, name: str, stored: int | None) -> str | None:
    if slot is None:
        return f"standby {name} has no slot {wanted}: promoted, it may have removed WAL that is not captured"
    if slot.slot_type != "physical":
        return f"standby {name}: slot {wanted} is {slot.slot_type}, a physical one is needed"
    if slot.is_lost or slot.restart_lsn is None:
        return f"standby {name}: slot {wanted} keeps no WAL ({slot.wal_status})"
    if stored is not None and slot.restart_lsn > stored:
        return (
            f"standby {name}: slot {wanted} keeps WAL from {format_lsn(slot.restart_lsn)} on, the vault's ends at "
            f"{format_lsn(stored)}: until it has caught up a promotion may leave a gap"
        )
    return None


def _unsynchronous(connection: Connection, slot: str, name: str) -> str | None:
    """ALTER SYSTEM is no part of the WAL: each server has to be told that commits wait for the vault."""
    row = connection.execute("SHOW synchronous_standby_names").fetchone()
    if parse_sync_names(str(row[0] if row else "")).has(slot):
        return None
    return (
        f"standby {name}: synchronous_standby_names doesn't ask for {slot}: promoted, it acknowledges commits that the "
        "vault doesn't hold"
    )


def judge_standbys(connection: Connection, nodes: Nodes, slot: str, *, zero_loss: bool = False) -> Iterator[Judgement]:
    """What a promotion would run into, each with what to do. `connection` is the primary's. Raises psycopg.Error."""
    if not nodes.are_several:
        (count,) = connection.execute(_RECEIVERS, (slot,)).fetchone() or (0,)
        if count:
            hint = (
                "name every server in the connection string (host=db1,db2), or declare `patroni_env`; else a slot must "
                "be kept on each standby by hand, and moved on with pg_replication_slot_advance()"
            )
            found = f"{count} standbys stream from this server, and the connection string names it alone"
            yield "source.unknown_standbys", "warning", found, hint
        return
    for dsn in nodes.members():
        name = describe_dsn(dsn)
        try:
            with connect(dsn, application_name="dr-assets preflight") as session:
                row = session.execute("SELECT pg_is_in_recovery()").fetchone()
                said = None
                if row == (True,):
                    said = _judge(slot_status(session, slot), slot, name, None)
                    said = said or (_unsynchronous(session, slot, name) if zero_loss else None)
        except psycopg.Error as error:
            said = f"{name} can't be asked: {masked(str(error), dsn)}"
        if said is not None:
            hint = (
                "the capture makes and moves the slot while it runs; for that its user logs in there, and "
                "max_replication_slots has room; settings made with ALTER SYSTEM are made on each server"
            )
            yield "source.standby_slot", "warning", said, hint
