"""Capturing a cluster's topics into the vault: the phases of one run.

What belongs here: the order in which a capture starts, stands by, and ends. What stays out: being the one owner
(owner.py), the loop itself (capture_loop.py).

Nothing is written before we own the dataset; then the chain's end is looked for, since another capture may have been
storing until a moment ago. Whoever is fenced stands by and begins by the very steps of a start.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.model import TopicsDataset
from dr_assets.stores.kafka.book import Book, Cursor
from dr_assets.stores.kafka.capture_facts import Anchor, record_capture
from dr_assets.stores.kafka.capture_loop import CaptureLoop, KafkaCaptureOptions, LoopParts
from dr_assets.stores.kafka.fetcher import Fetcher, Reach
from dr_assets.stores.kafka.inbox import Inbox
from dr_assets.stores.kafka.keeper import Keeper
from dr_assets.stores.kafka.owner import Owner, group_of
from dr_assets.stores.kafka.pack import Pack
from dr_assets.stores.kafka.registry import Registry
from dr_assets.stores.kafka.report import KafkaCaptureReport, KafkaState
from dr_assets.stores.kafka.resume import StoredEnd, find_stored_end
from dr_assets.stores.kafka.survey import Survey
from dr_assets.stores.kafka.surveyed import surveyed
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.sealing.aside import Aside
from dr_assets.stores.sealing.metrics import CaptureMetrics, NoMetrics
from dr_assets.stores.sealing.putters import Putters
from dr_assets.vault.format.pack import Row
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")

__all__ = ["KafkaCapture", "KafkaCaptureOptions", "KafkaCaptureReport"]


class KafkaCapture:
    """The capture of one dataset; run it once.

    `listener` gets a report every few seconds and whenever something but a number changed, in a thread of its own;
    what it raises ends the capture. `cluster` is not closed. `registry` is the URL of a schema registry.
    """

    def __init__(
        self, vault: Vault, dataset: TopicsDataset, cluster: Cluster, *, registry: str | None = None,
        clock: Callable[[], datetime] | None = None, listener: Callable[[KafkaCaptureReport], None] | None = None,
        metrics: CaptureMetrics[KafkaCaptureReport] | None = None, options: KafkaCaptureOptions | None = None,
    ) -> None:  # fmt: skip
        self._vault = vault
        self._dataset = dataset
        self._options = options or KafkaCaptureOptions()
        self._cluster = cluster.with_patience(self._options.patience_s)
        self._registry = registry
        self._clock = clock or vault.clock
        self._listener = listener
        self._metrics = metrics or NoMetrics()

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop` is set; then everything fetched is stored and on record.

        Raises SourceError when the cluster refuses us (`kafka.auth`, `kafka.denied`, `kafka.owned`), VaultError when
        the vault takes nothing any more. Brokers that are away are waited for, leaders that move are followed.
        """
        if self._vault.signer is None:
            raise PolicyError(
                "vault.read_only", "this vault was opened without a signing key", "a capture needs one: signing=True"
            )
        keep_freed_memory()
        self._vault.check_clock()
        self._vault.keys.for_writing(self._dataset.name)
        while not stop.is_set():
            try:
                self._own_and_capture(stop)
            except SourceError as error:
                if error.code != "kafka.fenced" or not self._options.stand_by:
                    raise
                log.warning("%s: %s", self._dataset.name, error.found)

    def _own_and_capture(self, stop: threading.Event) -> None:
        owner = Owner(
            self._cluster, group_of(self._vault.estate, self._dataset.name), session_s=self._options.session_s
        )
        try:
            if owner.take(stop.is_set, self._tell_standby, stand_by=self._options.stand_by):
                self._stream(owner, stop)
        finally:
            owner.close()

    def _stream(self, owner: Owner, stop: threading.Event) -> None:
        system_id, name = self._cluster.system_id, self._dataset.name
        end = find_stored_end(self._vault, name, system_id) or StoredEnd(0, 0, None, None, 0, None, {}, {})
        end = replace(end, rows={key: row for key, row in end.rows.items() if self._covers(end, row)})
        epoch = end.writer_epoch + 1
        with self._parts(owner, end) as parts:
            started = Anchor(system_id, end.begin, end.end, end.header, end.segment, epoch, end.recovery_point_at)
            record_capture(self._vault, name, "started", started)
            parts.keeper.start()
            parts.survey.start()
            CaptureLoop(parts, end, epoch).run(stop)

    def _covers(self, end: StoredEnd, row: Row) -> bool:
        """Whether a stream is still declared: one that is left out holds the recovery point back no more."""
        return self._dataset.covers(end.topics[row.topic_id])

    @contextmanager
    def _parts(self, owner: Owner, end: StoredEnd) -> Iterator[LoopParts]:
        name, options = self._dataset.name, self._options
        with ExitStack() as stack:
            putters: Putters[Pack] = Putters(
                self._vault, dataset=name,
                lock_of=lambda: self._vault.locks.lock(name, "pack", self._vault.clock()), count=options.putters,
                give_up_s=options.give_up_s, is_only_copy=lambda: False, metrics=self._metrics,
            )  # fmt: skip
            stack.callback(putters.close)
            inbox = Inbox(options.in_flight_cap_bytes, putters.wake)
            stack.callback(inbox.close)
            book = Book(Cursor.of(row, end.topics[row.topic_id]) for row in end.rows.values())
            survey, keeper = self._watchers(book, inbox, end)
            stack.callback(survey.stop)
            stack.callback(keeper.stop)
            facts, listening = (stack.enter_context(Aside(f"{work}-{name}")) for work in ("facts", "listen"))
            yield LoopParts(
                vault=self._vault, dataset=self._dataset, system_id=self._cluster.system_id,
                cluster_id=self._cluster.cluster_id, book=book, keeper=keeper, owner=owner, survey=survey, inbox=inbox,
                putters=putters, facts=facts, listening=listening, listener=self._listener, metrics=self._metrics,
                clock=self._clock, options=options,
            )  # fmt: skip

    def _watchers(self, book: Book, inbox: Inbox, end: StoredEnd) -> tuple[Survey, Keeper]:
        """Those that look after the cluster; each knows the other by what it can tell."""
        reach = Reach(max_wait_s=self._dataset.linger.total_seconds() / 2)

        def fetcher(node: int) -> Fetcher:
            return Fetcher(
                node, self._cluster, book, reach=reach, clock=self._clock, deliver=inbox.deliver,
                wanted=lambda: keeper.want(),  # noqa: PLW0108 - the keeper is made below
            )  # fmt: skip

        survey = Survey(
            self._cluster, self._vault, self._dataset, topics=lambda: keeper.topics,
            registry=None if self._registry is None else Registry(self._registry),
            every_s=self._options.survey_every_s,
        )  # fmt: skip
        keeper = Keeper(
            self._cluster, self._vault, self._dataset.name, book, covers=self._dataset.covers,
            topics={row.topic_id: end.topics[row.topic_id] for row in end.rows.values()},
            before=surveyed(self._vault, self._dataset.name).topics.keys() | end.topics.keys(),
            compacted_every=self._dataset.compacted_every, is_compacted=survey.is_compacted, fetcher=fetcher,
            tell=inbox.tell, clock=self._clock,
        )  # fmt: skip
        return survey, keeper

    def _tell_standby(self, trouble: str | None) -> None:
        """No loop runs that could report."""
        if self._listener is not None:
            report = _standby(self._dataset, self._cluster.system_id, self._clock())
            state: KafkaState = "standby" if trouble is None else "reconnecting"
            self._listener(replace(report, state=state, trouble=trouble))


def _standby(dataset: TopicsDataset, system_id: str, now: datetime) -> KafkaCaptureReport:
    return KafkaCaptureReport(
        dataset=dataset.name, state="standby", at=now, system_id=system_id, writer_epoch=0, stored=0, topics=0,
        streams=0, recovery_point_at=None, age_s=None, lag_s=None, linger_s=dataset.linger.total_seconds(), seal_s=0.0,
        slowest_put_s=0.0, behind_records=0, in_flight_packs=0, in_flight_bytes=0, packs_stored=0, records_stored=0,
        bytes_stored=0, upload_errors=0, throttled_s=0.0, gaps=0, trouble=None,
    )  # fmt: skip
