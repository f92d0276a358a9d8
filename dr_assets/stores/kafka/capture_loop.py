"""The Kafka capture's main loop: batches in, packs out to the putters, the stored prefix into facts and reports.

What belongs here: one round of the loop and its order. What stays out: how it begins (capture.py), the threads that
fetch and keep (fetcher.py, keeper.py), the cut (pack.py), the puts (sealing/putters.py).

Everything here runs in one thread and waits for neither brokers nor the vault. The order that must hold: seal, put,
read back, extend the prefix, say so. Nothing is told to Kafka: what was stored is known by the vault alone.
"""

import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.estate.model import TopicsDataset
from dr_assets.stores.kafka.book import Book
from dr_assets.stores.kafka.capture_facts import TIMELINE, Anchor, Event, record_capture
from dr_assets.stores.kafka.catalogue import CATALOGUE_EVERY, Cataloguer
from dr_assets.stores.kafka.fetcher import Brought
from dr_assets.stores.kafka.inbox import Inbox
from dr_assets.stores.kafka.keeper import Begun, Ended, Keeper
from dr_assets.stores.kafka.ledger import Ledger
from dr_assets.stores.kafka.owner import Owner
from dr_assets.stores.kafka.pack import TABLE_EVERY, Cutter, Pack
from dr_assets.stores.kafka.report import KafkaCaptureReport, KafkaState
from dr_assets.stores.kafka.resume import PARTITIONS, RECOVERY_POINT_AT, TOPICS, StoredEnd
from dr_assets.stores.kafka.survey import Survey
from dr_assets.stores.sealing.aside import Aside
from dr_assets.stores.sealing.linked import Chain
from dr_assets.stores.sealing.metrics import CaptureMetrics
from dr_assets.stores.sealing.putters import Failed, Putters, Stored
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.keys import PACKS
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, ContiguousPrefix, format_position
from dr_assets.vault.vault import Vault

_TICK_S: Final = 0.25
_LAGS_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class KafkaCaptureOptions:
    """How a capture behaves; the linger is the dataset's.

    `in_flight_cap_bytes` bounds what is fetched and not yet stored. `heartbeat_every_s` is how often an idle dataset
    says that it is up to date. `give_up_s` is how long a put is tried before the capture ends with the vault's error.
    `patience_s` is how long one question is put to brokers that are away; all of them are put again. `stand_by`: wait
    while another capture owns the dataset; else that is refused. `catalogue_every`: packs from a catalogue to the next.
    """

    report_every_s: float = 5.0
    position_fact_every_s: float = 300.0
    heartbeat_every_s: float = 10.0
    survey_every_s: float = 5.0
    putters: int = 6
    in_flight_cap_bytes: int = 96 << 20
    give_up_s: float = 3600.0
    stop_within_s: float = 30.0
    patience_s: float = 3.0
    session_s: float = 10.0
    stand_by: bool = True
    catalogue_every: int = CATALOGUE_EVERY


@dataclass(frozen=True, slots=True)
class LoopParts:
    """What a loop is put together from; it closes none of it."""

    vault: Vault
    dataset: TopicsDataset
    system_id: str
    cluster_id: str
    book: Book
    keeper: Keeper
    owner: Owner
    survey: Survey
    inbox: Inbox
    putters: Putters[Pack]
    facts: Aside
    listening: Aside
    listener: Callable[[KafkaCaptureReport], None] | None
    metrics: CaptureMetrics[KafkaCaptureReport]
    clock: Callable[[], datetime]
    options: KafkaCaptureOptions


@dataclass(slots=True)
class _Totals:
    packs: int = 0
    records: int = 0
    size_bytes: int = 0
    lag_s: float | None = None
    seal_s: float = 0.0


@dataclass(slots=True)
class _Due:
    """When what is done now and then is done next, by the monotonic clock."""

    report_s: float = 0.0
    fact_s: float = 0.0
    heartbeat_s: float = 0.0
    told: tuple[object, ...] = field(default_factory=tuple)


