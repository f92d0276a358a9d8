"""Capturing a source's WAL into the vault: the phases of one run, timeline after timeline.

What belongs here: the order in which a capture starts, follows a promotion, and ends. What stays out: how it makes sure
of its place (taking.py), the loop itself (capture_loop.py).

Mutual exclusion is the source's: a replication slot has one consumer, and nothing is written before we are it. At a
timeline's end everything received is stored first; then the place is taken anew, by the very steps of a restart.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.capture_facts import record_capture
from dr_assets.stores.postgres.capture_loop import CaptureLoop, CaptureOptions, LoopParts
from dr_assets.stores.postgres.diverged import record_diverged
from dr_assets.stores.postgres.durability_facts import DurabilityFacts
from dr_assets.stores.postgres.heartbeat import Heartbeat
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.overlap import DivergedError
from dr_assets.stores.postgres.pieces import Piece
from dr_assets.stores.postgres.protocol import SystemIdentity
from dr_assets.stores.postgres.report import CaptureReport
from dr_assets.stores.postgres.resume import StoredEnd
from dr_assets.stores.postgres.source_stream import Place, SourceStream, TimelineEndError
from dr_assets.stores.postgres.spool import SpoolFolder
from dr_assets.stores.postgres.spool_recovery import SpoolRecovery
from dr_assets.stores.postgres.spooling import Spooling
from dr_assets.stores.postgres.standbys import StandbySlots
from dr_assets.stores.postgres.sync_guard import CAPTURE, SyncGuard
from dr_assets.stores.postgres.taking import Taken, Taking
from dr_assets.stores.postgres.timeline import record_timeline
from dr_assets.stores.postgres.wal_lock import WalLock
from dr_assets.stores.postgres.watch import SourceWatch
from dr_assets.stores.sealing.aside import Aside
from dr_assets.stores.sealing.metrics import CaptureMetrics, NoMetrics
from dr_assets.stores.sealing.putters import Putters
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.signing import Signer
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")

__all__ = ["Capture", "CaptureOptions", "CaptureReport"]

# What a new primary may still say for a moment, and an old one that is on its way out.
_PASSING = frozenset({"source.unreachable", "source.standby", "source.slot_in_use", "source.older_timeline"})
_FOLLOW_AGAIN_S = 0.5
# Our puts have ended and stores tell time in whole seconds: what was put in this very second counts.
_JUST_NOW = timedelta(seconds=-2)


class Capture:
    """The capture of one dataset; run it once.

    `listener` gets a report every few seconds and whenever something but a number changed, in a thread of its own;
    what it raises ends the capture. `patroni` are the base URLs of its REST endpoints, where Patroni says who leads.
    """

    def __init__(
        self,
        vault: Vault,
        dataset: PostgresDataset,
        dsn: str,
        *,
        clock: Callable[[], datetime] | None = None,
        listener: Callable[[CaptureReport], None] | None = None,
        metrics: CaptureMetrics[CaptureReport] | None = None,
        options: CaptureOptions | None = None,
        patroni: Sequence[str] = (),
        spool_dir: Path | None = None,
    ) -> None:
        self._vault = vault
        self._dataset = dataset
        self._dsn = dsn
        self._clock = clock or vault.clock
        self._listener = listener
        self._metrics = metrics or NoMetrics()
        self._options = options or CaptureOptions()
        self._patroni = tuple(patroni)
        self._newest: CaptureReport | None = None
        self._spool_dir = spool_dir
        self._spool: SpoolFolder | None = None

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop` is set; then everything received is stored, acknowledged and on record.

        Raises SourceError when the source can't be captured or can't be any longer (among them `source.slot_in_use`,
        `source.gap`, `source.slot_lost`, `source.forked`), VaultError when the vault takes nothing any more. A source
        that is merely away is waited for, once the capture has started, and a promotion is followed.
        """
        signer = self._signer()
        keep_freed_memory()
        self._vault.check_clock()
        self._vault.keys.for_writing(self._dataset.name)
        with self._opened_spool(stop.is_set) as spooled:
            self._taking = Taking(
                self._vault, self._dataset.name, self._dataset.slot, accept_gap=self._options.accept_gap,
                patience_s=self._options.patience_s, spooled=spooled, stopped=stop.is_set,
            )  # fmt: skip
            self._capture(Nodes(self._dsn, self._patroni), spooled, signer, stop)

    def rescue(self, error: SourceError) -> None:
        """The source does not answer: put what the spool holds, and note on `error` how much. Raises VaultError."""
        with self._opened_spool() as spooled:
            _rescue(spooled, error)

    @contextmanager
    def _opened_spool(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[SpoolRecovery | None]:
        spool = self._dataset.spool
        if spool is None:
            yield None
            return
        if self._spool_dir is None:
            raise PolicyError(
                "spool.no_folder", f"{self._dataset.name} declares a spool, and no folder for it was given",
                f"set {spool.dir_env}, or declare no `spool`",
            )  # fmt: skip
        self._spool = SpoolFolder(self._spool_dir, self._dataset.name, spool.max_bytes)
        try:
            yield SpoolRecovery(self._vault, self._dataset.name, self._spool, stopped=stopped)
        finally:
            self._spool.close()

    def _capture(self, nodes: Nodes, spooled: SpoolRecovery | None, signer: Signer, stop: threading.Event) -> None:
        try:
            taken: Taken | None = self._taking.take(nodes)
        except SourceError as error:
            _rescue(spooled, error)
            raise
        while taken is not None:
            try:
                self._stream(taken, nodes, signer, stop)
            except TimelineEndError as ended:
                log.warning("%s: %s", self._dataset.name, ended.found)
                taken = self._follow(nodes, ended, stop)
            else:
                return

    def _signer(self) -> Signer:
        if self._vault.signer is None:
            raise PolicyError(
                "vault.read_only", "this vault was opened without a signing key", "a capture needs one: signing=True"
            )
        return self._vault.signer

    # -- streaming --------------------------------------------------------------------------------------------------

    def _follow(self, nodes: Nodes, ended: TimelineEndError, stop: threading.Event) -> Taken | None:
        """Take the place again where the timeline was left, waiting for a new primary that isn't quite there yet.

        None when a stop came first.
        """
        while not stop.is_set():
            try:
                return self._taking.take(nodes)
            except SourceError as error:
                if error.code not in _PASSING:
                    raise
                self._tell_waiting(f"{ended.found}; {error.code}: {error.found}")
                stop.wait(_FOLLOW_AGAIN_S)
        return None

    def _tell_waiting(self, trouble: str) -> None:
        """No loop runs that could report."""
        if self._listener is not None and self._newest is not None:
            self._listener(replace(self._newest, at=self._clock(), state="reconnecting", trouble=trouble))

    def _heard(self, report: CaptureReport) -> None:
        self._newest = report
        if self._listener is not None:
            self._listener(report)

    def _stream(self, taken: Taken, nodes: Nodes, signer: Signer, stop: threading.Event) -> None:
        place, end, name = taken.place, taken.end, self._dataset.name
        stream = SourceStream(place, taken.connection, taken.tail, application_name=self._dataset.slot, nodes=nodes)
        epoch = end.writer_epoch + 1
        heartbeat = self._heartbeat(signer, place.identity, epoch)
        with self._parts(place, stream, heartbeat, server_timeline=taken.history.timeline) as parts:
            record_timeline(self._vault, name, place.identity.system_id, taken.own_history, self._clock())
            started = StoredEnd(end.begin, end.end, end.header, end.segment, epoch, end.recovery_point_at)
            record_capture(self._vault, name, "started", started.anchor(place.identity))
            if taken.is_current:
                parts.watch.start()
            self._note_diverged(parts.beside, taken)
            loop = CaptureLoop(parts, end, epoch)
            parts.standbys.start(lambda: loop.stored, lambda: stream.serving)
            try:
                loop.run(stop)
                self._count_everything()
            except SourceError as error:
                self._record_end(place.identity, loop.stored, error)
                raise

    def _note_diverged(self, beside: Aside, taken: Taken) -> None:
        """List what was abandoned, beside the stream: there may be much to read."""
        place = taken.place

        def note() -> None:
            for found in record_diverged(
                self._vault, self._dataset.name, place.identity.system_id, taken.history, place.segment_bytes
            ):
                log.warning("%s: %s", self._dataset.name, found)

        beside.give(note)

    @contextmanager
    def _parts(
        self, place: Place, stream: SourceStream, heartbeat: Heartbeat, *, server_timeline: int
    ) -> Iterator[LoopParts]:
        name, vault, identity = self._dataset.name, self._vault, place.identity
        with ExitStack() as stack:
            stack.callback(stream.close)
            putters: Putters[Piece] = Putters(
                vault,
                dataset=name,
                lock_of=WalLock(vault, name),
                count=self._options.putters if self._dataset.zero_loss is None else self._options.zero_loss_putters,
                give_up_s=self._options.give_up_s,
                is_only_copy=lambda: stream.connection is None,
                metrics=self._metrics,
            )
            stack.callback(putters.close)
            spooling = None if self._spool is None else Spooling(self._spool, putters)
            if spooling is not None:
                stack.callback(spooling.close)
            watch = SourceWatch(
                place.dsn,
                slot=self._dataset.slot,
                system_id=identity.system_id,
                timeline=identity.timeline,
                heartbeat=heartbeat,
                interval_s=self._options.heartbeat_every_s,
                clock=self._clock,
            )
            stack.callback(watch.stop)
            facts, listening = (stack.enter_context(Aside(f"{work}-{name}")) for work in ("facts", "listen"))
            standbys = StandbySlots(
                Nodes(self._dsn, self._patroni),
                slot=self._dataset.slot,
                system_id=identity.system_id,
                timeline=server_timeline,
                zero_loss=self._dataset.zero_loss is not None,
            )
            stack.callback(standbys.stop)
            beside = stack.enter_context(Aside(f"diverged-{name}"))
            guard, durability = self._guard(place, stack)
            yield LoopParts(
                vault=vault, dataset=self._dataset, identity=identity, stream=stream, putters=putters, watch=watch,
                facts=facts, listening=listening, beside=beside, standbys=standbys, listener=self._heard,
                metrics=self._metrics, clock=self._clock, options=self._options, guard=guard, durability=durability,
                spooling=spooling,
            )  # fmt: skip

    def _guard(self, place: Place, stack: ExitStack) -> tuple[SyncGuard, DurabilityFacts] | tuple[None, None]:
        """What sees to it that commits wait for the vault, where that is declared, until the stack is closed."""
        if self._dataset.zero_loss is None:
            return None, None
        name = self._dataset.name
        sealing = stack.enter_context(Aside(f"durability-{name}"))
        facts = DurabilityFacts(self._vault, name, place.identity.system_id, sealing)
        guard = SyncGuard(
            place.dsn, self._dataset, told_by=CAPTURE, rearm_after_s=self._options.rearm_after_s, seal=facts.seal,
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
                self._taking.record_lost_slot(identity, stored, error)
            elif isinstance(error, DivergedError) and error.position < stored:
                self._taking.record_rewind(identity, stored, None, error)
        except VaultError as unsealed:
            error.add_note(f"and this is not on record: {unsealed.code}: {unsealed.found}")


def _rescue(spooled: SpoolRecovery | None, error: SourceError) -> None:
    """Where nobody answers for the source, what is spooled may be the only copy."""
    if spooled is not None and error.code == "source.unreachable":
        stored = spooled.put_back(drop_rest=False)
        error.add_note(f"{stored} pieces that were spooled are in the vault now; no other copy may exist")
