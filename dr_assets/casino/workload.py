"""The casino's traffic: seeded, rate-controlled, concurrent, and with its own record of every acknowledged commit.

What belongs here: starting, stopping and counting workers. What stays out: what one worker does (worker.py) and the
process around it (__main__.py).
"""

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dr_assets.casino.acks import AckLog
from dr_assets.casino.crm import CrmSync
from dr_assets.casino.events import Publisher, create_topics
from dr_assets.casino.moves import Chooser
from dr_assets.casino.outsiders import OutsideLog
from dr_assets.casino.pace import Pace
from dr_assets.casino.relay import Relay
from dr_assets.casino.session import Session
from dr_assets.casino.source import connect
from dr_assets.casino.worker import Worker
from dr_assets.estate.errors import PolicyError, SourceError

_STOP_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Stats:
    """Totals since the start, and rate and latencies since the previous `stats()` call."""

    run: str
    elapsed_s: float
    acknowledged: int
    warned: int  # committed with a WARNING: a cancelled wait for a synchronous standby promises nothing
    replayed: int  # answered when repeated: read from what was there, which waits for no standby
    refused: dict[str, int]
    unknown: int
    shed: int
    published: int
    relay_refused: dict[str, int]
    crm_synced: int
    crm_refused: dict[str, int]
    workers_alive: int
    source_lost: bool
    rate_per_s: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    backlog_s: float
    cpu_share: float  # this process's CPU seconds per second of wall clock: near 1.0 the GIL is the bound