class CaptureLoop:
    """One run of a capture from the moment it owns its dataset."""

    def __init__(self, parts: LoopParts, end: StoredEnd, writer_epoch: int) -> None:
        self._parts = parts
        self._epoch = writer_epoch
        self._begin = end.begin
        # Half of the linger is the broker's, which gathers for us; the rest is ours.
        self._cutter = Cutter(parts.cluster_id, end.end, parts.dataset.linger.total_seconds() / 2)
        self._ledger = Ledger(dict(end.rows), dict(end.topics))
        self._prefix = ContiguousPrefix(end.end)
        self._chain = Chain(end.header)
        self._last_stored = (end.header, end.segment)
        self._stored: dict[int, Stored[Pack]] = {}
        self._catalogue = Cataloguer(parts.vault, parts.dataset.name, parts.options.catalogue_every)
        self._recovery_point_at = end.recovery_point_at
        self._told_recovery_point = end.recovery_point_at
        self._table_due = 0
        self._totals = _Totals()
        self._due = _Due(fact_s=time.monotonic() + parts.options.position_fact_every_s)
        self._fact_trouble: str | None = None
        self._state: KafkaState = "streaming"

    @property
    def stored(self) -> int:
        """The number behind the last pack that was read back with all before it."""
        return self._prefix.acknowledged

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop`, then store what was fetched.

        Raises SourceError when going on is impossible, among them `kafka.fenced` when another capture has taken over,
        VaultError when a put was given up, and what the listener raised.
        """
        ended: BaseException | None = None
        while ended is None and not stop.is_set():
            self._round()
            ended = self._failed_beside()
        fenced = isinstance(ended, SourceError) and ended.code == "kafka.fenced"
        if not fenced:
            self._drain_after(ended)
        if ended is not None:
            raise ended
        self._state = "stopped"
        self._give_catalogue(at_end=True)
        record_capture(self._parts.vault, self._parts.dataset.name, "stopped", self._anchor())
        self._tell()

    def _failed_beside(self) -> BaseException | None:
        parts = self._parts
        keeping = parts.keeper.error or parts.keeper.fetcher_error()
        return parts.owner.error or keeping or parts.survey.error or parts.listening.error or parts.facts.error

    def _round(self) -> None:
        self._wait()
        self._take_outcomes()
        self._take_in()
        self._cut(force=False)
        self._record_position()
        self._give_catalogue(at_end=False)
        self._tell()

    def _wait(self) -> None:
        """Until something is there to do, at most one tick, so that a stop is seen."""
        due_s = self._cutter.due_in_s(time.monotonic())
        timeout_s = _TICK_S if due_s is None or not self._parts.putters.has_idle else min(_TICK_S, due_s)
        select.select([self._parts.putters], [], [], timeout_s)

    # -- the way in -------------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Take what was brought and told, in order, until the pack is full."""
        while not self._cutter.is_full:
            item = self._parts.inbox.take()
            if item is None:
                return
            if isinstance(item, Brought):
                self._take_brought(item)
            elif isinstance(item, Begun):
                self._ledger.begin(item)
            elif isinstance(item, Ended):
                self._ledger.end(item)
            else:
                self._ledger.look(item)

    def _take_brought(self, brought: Brought) -> None:
        at = self._parts.clock() if brought.parts else brought.asked_at
        for part in brought.parts:
            if self._ledger.add(part):
                self._cutter.add(part, brought.at_s, at)
            else:
                self._parts.inbox.free(len(part.batches))
        for stream in self._ledger.reach(brought):
            self._parts.book.drop(stream)
        if brought.parts:
            self._parts.metrics.received(self._parts.dataset.name, brought.size_bytes)

    # -- the way out ------------------------------------------------------------------------------------------------

    def _cut(self, *, force: bool) -> None:
        """Hand the pack to a putter when it is due and one is idle; else it goes on growing."""
        now_s = time.monotonic()
        due_s = self._cutter.due_in_s(now_s)
        is_due = due_s is not None and (due_s == 0.0 or force)
        if not self._parts.putters.has_idle or not (is_due or self._ledger.changed or self._heartbeat_is_due(now_s)):
            return
        self._parts.owner.require()
        if not self._parts.owner.may_write():
            return
        table = None
        if self._ledger.changed or self._cutter.number >= self._table_due:
            table, self._table_due = self._ledger.table(), self._cutter.number + TABLE_EVERY
            self._ledger.changed = False
        at = self._ledger.recovery_point()
        self._recovery_point_at = max(filter(None, (at, self._recovery_point_at)), default=None)
        self._due.heartbeat_s = now_s + self._heartbeat_every_s()
        self._submit(self._cutter.cut(self._ledger.topics, table, self._parts.clock(), self._recovery_point_at))

    def _heartbeat_is_due(self, now_s: float) -> bool:
        """Idle topics write nothing: one empty pack for all of them says that nothing is missing."""
        at = self._ledger.recovery_point()
        return now_s >= self._due.heartbeat_s and at is not None and at != self._recovery_point_at

    def _heartbeat_every_s(self) -> float:
        quarter: timedelta = self._parts.dataset.rpo / 4
        return min(self._parts.options.heartbeat_every_s, quarter.total_seconds())

    def _submit(self, pack: Pack) -> None:
        at = pack.recovery_point_at
        prepare = partial(
            self._parts.vault.prepare,
            dataset=self._parts.dataset.name,
            stream=PACKS,
            kind="pack",
            system_id=self._parts.system_id,
            timeline=TIMELINE,
            first=pack.begin,
            last=pack.end,
            begin_at=pack.begin_at,
            end_at=pack.end_at,
            writer_epoch=self._epoch,
            extra={
                ACKNOWLEDGED_TO: format_position(self._prefix.acknowledged),
                TOPICS: str(self._ledger.topics_count),
                PARTITIONS: str(self._ledger.partitions_count),
                **({} if at is None else {RECOVERY_POINT_AT: format_time(at)}),
            },
        )
        linked = self._chain.link(
            pack.data,
            lambda plaintext, sha256, previous: prepare(
                plaintext=plaintext, plaintext_sha256=sha256, previous=previous
            ),
        )
        self._prefix.begin(pack.begin, pack.end)
        self._parts.putters.submit(linked, pack)

    def _take_outcomes(self) -> None:
        before = self._prefix.acknowledged
        for outcome in self._parts.putters.outcomes():
            if isinstance(outcome, Failed):
                raise outcome.error
            self._stored[outcome.piece.begin] = outcome
            self._prefix.done(outcome.piece.begin)
            self._totals.seal_s = outcome.seal_s
            self._parts.inbox.free(sum(each.size_bytes for each in outcome.piece.index.slices))
        for number in range(before, self._prefix.acknowledged):
            self._count_stored(self._stored.pop(number))

    def _count_stored(self, outcome: Stored[Pack]) -> None:
        pack, totals = outcome.piece, self._totals
        self._catalogue.take(outcome, self._last_stored[0], self._epoch)
        self._last_stored = (outcome.header_digest, str(outcome.receipt.key))
        self._told_recovery_point = pack.recovery_point_at or self._told_recovery_point
        totals.packs += 1
        totals.size_bytes += pack.size_bytes
        totals.records += sum(each.count for each in pack.index.slices)
        now_s = time.monotonic()
        lags_s = [now_s - arrival.at_s for arrival in pack.arrivals[:_LAGS_KEPT]]
        totals.lag_s = max(lags_s, default=totals.lag_s)
        self._parts.metrics.lags(self._parts.dataset.name, lags_s)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _drain_after(self, ended: BaseException | None) -> None:
        """Store what was fetched; a capture that fails for another reason keeps that one to be seen."""
        self._parts.inbox.close()
        try:
            self._drain()
        except VaultError as error:
            if ended is None:
                raise
            ended.add_note(f"and what was fetched is not all stored: {error.code}: {error.found}")

    def _drain(self) -> None:
        began_s = time.monotonic()
        self._take_in()
        while self._cutter.size_bytes or self._prefix.in_flight:
            if time.monotonic() > began_s + self._parts.options.stop_within_s:
                raise VaultError(
                    "vault.too_slow_to_stop",
                    f"{self._parts.inbox.held_bytes} bytes of batches were not stored within "
                    f"{self._parts.options.stop_within_s:g} s",
                    "nothing is lost while the topics keep them: the next start fetches them again",
                )
            self._cut(force=True)
            select.select([self._parts.putters], [], [], _TICK_S)
            self._take_outcomes()
            self._take_in()
            self._tell()

    # -- telling ----------------------------------------------------------------------------------------------------

    def _anchor(self) -> Anchor:
        header, segment = self._last_stored
        return Anchor(
            self._parts.system_id, self._begin, self._prefix.acknowledged, header, segment, self._epoch,
            self._told_recovery_point,
        )  # fmt: skip

    def _record_position(self) -> None:
        """Leave an anchor every few minutes, so that nobody has to walk far to find the chain's end."""
        now_s = time.monotonic()
        if now_s < self._due.fact_s or not self._parts.facts.is_idle:
            return
        self._due.fact_s = now_s + self._parts.options.position_fact_every_s
        anchor = self._anchor()
        self._parts.facts.give(lambda: self._record("position", anchor))

    def _give_catalogue(self, *, at_end: bool) -> None:
        """Now and then what the packs say is put as one object, so that readers need not open each of them."""
        catalogue = self._catalogue
        if self._parts.facts.is_idle and (catalogue.is_due or (at_end and catalogue.is_worth_while)):
            rows = catalogue.cut()
            self._parts.facts.give(lambda: catalogue.seal(rows))

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
        now_s, trouble = time.monotonic(), self._trouble()
        if self._state != "stopped":
            self._state = "reconnecting" if self._parts.keeper.trouble else "streaming"
        told = (self._state, trouble, self._ledger.gaps)
        if told == self._due.told and now_s < self._due.report_s:
            return
        self._due.told, self._due.report_s = told, now_s + self._parts.options.report_every_s
        report = self._report(now_s, trouble)
        self._parts.metrics.reported(report)
        listener = self._parts.listener
        if listener is not None:
            self._parts.listening.give(lambda: listener(report))

    def _trouble(self) -> str | None:
        parts = self._parts
        vault = parts.putters.trouble or parts.putters.silence()
        troubles = (parts.keeper.trouble, parts.owner.trouble, vault, parts.survey.trouble, self._fact_trouble)
        beside = self._catalogue.trouble
        return "; ".join(trouble for trouble in (*troubles, beside) if trouble) or None

    def _report(self, now_s: float, trouble: str | None) -> KafkaCaptureReport:
        parts, now, totals = self._parts, self._parts.clock(), self._totals
        at = self._told_recovery_point
        cursors = parts.book.streams().values()
        stale = parts.vault.keys.stale_warning(parts.dataset.name)
        keys = () if stale is None else (stale,)
        return KafkaCaptureReport(
            dataset=parts.dataset.name,
            state=self._state,
            at=now,
            system_id=parts.system_id,
            writer_epoch=self._epoch,
            stored=self._prefix.acknowledged,
            topics=self._ledger.topics_count,
            streams=len(self._ledger.rows),
            recovery_point_at=at,
            age_s=None if at is None else max(0.0, (now - at).total_seconds()),
            lag_s=totals.lag_s,
            linger_s=parts.dataset.linger.total_seconds(),
            seal_s=totals.seal_s,
            slowest_put_s=parts.putters.slowest_put_s(now_s),
            behind_records=sum(max(0, cursor.high_watermark - cursor.offset) for cursor in cursors),
            in_flight_packs=self._prefix.in_flight,
            in_flight_bytes=parts.inbox.held_bytes,
            packs_stored=totals.packs,
            records_stored=totals.records,
            bytes_stored=totals.size_bytes,
            upload_errors=parts.putters.upload_errors,
            throttled_s=parts.keeper.throttled_s,
            gaps=self._ledger.gaps,
            trouble=trouble,
            warnings=(*keys, *parts.survey.warnings),
        )
