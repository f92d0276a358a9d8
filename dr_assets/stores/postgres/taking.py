"""Becoming the one consumer of the source's slot, at the position where the vault goes on.

What belongs here: the order of the looks at source and vault until a stream runs that may be captured, and the refusals
on the way. What stays out: which stream that is (follow.py, resume.py), capturing it (capture.py).

Nothing is written to the vault's streams before we have held the slot; a refusal is on record before it is raised.
What an earlier run left on the spool is put while no stream runs: a server that is being stopped would wait for us.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.capture_facts import Gap, is_rewound, record_gap, record_rewind
from dr_assets.stores.postgres.follow import ForkedError, Stream, find_stream, require_side, stream_at
from dr_assets.stores.postgres.heartbeat import ensure_heartbeat_table
from dr_assets.stores.postgres.history import History
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.overlap import DivergedError, Tail, stored_tail
from dr_assets.stores.postgres.protocol import (
    ConnectionLostError,
    ReplicationConnection,
    ServerRefusedError,
    SystemIdentity,
)
from dr_assets.stores.postgres.resume import (
    StoredEnd,
    begin_of,
    ensure_slot,
    find_stored_end,
    first_end,
    gap_behind,
    require_reached,
    rewound,
    size_bytes,
)
from dr_assets.stores.postgres.session import Connection, connect, source_errors
from dr_assets.stores.postgres.slot import slot_status
from dr_assets.stores.postgres.source_stream import Place, open_source, start_held_to, start_stream
from dr_assets.stores.postgres.spool_recovery import SpoolRecovery
from dr_assets.stores.postgres.timeline import read_ancestor, read_history
from dr_assets.vault.vault import Vault

_START_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Taken:
    """A stream that runs from the end of what is stored. `history` is the server's, `own_history` the stream's.

    `is_current`: the stream is of the timeline that the server writes to, so that heartbeats may be dated by it.
    """

    place: Place
    connection: ReplicationConnection
    end: StoredEnd
    tail: Tail
    history: History
    own_history: History
    is_current: bool


@dataclass(frozen=True, slots=True)
class _Side:
    """The server as it stands; `forked` is what speaks against it though a person has accepted it."""

    server: SystemIdentity
    history: History
    forked: ForkedError | None


class _AgainError(Exception):
    """The chain's end moved, by our own doing: look again."""


class _StoppedError(Exception):
    """A stop came while the spool was being put."""


