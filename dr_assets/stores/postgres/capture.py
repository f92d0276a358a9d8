"""Capturing a source's WAL into the vault: the phases of one run.

What belongs here: the order in which a capture makes sure of its place, starts and ends. What stays out: the loop
itself (capture_loop.py).

Mutual exclusion is the source's: a replication slot has one consumer, and nothing is written before we are it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.estate.model import Dataset
from dr_assets.stores.postgres.aside import Aside
from dr_assets.stores.postgres.capture_facts import Gap, is_rewound, record_capture, record_gap, record_rewind
from dr_assets.stores.postgres.capture_loop import CaptureLoop, CaptureOptions, LoopParts
from dr_assets.stores.postgres.durability_facts import DurabilityFacts
from dr_assets.stores.postgres.heartbeat import Heartbeat, ensure_heartbeat_table
from dr_assets.stores.postgres.overlap import DivergedError, Tail, stored_tail
from dr_assets.stores.postgres.protocol import (
    ConnectionLostError,
    ReplicationConnection,
    ServerRefusedError,
    SystemIdentity,
)
from dr_assets.stores.postgres.putters import Putters
from dr_assets.stores.postgres.report import CaptureMetrics, CaptureReport, NoMetrics
from dr_assets.stores.postgres.resume import StoredEnd, ensure_slot, find_stored_end, join, rewound, size_bytes
from dr_assets.stores.postgres.session import Connection, connect, source_errors
from dr_assets.stores.postgres.slot import slot_status
from dr_assets.stores.postgres.source_stream import Place, SourceStream, open_source, start_held_to, start_stream
from dr_assets.stores.postgres.sync_guard import CAPTURE, SyncGuard
from dr_assets.stores.postgres.watch import SourceWatch
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.signing import Signer
from dr_assets.vault.vault import Vault

__all__ = ["Capture", "CaptureOptions", "CaptureReport"]

_START_ATTEMPTS = 5
# Our puts have ended and stores tell time in whole seconds: what was put in this very second counts.
_JUST_NOW = timedelta(seconds=-2)


class Capture:
    """The capture of one dataset; run it once.

    `listener` gets a report every few seconds and whenever something but a number changed, in a thread of its own;
    what it raises ends the capture.
    """

    def __init__(
        self,
        vault: Vault,
        dataset: Dataset,
        dsn: str,
        *,
        clock: Callable[[], datetime] | None = None,
        listener: Callable[[CaptureReport], None] | None = None,
        metrics: CaptureMetrics | None = None,
        options: CaptureOptions | None = None,
    ) -> None:
        self._vault = vault
        self._dataset = dataset
        self._dsn = dsn
        self._clock = clock or vault.clock
        self._listener = listener
        self._metrics = metrics or NoMetrics()
        self._options = options or CaptureOptions()

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop` is set; then everything received is stored, acknowledged and on record.

        Raises SourceError when the source can't be captured or can't be any longer (among them `source.slot_in_use`,
        `source.gap`, `source.slot_lost`, `source.other_timeline`), VaultError when the vault takes nothing any more.
        A source that is merely away is waited for, once the capture has started.
        """
        signer = self._signer()
        self._vault.check_clock()
        self._vault.keys.for_writing(self._dataset.name)
        with source_errors(self._dsn), connect(self._dsn, application_name="dr-assets capture") as session:
            connection = open_source(self._dsn, self._dataset.slot)
            try:
                place, end, tail = self._take_place(session, connection)
                ensure_heartbeat_table(session)
            except BaseException:
                connection.close()
                raise
        stream = SourceStream(place, connection, tail, application_name=self._dataset.slot)
        self._stream(place, stream, end, signer, stop)

    def _signer(self) -> Signer:
        if self._vault.signer is None:
            raise PolicyError(
                "vault.read_only", "this vault was opened without a signing key", "a capture needs one: signing=True"
            )
        return self._vault.signer

    # -- before streaming -------------------------------------------------------------------------------------------

    def _take_place(self, session: Connection, connection: ReplicationConnection) -> tuple[Place, StoredEnd, Tail]:
        """Become the slot's one consumer, at the position where the vault's chain ends.

        Until we hold the slot another capture may still have been storing, so the chain's end is looked at again.
        """
        try:
            segment_bytes = size_bytes(connection.show("wal_segment_size"))
            for _ in range(_START_ATTEMPTS):
                identity = self._identity(session, connection)
                place = Place(self._dsn, self._dataset.slot, identity, segment_bytes)
                restart_lsn = self._slot(session, connection, identity)
                end = join(
                    self._vault, self._dataset.name, identity, restart_lsn, segment_bytes,
                    accept_gap=self._options.accept_gap, asked_again=connection.identify_system,
                )  # fmt: skip
                end, tail = self._start(connection, place, end)
                if self._is_still_the_end(identity, end):
                    return place, end, tail
                connection.end_stream()
        except ConnectionLostError as error:
            raise _unreachable(str(error)) from None
        except ServerRefusedError as error:
            raise SourceError(
                "source.refused", f"the source says {error.sqlstate}: {error.message}", "see `dr-assets preflight`"
            ) from None
        raise _unreachable(f"the chain moved under us {_START_ATTEMPTS} times: another capture comes and goes")

    def _identity(self, session: Connection, connection: ReplicationConnection) -> SystemIdentity:
        row = session.execute("SELECT pg_is_in_recovery()").fetchone()
        if row != (False,):
            raise SourceError(
                "source.standby", "this server is a standby", "connect to the primary: heartbeats must be written there"
            )
        return connection.identify_system()

    def _slot(self, session: Connection, connection: ReplicationConnection, identity: SystemIdentity) -> int:
        status = slot_status(session, self._dataset.slot)
        try:
            return ensure_slot(connection, status, self._dataset.slot, accept_gap=self._options.accept_gap)
        except SourceError as error:
            if error.code == "source.slot_lost":
                end = find_stored_end(self._vault, self._dataset.name, identity)
                self._record_lost_slot(identity, 0 if end is None else end.end, error)
            raise

    def _start(self, connection: ReplicationConnection, place: Place, end: StoredEnd) -> tuple[StoredEnd, Tail]:
        """Stream from the chain's end, once the source has shown that its history is the one that is stored.

        What a source can't show any more is believed, unless it was seen to differ before.
        """
        identity = place.identity
        tail = stored_tail(self._vault, self._dataset.name, identity, end)
        try:
            if not start_held_to(connection, place, tail, patience_s=self._options.patience_s):
                self._refuse_rewound(identity, tail)
        except DivergedError as error:
            if self._options.accept_gap:
                end = self._begin_anew(connection, place, end, error)
                return end, Tail(end.end)
            self._record_rewind(identity, end.end, None, error)
            raise
        return end, tail

    def _refuse_rewound(self, identity: SystemIdentity, tail: Tail) -> None:
        if is_rewound(self._vault, self._dataset.name, identity.system_id, identity.timeline, tail.end):
            raise DivergedError(tail.begin, tail.end)

    def _begin_anew(
        self, connection: ReplicationConnection, place: Place, end: StoredEnd, error: DivergedError
    ) -> StoredEnd:
        """A new chain of another history: behind the old one, so that no piece of the two ever seems to fit."""
        connection.end_stream()
        identity = connection.identify_system()
        begin = identity.flushed_lsn - identity.flushed_lsn % place.segment_bytes
        begin = begin if begin > end.end else identity.flushed_lsn
        if begin <= end.end:
            raise rewound(end.end, identity)
        self._record_rewind(identity, end.end, begin, error)
        start_stream(connection, place, begin, patience_s=self._options.patience_s)
        return StoredEnd(begin, begin, None, None, end.writer_epoch, None)

    def _is_still_the_end(self, identity: SystemIdentity, end: StoredEnd) -> bool:
        again = find_stored_end(self._vault, self._dataset.name, identity, known=end)
        return again is None or again.end == end.end

    # -- streaming --------------------------------------------------------------------------------------------------

    def _stream(
        self, place: Place, stream: SourceStream, end: StoredEnd, signer: Signer, stop: threading.Event
    ) -> None:
        epoch = end.writer_epoch + 1
        heartbeat = self._heartbeat(signer, place.identity, epoch)
        with self._parts(place, stream, heartbeat) as parts:
            started = StoredEnd(end.begin, end.end, end.header, end.segment, epoch, end.recovery_point_at)
            record_capture(self._vault, self._dataset.name, "started", started.anchor(place.identity))
            parts.watch.start()
            loop = CaptureLoop(parts, end, epoch)
            try:
                loop.run(stop)
                self._count_everything()
            except SourceError as error:
                self._record_end(place.identity, loop.stored, error)
                raise

    @contextmanager
    def _parts(self, place: Place, stream: SourceStream, heartbeat: Heartbeat) -> Iterator[LoopParts]:
        name, vault, identity = self._dataset.name, self._vault, place.identity
        with ExitStack() as stack:
            stack.callback(stream.close)
            putters = Putters(
                vault,
                dataset=name,
                lock_of=lambda: vault.locks.lock(name, "wal", vault.clock()),
                count=self._options.putters if self._dataset.zero_loss is None else self._options.zero_loss_putters,
                give_up_s=self._options.give_up_s,
                is_only_copy=lambda: stream.connection is None,
                metrics=self._metrics,
            )
            stack.callback(putters.close)
            watch = SourceWatch(
                self._dsn,
                slot=self._dataset.slot,
                system_id=identity.system_id,
                timeline=identity.timeline,
                heartbeat=heartbeat,
                interval_s=self._options.heartbeat_every_s,
                clock=self._clock,
            )
            stack.callback(watch.stop)
            facts, listening = (stack.enter_context(Aside(f"{work}-{name}")) for work in ("facts", "listen"))
            guard, durability = self._guard(identity, stack)
            yield LoopParts(
                vault=vault, dataset=self._dataset, identity=identity, stream=stream, putters=putters, watch=watch,
                facts=facts, listening=listening, listener=self._listener, metrics=self._metrics, clock=self._clock,
                options=self._options, guard=guard, durability=durability,
            )  # fmt: skip

    def _guard(
        self, identity: SystemIdentity, stack: ExitStack
    ) -> tuple[SyncGuard, DurabilityFacts] | tuple[None, None]:
        """What sees to it that commits wait for the vault, where that is declared, until the stack is closed."""
        if self._dataset.zero_loss is None:
            return None, None
        name = self._dataset.name
        facts = DurabilityFacts(self._vault, name, identity.system_id, stack.enter_context(Aside(f"durability-{name}")))
        guard = SyncGuard(
            self._dsn, self._dataset, told_by=CAPTURE, rearm_after_s=self._options.rearm_after_s, seal=facts.seal,
            sealed=facts.sealed,
        )  # fmt: skip
        stack.callback(guard.stop)
        guard.start()
        return guard, facts

    def _heartbeat(self, signer: Signer, identity: SystemIdentity, epoch: int) -> Heartbeat:
        return Heartbeat(
            signer,
            estate=self._vault.estate,
            dataset=self._dataset.name,
            system_id=identity.system_id,
            epoch=epoch,
        )

    def _count_everything(self) -> None:
        """An inventory at the end names the newest segment too: nothing that comes later would betray its absence.

        A stop must not take as long as a large vault takes to list, so one that isn't ready in time is given up; the
        next stop, or whoever else takes inventories, makes up for it.
        """

        def count() -> None:
            record_inventory(self._vault, self._dataset.name, settled=_JUST_NOW)

        counting = Aside(f"inventory-{self._dataset.name}")
        counting.give(count)
        counting.close(self._options.stop_within_s)

    def _record_end(self, identity: SystemIdentity, stored: int, error: SourceError) -> None:
        """An end that leaves a gap is put on record; where that fails, the source's error stays the one to see."""
        try:
            if error.code == "source.slot_lost":
                self._record_lost_slot(identity, stored, error)
            elif isinstance(error, DivergedError) and error.position < stored:
                self._record_rewind(identity, stored, None, error)
        except VaultError as unsealed:
            error.add_note(f"and this is not on record: {unsealed.code}: {unsealed.found}")

    def _record_rewind(
        self, identity: SystemIdentity, stored: int, available: int | None, error: DivergedError
    ) -> None:
        record_rewind(
            self._vault, self._dataset.name, identity.system_id, identity.timeline, stored, available, error.found
        )

    def _record_lost_slot(self, identity: SystemIdentity, stored: int, error: SourceError) -> None:
        record_gap(
            self._vault, self._dataset.name, Gap(identity.system_id, identity.timeline, stored, None, error.found)
        )


def _unreachable(why: str) -> SourceError:
    return SourceError("source.unreachable", why, "check that the server runs and that the address is right")
