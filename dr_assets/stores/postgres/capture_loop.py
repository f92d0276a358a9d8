"""The capture's main loop: WAL in, pieces out to the putters, the stored prefix back to the source.

What belongs here: one round of the loop and its order. What stays out: how it begins (capture.py), the connection
(source_stream.py), the cut (pieces.py), the puts (putters.py).

Everything here runs in one thread and never waits for the vault or for a listener, so the source always gets its
replies. The order that must hold: seal, put, read back, extend the prefix, acknowledge.
"""

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.capture_facts import Anchor, Event, record_capture
from dr_assets.stores.postgres.durability_facts import DurabilityFacts
from dr_assets.stores.postgres.pieces import BACKLOG_PIECE_BYTES, PIECE_CAP_BYTES, Arrival, Cutter, Marks, Piece
from dr_assets.stores.postgres.protocol import ConnectionLostError, Keepalive, SystemIdentity, WalData
from dr_assets.stores.postgres.report import CaptureReport, CaptureState, Durability
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT, StoredEnd
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import Room, RoomWatch
from dr_assets.stores.postgres.source_stream import SourceStream, TimelineEndError
from dr_assets.stores.postgres.spooling import Spooling
from dr_assets.stores.postgres.standbys import StandbySlots
from dr_assets.stores.postgres.sync_guard import SyncGuard
from dr_assets.stores.postgres.watch import SourceWatch
from dr_assets.stores.sealing.aside import Aside
from dr_assets.stores.sealing.linked import Chain
from dr_assets.stores.sealing.metrics import CaptureMetrics
from dr_assets.stores.sealing.putters import Failed, Putters, Stored
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, ContiguousPrefix, format_position
from dr_assets.vault.vault import Vault