class Taking:
    """Takes the place of one dataset's capture, again after every switch, until `stopped`."""

    def __init__(
        self, vault: Vault, dataset: str, slot: str, *, accept_gap: bool, patience_s: float,
        spooled: SpoolRecovery | None = None, stopped: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._vault = vault
        self._dataset = dataset
        self._slot_name = slot
        self._accept_gap = accept_gap
        self._patience_s = patience_s
        self._spooled = spooled
        self._stopped = stopped
        self._spool_is_put = False

    def take(self, nodes: Nodes) -> Taken | None:
        """Become the slot's one consumer, at the position where the vault's chain ends. Raises SourceError, VaultError.

        None when a stop came while an earlier run's spool was put, which may take as long as the vault is slow.
        Until we hold the slot another capture may still have been storing, so the chain's end is looked at again. That
        a gap is accepted holds for the first time only.
        """
        self._spool_is_put = False
        connection = open_source(nodes, self._slot_name)
        try:
            dsn = connection.dsn
            with source_errors(dsn), connect(dsn, application_name="dr-assets capture") as session:
                taken = self._take(session, connection)
                ensure_heartbeat_table(session)
        except _StoppedError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        self._accept_gap = False
        return taken

    def _take(self, session: Connection, connection: ReplicationConnection) -> Taken:
        try:
            segment_bytes = size_bytes(connection.show("wal_segment_size"))
            for _ in range(_START_ATTEMPTS):
                side = self._side(session, connection)
                stream = find_stream(self._vault, self._dataset, side.server, side.history)
                place = Place(connection.dsn, self._slot_name, stream.identity, segment_bytes)
                with suppress(_AgainError):
                    taken = self._join(session, connection, place, stream, side)
                    if self._is_still_the_end(taken.place.identity, taken.end):
                        self._empty_spool(taken)
                        return taken
                    connection.end_stream()
        except ConnectionLostError as error:
            raise _unreachable(str(error)) from None
        except ServerRefusedError as error:
            raise SourceError(
                "source.refused", f"the source says {error.sqlstate}: {error.message}", "see `dr-assets preflight`"
            ) from None
        raise _unreachable(f"the chain moved under us {_START_ATTEMPTS} times: another capture comes and goes")

    def _empty_spool(self, taken: Taken) -> None:
        """Put what an earlier run left, having been the one consumer; then, being it again, drop the rest.

        Raises _AgainError when something was put.
        """
        self._put_spooled(taken.connection)
        if self._spooled is None or self._spooled.is_empty:
            return

        def alive() -> None:
            taken.connection.send_status(vaulted=taken.end.end, now=self._vault.clock())

        if self._spooled.put_back(drop_rest=True, alive=alive):
            taken.connection.end_stream()
            raise _AgainError
        self._give_up_if_stopped()

    def _put_spooled(self, connection: ReplicationConnection) -> None:
        """Once, what continues a stored chain, and without a stream. Raises _AgainError if there was a spool to put."""
        if self._spooled is None or self._spool_is_put or self._spooled.is_empty:
            return
        with suppress(ServerRefusedError):  # that the WAL is gone, perhaps
            connection.end_stream()
        self._spooled.put_back(drop_rest=False)
        self._give_up_if_stopped()
        self._spool_is_put = True
        raise _AgainError

    def _give_up_if_stopped(self) -> None:
        if self._stopped():
            raise _StoppedError

    def _side(self, session: Connection, connection: ReplicationConnection) -> _Side:
        row = session.execute("SELECT pg_is_in_recovery()").fetchone()
        if row != (False,):
            raise SourceError(
                "source.standby", "this server is a standby", "connect to the primary: heartbeats must be written there"
            )
        server = connection.identify_system()
        history = read_history(connection, server.timeline)
        try:
            require_side(self._vault, self._dataset, server, history)
        except ForkedError as error:
            if not self._accept_gap:
                self._record_fork(error, None)
                raise
            return _Side(server, history, error)
        except SourceError:
            if not self._accept_gap:
                raise
        return _Side(server, history, None)

    def _join(
        self, session: Connection, connection: ReplicationConnection, place: Place, stream: Stream, side: _Side
    ) -> Taken:
        """The stream, started where it goes on; or, with a gap that a person has accepted, behind that gap."""
        available = begin_of(self._restart_lsn(session, connection, place.identity), place.segment_bytes)
        end = stream.end or first_end(self._vault, self._dataset, place.identity, available)
        require_reached(end, place.identity, connection.identify_system)
        taken = Taken(
            place, connection, end, stored_tail(self._vault, self._dataset, end), side.history,
            read_ancestor(connection, side.history, place.identity.timeline), stream.is_current,
        )  # fmt: skip
        taken = self._start(taken, side, available)
        if side.forked is not None:
            self._record_fork(side.forked, taken.end.end)
        return taken

    def _restart_lsn(self, session: Connection, connection: ReplicationConnection, identity: SystemIdentity) -> int:
        status = slot_status(session, self._slot_name)
        try:
            return ensure_slot(connection, status, self._slot_name, accept_gap=self._accept_gap)
        except SourceError as error:
            if error.code == "source.slot_lost":
                self._rescue(error)
                end = find_stored_end(self._vault, self._dataset, identity)
                self.record_lost_slot(identity, 0 if end is None else end.end, error)
            raise

    def _start(self, taken: Taken, side: _Side, available: int) -> Taken:
        """Stream from the chain's end, once the source has shown that its history is the one that is stored.

        What a source can't show any more is believed, unless it was seen to differ before. What lies before the slot's
        own WAL counts as kept only when it was shown: the next checkpoint may remove it, which would end the stream.
        """
        identity, end, tail = taken.place.identity, taken.end, taken.tail
        try:
            shown = start_held_to(taken.connection, taken.place, tail, patience_s=self._patience_s)
            if not shown:
                self._refuse_known(identity, tail, side)
        except DivergedError as error:
            if self._accept_gap:
                return self._begin_anew(taken, side, error)
            self.record_rewind(identity, end.end, None, error)
            raise
        if shown or end.end >= available:
            return taken
        return self._behind_gap(taken, side, available)

    def _rescue(self, error: SourceError) -> None:
        """The source has removed WAL: what is spooled may be the only copy, and the chain ends behind it."""
        if self._spooled is None:
            return
        stored = self._spooled.put_back(drop_rest=False)
        self._give_up_if_stopped()
        error.add_note(f"{stored} pieces that were spooled are in the vault now; no other copy may exist")

    def _behind_gap(self, taken: Taken, side: _Side, available: int) -> Taken:
        self._put_spooled(taken.connection)
        identity, end = taken.place.identity, taken.end
        why = "the slot was made after the chain's end: it had been dropped, or others moved it"
        record_gap(self._vault, self._dataset, Gap(identity.system_id, identity.timeline, end.end, available, why))
        if not self._accept_gap:
            raise gap_behind(self._dataset, end.end, available)
        with suppress(ServerRefusedError):  # that the WAL is gone, perhaps
            taken.connection.end_stream()
        identity = stream_at(side.server, side.history, available)
        place = replace(taken.place, identity=identity)
        own = read_ancestor(taken.connection, side.history, identity.timeline)
        start_stream(taken.connection, place, available, patience_s=self._patience_s)
        end = StoredEnd(available, available, None, None, end.writer_epoch, end.recovery_point_at)
        is_current = identity.timeline == side.server.timeline
        return replace(taken, place=place, end=end, tail=Tail(available), own_history=own, is_current=is_current)

    def _refuse_known(self, identity: SystemIdentity, tail: Tail, side: _Side) -> None:
        """What was seen to differ stays refused; two servers promoted apart call both their timelines by one number."""
        refused = is_rewound(self._vault, self._dataset, identity.system_id, identity.timeline, tail.end)
        if refused or (side.forked is not None and side.forked.anchor.timeline == identity.timeline):
            raise DivergedError(tail.begin, tail.end)

    def _begin_anew(self, taken: Taken, side: _Side, error: DivergedError) -> Taken:
        """A new chain of another history: behind the old one, so that no piece of the two ever seems to fit."""
        connection, end = taken.connection, taken.end
        connection.end_stream()
        identity = connection.identify_system()
        begin = begin_of(identity.flushed_lsn, taken.place.segment_bytes)
        begin = begin if begin > end.end else identity.flushed_lsn
        if begin <= end.end:
            raise rewound(end.end, identity)
        self.record_rewind(identity, end.end, begin, error)
        place = replace(taken.place, identity=identity)
        start_stream(connection, place, begin, patience_s=self._patience_s)
        end = StoredEnd(begin, begin, None, None, end.writer_epoch, None)
        return replace(taken, place=place, end=end, tail=Tail(begin), own_history=side.history, is_current=True)

    def _is_still_the_end(self, identity: SystemIdentity, end: StoredEnd) -> bool:
        again = find_stored_end(self._vault, self._dataset, identity, known=end)
        return again is None or again.end == end.end

    # -- on record --------------------------------------------------------------------------------------------------

    def record_rewind(self, identity: SystemIdentity, stored: int, available: int | None, error: DivergedError) -> None:
        """Seal that the source's history is another one from within the stored chain on. Raises VaultError."""
        record_rewind(self._vault, self._dataset, identity.system_id, identity.timeline, stored, available, error.found)

    def record_lost_slot(self, identity: SystemIdentity, stored: int, error: SourceError) -> None:
        """Seal that nothing is kept for us behind `stored`. Raises VaultError."""
        record_gap(self._vault, self._dataset, Gap(identity.system_id, identity.timeline, stored, None, error.found))

    def _record_fork(self, error: ForkedError, available: int | None) -> None:
        anchor = error.anchor
        stored = find_stored_end(
            self._vault, self._dataset, SystemIdentity(anchor.system_id, anchor.timeline, anchor.stored)
        )
        end = anchor.stored if stored is None else stored.end
        why = f"{error.code}: {error.found}"
        record_gap(self._vault, self._dataset, Gap(anchor.system_id, anchor.timeline, end, available, why))


def _unreachable(why: str) -> SourceError:
    return SourceError("source.unreachable", why, "check that the server runs and that the address is right")