class Workload:
    """Traffic on the casino at `dsn`; acknowledged commits and what outsiders know are recorded under `ack_dir`.

    `rate_per_s` is offered load over all `workers` (an open loop: see Pace). Without `reconnect` a worker ends when the
    server is gone; with it, it comes back and repeats the attempt whose outcome it doesn't know, under the same key.
    With `brokers` (bootstrap addresses) the outbox is published to Kafka, and what it acknowledged recorded as well.
    """

    def __init__(
        self,
        dsn: str,
        ack_dir: Path,
        rate_per_s: float = 400,
        workers: int = 8,
        seed: int = 1,
        *,
        reconnect: bool = False,
        brokers: str | None = None,
    ) -> None:
        if rate_per_s <= 0 or workers < 1:
            raise PolicyError(
                "casino.workload",
                f"a workload of {workers} workers at {rate_per_s}/s does nothing",
                "give at least one worker and a rate above zero",
            )
        self._dsn = dsn
        self._ack_dir = ack_dir
        self._rate_per_s = rate_per_s
        self._seed = seed
        self._worker_count = workers
        self._reconnect = reconnect
        self._brokers = brokers
        self._stop = threading.Event()
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self.run_id = f"{time.time_ns():x}-{os.getpid()}"

    def start(self) -> None:
        """Connect everything, then let the traffic begin. Raises SourceError when casino or broker is not there."""
        self._ack_dir.mkdir(parents=True, exist_ok=True)
        wallets = _wallets(self._dsn)
        self._started_s = self._sampled_s = time.monotonic()
        self._sampled = 0
        self._cpu_s = time.process_time()
        self._workers = [self._new_worker(number, wallets) for number in range(self._worker_count)]
        self._relay = Relay(self._new_session(), self._stop, self._new_publisher())
        self._crm = self._new_crm(wallets)
        for runner in self._runners():
            thread = threading.Thread(target=self._guard, args=(runner,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _new_session(self) -> Session:
        return Session(self._dsn, self._stop, reconnect=self._reconnect)

    def _new_publisher(self) -> Publisher | None:
        if self._brokers is None:
            return None
        create_topics(self._brokers)
        return Publisher(self._brokers, self._ack_dir / f"{self.run_id}.events")

    def _new_crm(self, wallets: list[tuple[int, str]]) -> CrmSync:
        players = sorted({player_id for player_id, _ in wallets})
        return CrmSync(self._new_session(), self._stop, random.Random(f"crm {self._seed}"), players)

    def _new_worker(self, number: int, wallets: list[tuple[int, str]]) -> Worker:
        log, outside = AckLog(self._ack_dir, self.run_id, number), OutsideLog(self._ack_dir, self.run_id, number)
        chooser = Chooser(random.Random(f"moves {self._seed} {number}"), wallets, f"{self.run_id}-")
        pace = Pace(
            self._rate_per_s / self._worker_count,
            random.Random(f"pace {self._seed} {number}"),
            start_s=self._started_s,
        )
        return Worker(self._new_session(), log, outside, chooser, pace, self._stop)

    def _runners(self) -> list[Worker | Relay | CrmSync]:
        return [*self._workers, self._relay, self._crm]

    def _guard(self, runner: Worker | Relay | CrmSync) -> None:
        """A bug in one thread ends the workload instead of thinning it out unnoticed; `stop` raises it."""
        try:
            runner.run()
        except BaseException as error:  # noqa: BLE001 - kept and raised by stop(), in the thread that can be seen
            self._failures.append(error)
            self._stop.set()

    @property
    def running(self) -> bool:
        """Whether any worker still makes traffic."""
        return any(thread.is_alive() for thread in self._threads[: self._worker_count])

    def stop(self) -> Stats:
        """Finish the transactions under way, end all threads, return the last stats. Raises what a thread died of."""
        self._stop.set()
        if not self._join(_STOP_PATIENCE_S):  # a statement hangs: have the server end it
            for runner in self._runners():
                try:
                    runner.session.cancel()
                except psycopg.Error:
                    continue  # that server is gone; its worker ends by itself
            self._join(_STOP_PATIENCE_S)
        if self._failures:
            raise self._failures[0]
        return self.stats()

    def _join(self, patience_s: float) -> bool:
        end_s = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def stats(self) -> Stats:
        """Counts as of now."""
        now_s, cpu_s = time.monotonic(), time.process_time()
        interval_s = max(now_s - self._sampled_s, 1e-6)
        acknowledged = sum(worker.acknowledged for worker in self._workers)
        latencies_ms = sorted(1000 * value for worker in self._workers for value in _drain(worker))
        refused: Counter[str] = Counter()
        for worker in self._workers:
            refused.update(dict(worker.refused))
        stats = Stats(
            run=self.run_id,
            elapsed_s=round(now_s - self._started_s, 3),
            acknowledged=acknowledged,
            warned=sum(worker.warned for worker in self._workers),
            replayed=sum(worker.replayed for worker in self._workers),
            refused=dict(refused),
            unknown=sum(worker.unknown for worker in self._workers),
            shed=sum(worker.shed for worker in self._workers),
            published=self._relay.published,
            relay_refused=dict(self._relay.refused),
            crm_synced=self._crm.synced,
            crm_refused=dict(self._crm.refused),
            workers_alive=sum(thread.is_alive() for thread in self._threads[: self._worker_count]),
            source_lost=any(worker.source_lost for worker in self._workers),
            rate_per_s=round((acknowledged - self._sampled) / interval_s, 1),
            latency_p50_ms=_quantile(latencies_ms, 0.5),
            latency_p99_ms=_quantile(latencies_ms, 0.99),
            backlog_s=round(max((worker.backlog_s for worker in self._workers), default=0.0), 3),
            cpu_share=round((cpu_s - self._cpu_s) / interval_s, 3),
        )
        self._sampled_s, self._sampled, self._cpu_s = now_s, acknowledged, cpu_s
        return stats


def _wallets(dsn: str) -> list[tuple[int, str]]:
    try:
        with connect(dsn) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(
                "SELECT player_id, currency FROM casino.accounts WHERE kind = 'player_cash' ORDER BY account_id"
            ).fetchall()
    except psycopg.errors.UndefinedTable:
        rows = []
    if not rows:
        raise SourceError(
            "casino.missing", "this database has no casino with players", "create it first: casino.schema.create"
        )
    return [(player_id, currency) for player_id, currency in rows]


def _drain(worker: Worker) -> list[float]:
    """Take the latencies out while the worker goes on appending: popleft is the only call that never loses one."""
    return [worker.latencies_s.popleft() for _ in range(len(worker.latencies_s))]


def _quantile(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(len(values) * share))], 2) if values else None