_TICK_S = 0.25
_STATUS_EVERY_S = 0.5
_ZERO_LOSS_LINGER_S = 0.010
_AT_ONCE = 3
_PIECES_A_PUT = 6
_PUTS_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How a capture behaves; the linger and the slot are the dataset's.

    `in_flight_cap_bytes` bounds the WAL that is received and not yet stored; at the cap nothing more is read.
    `zero_loss_putters` are more, since there every commit waits for a put to begin at once; `rearm_after_s` is how long
    the vault must have kept up before commits wait for it again.
    `give_up_s` is how long a put is tried before the capture ends with the vault's error. `patience_s` is how long a
    slot that another consumer holds is waited for at the start. `accept_gap` begins a new chain behind a gap.
    """

    heartbeat_every_s: float = 2.0
    rearm_after_s: float = 5.0
    report_every_s: float = 5.0
    position_fact_every_s: float = 300.0
    putters: int = 8
    zero_loss_putters: int = 16
    in_flight_cap_bytes: int = 4 * BACKLOG_PIECE_BYTES
    give_up_s: float = 3600.0
    stop_within_s: float = 30.0
    patience_s: float = 5.0
    accept_gap: bool = False


@dataclass(frozen=True, slots=True)
class LoopParts:
    """What a loop is put together from; it closes none of it."""

    vault: Vault
    dataset: PostgresDataset
    identity: SystemIdentity
    stream: SourceStream
    putters: Putters[Piece]
    watch: SourceWatch
    facts: Aside
    listening: Aside
    beside: Aside
    standbys: StandbySlots
    listener: Callable[[CaptureReport], None] | None
    metrics: CaptureMetrics[CaptureReport]
    clock: Callable[[], datetime]
    options: CaptureOptions
    guard: SyncGuard | None = None
    durability: DurabilityFacts | None = None
    spooling: Spooling | None = None


class CaptureLoop:
    """One run of a capture from the moment it streams."""

    def __init__(self, parts: LoopParts, end: StoredEnd, writer_epoch: int) -> None:
        self._parts = parts
        self._epoch = writer_epoch
        self._begin = end.begin
        self._cutter = Cutter(end.end, parts.dataset.linger.total_seconds())
        self._prefix = ContiguousPrefix(end.end)
        self._chain = Chain(end.header)
        self._last_stored = (end.header, end.segment)
        self._stored_ends: dict[int, tuple[str, str]] = {}
        self._cut_marks = Marks(end.recovery_point_at)
        self._stored_marks = Marks(end.recovery_point_at)
        self._arrivals: deque[Arrival] = deque()
        self._server_lsn = end.end
        self._state: CaptureState = "streaming"
        self._lag_s: float | None = None
        self._seal_s = 0.0
        self._put_s = 0.0
        self._room = RoomWatch(parts.dataset.wal_volume_bytes)
        self._slot_seen: tuple[SlotStatus, Room] | None = None
        self._segments = 0
        self._bytes = 0
        self._acknowledged = 0
        self._reply_requested = False
        self._status_due_s = 0.0
        self._report_due_s = 0.0
        self._fact_due_s = time.monotonic() + parts.options.position_fact_every_s
        self._told: tuple[object, ...] = ()
        self._fact_trouble: str | None = None

    @property
    def stored(self) -> int:
        """The end of the contiguous prefix that the vault has read back under its lock."""
        return self._prefix.acknowledged

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop`, then store what was received and end the stream in order.

        Raises SourceError when going on is impossible, and what the listener or the watch raised; what was received is
        stored first, with all the patience there is when the source may not have it any more. Raises VaultError when a
        put was given up: nothing beyond the prefix was acknowledged then.
        """
        ended: BaseException | None = None
        while ended is None and not stop.is_set():
            try:
                self._round()
            except SourceError as error:
                ended = error
            ended = ended or self._failed_beside()
        if ended is not None:
            self._drain_after(ended, stop)
            raise ended
        self._drain(self._parts.options.stop_within_s, stop)
        self._end_stream()
        self._state = "stopped"
        record_capture(self._parts.vault, self._parts.dataset.name, "stopped", self._anchor())
        self._tell()

    def _failed_beside(self) -> BaseException | None:
        """What one of the threads beside this one raised."""
        parts = self._parts
        guarding = None if parts.guard is None else parts.guard.error
        guarding = guarding or (None if parts.durability is None else parts.durability.error)
        beside = parts.beside.error or parts.standbys.error
        return parts.watch.error or parts.listening.error or parts.facts.error or beside or guarding

    def _round(self) -> None:
        self._wait()
        self._take_outcomes()
        self._reconnect()
        self._take_stream()
        self._cut(force=self._parts.stream.connection is None)
        self._acknowledge()
        self._record_position()
        self._tell()

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until something is there to do, at most one tick, so that a stop is seen."""
        timeout_s = _TICK_S
        self._pace()
        due_s = self._cutter.due_in_s(time.monotonic())
        if due_s is not None and (self._parts.putters.has_idle or self._may_spool()):
            timeout_s = min(timeout_s, due_s)
        stream = self._parts.stream
        if stream.connection is None:
            timeout_s = min(timeout_s, stream.retry_in_s())
        if stream.connection is None or not self._may_read():
            select.select([self._parts.putters], [], [], timeout_s)
        else:
            stream.wait(timeout_s, also_read=[self._parts.putters.fileno()])

    def _pace(self) -> None:
        """Where commits wait for the vault, they wait for no company while few puts are under way, then for a little.

        Every put costs CPU, so with some under way pieces follow each other at a fraction of a put's duration: the
        pipeline stays full, and a commit's wait little longer than the put itself.
        """
        if self._parts.guard is not None:
            longest_s = min(_ZERO_LOSS_LINGER_S, self._parts.dataset.linger.total_seconds())
            gathering = self._prefix.in_flight >= _AT_ONCE
            self._cutter.linger_s = min(longest_s, self._put_s / _PIECES_A_PUT) if gathering else 0.0

    def _may_read(self) -> bool:
        """Whether memory allows for more: neither the growing piece nor what is in flight is at its cap.

        With a spool there is always a next piece to come, however much the putters hold: it is what makes the spool
        take over, and that is how memory becomes free again.
        """
        spooling = self._parts.spooling
        on_disk = 0 if spooling is None else spooling.queued_bytes
        unstored = self._cutter.position - self._prefix.acknowledged - on_disk
        has_room = unstored < self._parts.options.in_flight_cap_bytes
        return not self._cutter.is_full() and (has_room or (spooling is not None and not self._cutter.size_bytes))

    def _may_spool(self) -> bool:
        return self._parts.spooling is not None and self._parts.spooling.can_take()

    # -- the way in -------------------------------------------------------------------------------------------------

    def _reconnect(self) -> None:
        stream, stopping_since_s = self._parts.stream, self._parts.watch.stopping_since_s
        if stopping_since_s is not None:
            stream.give_way(stopping_since_s)
        elsewhere = self._parts.standbys.take_elsewhere()
        if elsewhere is not None:
            stream.leave(elsewhere.why, elsewhere.timeline)
        if stream.connection is None and stream.retry_in_s() == 0.0:
            stream.try_again(self._cutter.position)
        self._state = "reconnecting" if stream.connection is None else "streaming"

    def _take_stream(self) -> None:
        if not self._may_read():
            self._parts.stream.paused()
            return
        now_s, before = time.monotonic(), self._cutter.position
        for message in self._parts.stream.receive():
            if isinstance(message, WalData):
                self._cutter.add(message, now_s)
                self._server_lsn = max(self._server_lsn, message.server_end, message.end)
            elif isinstance(message, Keepalive):
                self._server_lsn = max(self._server_lsn, message.server_end)
                self._reply_requested = self._reply_requested or message.reply_requested
        behind_bytes = self._server_lsn - self._cutter.position
        # A spool is sized, and fills, by pieces: there they stay at the smaller cap.
        has_spool = self._parts.spooling is not None
        self._cutter.behind_bytes = min(behind_bytes, PIECE_CAP_BYTES) if has_spool else behind_bytes
        if self._cutter.position != before:
            self._parts.metrics.received(self._parts.dataset.name, self._cutter.position - before)

    # -- the way out ------------------------------------------------------------------------------------------------

    def _cut(self, *, force: bool) -> None:
        """Hand the piece to a putter when it is due and one is idle, or to the spool; else it goes on growing."""
        for beat in self._parts.watch.take_beats():
            self._cut_marks.note(beat.lsn, beat.row.at)
            self._stored_marks.note(beat.lsn, beat.row.at)
        if self._parts.spooling is not None:
            self._parts.spooling.feed()
        due_s = self._cutter.due_in_s(time.monotonic())
        if due_s is None or (due_s > 0 and not force) or not (self._parts.putters.has_idle or self._may_spool()):
            return
        piece = self._cutter.cut()
        if piece is not None:
            self._submit(piece)

    def _submit(self, piece: Piece) -> None:
        at = self._cut_marks.at_position(piece.end)
        identity = self._parts.identity
        prepare = partial(
            self._parts.vault.prepare,
            dataset=self._parts.dataset.name,
            stream=WAL,
            kind="wal",
            system_id=identity.system_id,
            timeline=identity.timeline,
            first=piece.begin,
            last=piece.end,
            begin_at=piece.begin_at,
            end_at=piece.end_at,
            writer_epoch=self._epoch,
            extra={
                ACKNOWLEDGED_TO: format_position(self._prefix.acknowledged),
                **({} if at is None else {RECOVERY_POINT_AT: format_time(at)}),
            },
        )
        linked = self._chain.link(
            piece.data,
            lambda plaintext, sha256, previous: prepare(
                plaintext=plaintext, plaintext_sha256=sha256, previous=previous
            ),
        )
        self._prefix.begin(piece.begin, piece.end)
        if self._parts.putters.has_idle or self._parts.spooling is None:
            self._arrivals.extend(piece.arrivals)
            self._parts.putters.submit(linked, piece)
        else:
            # A spool holds hours of pieces: of each two samples are enough, or memory would grow with the outage.
            self._arrivals.extend(piece.arrivals[:1] + piece.arrivals[1:][-1:])
            self._parts.spooling.take(linked, replace(piece, arrivals=()))

    def _take_outcomes(self) -> None:
        before = self._prefix.acknowledged
        for outcome in self._parts.putters.outcomes():
            if isinstance(outcome, Failed):
                raise outcome.error
            self._stored(outcome)
        if self._prefix.acknowledged != before:
            self._prefix_moved()

    def _stored(self, outcome: Stored[Piece]) -> None:
        piece = outcome.piece
        self._stored_ends[piece.end] = (outcome.header_digest, str(outcome.receipt.key))
        self._prefix.done(piece.begin)
        if self._parts.spooling is not None:
            self._parts.spooling.stored(outcome.receipt.key)
        self._seal_s = outcome.seal_s
        self._put_s += (outcome.took_s - self._put_s) / _PUTS_REMEMBERED
        self._segments += 1
        self._bytes += piece.size_bytes

    def _prefix_moved(self) -> None:
        stored, now_s = self._prefix.acknowledged, time.monotonic()
        self._last_stored = self._stored_ends[stored]
        self._stored_ends = {end: last for end, last in self._stored_ends.items() if end > stored}
        lags_s: list[float] = []
        while self._arrivals and self._arrivals[0].end <= stored:
            lags_s.append(now_s - self._arrivals.popleft().at_s)
        self._lag_s = max(lags_s, default=self._lag_s)
        self._parts.metrics.lags(self._parts.dataset.name, lags_s)

    def _acknowledge(self) -> None:
        """Tell the source what is stored: at once when it moved or was asked for, and twice a second."""
        now_s, stored = time.monotonic(), self._prefix.acknowledged
        if stored == self._acknowledged and not self._reply_requested and now_s < self._status_due_s:
            return
        self._parts.stream.send_status(vaulted=stored, now=self._parts.clock())
        self._acknowledged, self._reply_requested = stored, False
        self._status_due_s = now_s + _STATUS_EVERY_S

    # -- the end ----------------------------------------------------------------------------------------------------

    def _drain_after(self, ended: BaseException, stop: threading.Event) -> None:
        """Store what was received though the capture fails; that failure stays the one to see, this one's is a note."""
        options = self._parts.options
        try:
            self._drain(options.give_up_s if isinstance(ended, SourceError) else options.stop_within_s, stop)
        except VaultError as error:
            if isinstance(ended, TimelineEndError):
                raise  # whoever followed the source now would leave a hole
            unstored = self._cutter.position - self._prefix.acknowledged
            ended.add_note(
                f"and {unstored} bytes of WAL that were received are not stored: {error.code}: {error.found}"
            )

    def _drain(self, patience_s: float, stop: threading.Event) -> None:
        """Store what was received, still answering the source, reading no more; a stop shortens the patience."""
        began_s, stopped_s = time.monotonic(), None
        while self._cutter.size_bytes or self._prefix.in_flight:
            now_s = time.monotonic()
            stopped_s = now_s if stopped_s is None and stop.is_set() else stopped_s
            if now_s > began_s + patience_s or (stopped_s or now_s) + self._parts.options.stop_within_s < now_s:
                raise VaultError(
                    "vault.too_slow_to_stop",
                    f"{self._cutter.position - self._prefix.acknowledged} bytes of WAL were not stored within "
                    f"{now_s - began_s:.0f} s",
                    "nothing is lost while the source lives: its slot keeps them for the next start",
                )
            self._cut(force=True)
            select.select([self._parts.putters], [], [], _TICK_S)
            self._take_outcomes()
            self._acknowledge()
            self._tell()

    def _end_stream(self) -> None:
        self._acknowledge()
        connection = self._parts.stream.connection
        if connection is None:
            return
        try:
            connection.end_stream(timeout_s=5)
        except ConnectionLostError:
            pass  # it was to end anyway; what was acknowledged is stored
        finally:
            self._parts.stream.close()

    # -- telling ----------------------------------------------------------------------------------------------------

    def _anchor(self) -> Anchor:
        identity, (header, segment) = self._parts.identity, self._last_stored
        stored = self._prefix.acknowledged
        at = self._stored_marks.at_position(stored)
        return Anchor(
            identity.system_id, identity.timeline, self._begin, stored, header, segment, self._epoch, at
        )  # fmt: skip

    def _record_position(self) -> None:
        """Leave an anchor every few minutes, so that nobody has to walk far to find the chain's end."""
        now_s = time.monotonic()
        if now_s < self._fact_due_s or not self._parts.facts.is_idle:
            return
        self._fact_due_s = now_s + self._parts.options.position_fact_every_s
        anchor = self._anchor()
        self._parts.facts.give(lambda: self._record("position", anchor))

    def _record(self, event: Event, anchor: Anchor) -> None:
        """An anchor saves time only: a vault that is away is told in the report, and tried again at the next one."""
        try:
            record_capture(self._parts.vault, self._parts.dataset.name, event, anchor)
        except VaultError as error:
            self._fact_trouble = f"{error.code}: {error.found}"
        else:
            self._fact_trouble = None

    def _tell(self) -> None:
        """Report every few seconds, and at once when something other than a number changed."""
        now_s, slot, trouble = time.monotonic(), self._parts.watch.newest.slot, self._trouble()
        warnings, durability = self._warnings(now_s, slot), self._durability()
        told = (self._state, trouble, slot and (slot.wal_status, slot.active), durability, len(warnings))
        if told == self._told and now_s < self._report_due_s:
            return
        self._told, self._report_due_s = told, now_s + self._parts.options.report_every_s
        report = self._report(now_s, trouble, warnings, durability)
        self._parts.metrics.reported(report)
        listener = self._parts.listener
        if listener is not None:
            self._parts.listening.give(lambda: listener(report))

    def _trouble(self) -> str | None:
        parts = self._parts
        guard = (parts.guard and parts.guard.newest.trouble, parts.durability and parts.durability.trouble)
        vault = parts.putters.trouble or parts.putters.silence()
        troubles = (parts.stream.trouble, vault, parts.watch.newest.trouble, self._fact_trouble, *guard)
        return "; ".join(trouble for trouble in troubles if trouble) or None

    def _durability(self) -> Durability:
        return "asynchronous" if self._parts.guard is None else self._parts.guard.newest.mode

    def _warnings(self, now_s: float, slot: SlotStatus | None) -> tuple[str, ...]:
        warnings = self._parts.standbys.warnings
        if self._parts.guard is not None:
            warnings += self._parts.guard.newest.warnings
        if slot is not None and (self._slot_seen is None or self._slot_seen[0] is not slot):
            self._slot_seen = (slot, self._room.look(slot, now_s))
        alarm = None if self._slot_seen is None else self._slot_seen[1].alarm()
        spool = None if self._parts.spooling is None else self._parts.spooling.warning()
        keys = self._parts.vault.keys.stale_warning(self._parts.dataset.name)
        return (*warnings, *(said for said in (alarm, spool, keys) if said is not None))

    def _report(
        self, now_s: float, trouble: str | None, warnings: tuple[str, ...], durability: Durability
    ) -> CaptureReport:
        parts, now = self._parts, self._parts.clock()
        stored = self._prefix.acknowledged
        at = self._stored_marks.at_position(stored)
        watched = parts.watch.newest
        return CaptureReport(
            dataset=parts.dataset.name,
            state=self._state,
            at=now,
            system_id=parts.identity.system_id,
            timeline=parts.identity.timeline,
            writer_epoch=self._epoch,
            stored_lsn=stored,
            received_lsn=self._cutter.position,
            server_lsn=self._server_lsn,
            recovery_point_at=at,
            age_s=None if at is None else max(0.0, (now + watched.clock_offset - at).total_seconds()),
            lag_s=self._lag_s,
            linger_s=self._cutter.linger_s,
            seal_s=self._seal_s,
            slowest_put_s=parts.putters.slowest_put_s(now_s),
            in_flight_pieces=self._prefix.in_flight,
            in_flight_bytes=self._prefix.announced - stored,
            segments_stored=self._segments,
            bytes_stored=self._bytes,
            upload_errors=parts.putters.upload_errors,
            slot=watched.slot,
            trouble=trouble,
            durability=durability,
            durability_since=None if parts.guard is None else parts.guard.newest.since,
            durability_reason=None if parts.guard is None else parts.guard.newest.reason,
            spooled_bytes=0 if parts.spooling is None else parts.spooling.folder.size_bytes,
            spool_max_bytes=0 if parts.spooling is None else parts.spooling.folder.max_bytes,
            slot_room=None if self._slot_seen is None else self._slot_seen[1],
            warnings=warnings,
        )
