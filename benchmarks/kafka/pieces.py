"""The pieces of the benchmark: each measures some figures and adds its rows.

What belongs here: the order of runs (interleaved), the floors. What stays out: what a measured process does (child.py).
"""

import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from benchmarks.kafka import records
from benchmarks.kafka.place import Place
from benchmarks.kafka.rig import LiveChild, Rig, child
from benchmarks.kafka.watching import PackWatch, lags_s
from benchmarks.postgres.rows import Floor, Row, percentile, row

MB_S_FLOOR: Final = Floor("ours", at_least=100.0)
CPU_RATIO_FLOOR: Final = Floor("ratio", at_least=10.0)
LIVE_CPU_FLOOR: Final = Floor("ours", at_most=10.0)
LAG_FLOOR: Final = Floor("ours", at_most=2.0)
_ANSWER_S: Final = 120.0
_SETTLE_S: Final = 3.0


@dataclass
class Bench:
    """What is measured on, how much, how often; and the rows so far."""

    rig: Rig
    records: int
    runs: int
    live_s: float
    rate: int
    rows: list[Row] = field(default_factory=list)
    full: dict[str, str] = field(default_factory=dict)

    @property
    def mb(self) -> float:
        """The records' own size, in units of 10^6 bytes."""
        return self.records * records.RECORD_BYTES / 1e6

    def add(self, what: str, unit: str, ours: list[float], **more: Any) -> None:
        """A row, told at once."""
        made = row(what, unit, ours, versions=self.rig.versions, **more)
        self.rows.append(made)
        beside = "" if made.theirs is None else f", {made.against} {made.theirs:g} (x {made.ratio:g})"
        self.rig.tell(f"  {what}: {made.ours:g} {unit} {made.runs_ours}{beside}: {made.verdict}")

    def topic(self, codec: str) -> str:
        """A full topic of one partition, its batches compressed by the producer or not; made when first wanted."""
        if codec not in self.full:
            name = f"events-{codec}"
            client = self.rig.broker.client_config()
            records.make_topic(client, name)
            records.fill(client, name, self.records, compression=codec)
            self.full[codec] = name
        return self.full[codec]


def data(bench: Bench) -> None:
    """What the records are."""
    events = records.pool()
    for level in (1, 3):
        bench.add(f"data: compressibility by zstd-{level}", "x", [records.compressibility(events, level)])


def plain(bench: Bench) -> None:
    """Export, kafka-python's consumer and restore take turns over batches that the producer did not compress."""
    _export_and_restore(bench, "none")


def compressed(bench: Bench) -> None:
    """And over batches that it did."""
    _export_and_restore(bench, "zstd")


def _export_and_restore(bench: Bench, codec: str) -> None:
    topic = bench.topic(codec)
    taken: dict[str, list[dict[str, Any]]] = {"baseline": [], "export": [], "restore": []}
    for number in range(bench.runs):
        place = bench.rig.place(topic)
        taken["export"].append(child("export", place, records=bench.records))
        taken["baseline"].append(child("baseline", place, records=bench.records))
        target = f"back-{codec}-{number}"
        taken["restore"].append(child("restore", place, target=target))
        _delete(bench, target)
    _add_export(bench, codec, taken)
    _add_restore(bench, codec, taken["restore"])


def _add_export(bench: Bench, codec: str, taken: dict[str, list[dict[str, Any]]]) -> None:
    ours, theirs = taken["export"], taken["baseline"]
    batches = f"{bench.mb:.0f} MB of records, {ours[0]['bytes'] / 1e6:.0f} MB of batches (producer's codec: {codec})"
    sealed = "one partition; sealed, put, read back and on record"
    bench.add(
        f"export, codec {codec}", "MB/s", [bench.mb / one["wall_s"] for one in ours],
        against="kafka-python's consumer, nothing stored", theirs=[bench.mb / one["wall_s"] for one in theirs],
        floor=MB_S_FLOOR, note=f"{batches}; {sealed}",
    )  # fmt: skip
    bench.add(
        f"export, codec {codec}: records per CPU second", "1/s", [bench.records / one["cpu_s"] for one in ours],
        against="kafka-python's consumer, nothing stored", theirs=[bench.records / one["cpu_s"] for one in theirs],
        floor=CPU_RATIO_FLOOR, note=f"{batches}; {sealed}",
    )  # fmt: skip
    bench.add(f"export, codec {codec}: peak memory", "MiB", [one["peak_mib"] for one in ours])


def _add_restore(bench: Bench, codec: str, ours: list[dict[str, Any]]) -> None:
    if not all(one["identical"] for one in ours):
        raise SystemExit("a restore of a topic without holes was not offset-identical")
    note = f"opening the export, planning and configuring included; codec {codec}, offset-identical, one partition"
    bench.add(
        f"restore, codec {codec}", "MB/s", [bench.mb / one["wall_s"] for one in ours], floor=MB_S_FLOOR, note=note
    )
    bench.add(
        f"restore, codec {codec}: only the records", "MB/s", [bench.mb / one["phases_s"]["records"] for one in ours]
    )
    bench.add(f"restore, codec {codec}: records per CPU second", "1/s", [bench.records / one["cpu_s"] for one in ours])
    bench.add(f"restore, codec {codec}: peak memory", "MiB", [one["peak_mib"] for one in ours])


def live(bench: Bench) -> None:
    """A topic that is written at a steady rate while it is captured: processor time, and lag from made to locked."""
    shares, middles, tops, rates = [], [], [], []
    for number in range(bench.runs):
        name = f"live-{number}"
        records.make_topic(bench.rig.broker.client_config(), name)
        share, lags, rate = _live_run(bench, bench.rig.place(name))
        shares.append(share)
        middles.append(percentile(lags, 0.5))
        tops.append(percentile(lags, 0.99))
        rates.append(rate)
    load = f"{statistics.median(rates):.0f} records/s of {records.RECORD_BYTES} B for {bench.live_s:g} s, linger 500 ms"
    bench.add("live capture: one core", "%", shares, floor=LIVE_CPU_FLOOR, note=load)
    bench.add("live capture: produced to locked, p50", "s", middles, note=load)
    bench.add("live capture: produced to locked, p99", "s", tops, floor=LAG_FLOOR, note=load)


def _live_run(bench: Bench, place: Place) -> tuple[float, list[float], float]:
    """Per cent of a core in the window, every record's lag, the rate that was reached."""
    made: list[tuple[float, int]] = []
    client = bench.rig.broker.client_config()
    with PackWatch(place) as watch, LiveChild(place) as capture:
        capture.wait_ready()
        reached: list[float] = []
        seconds = _SETTLE_S + bench.live_s + _SETTLE_S
        producer = threading.Thread(
            target=lambda: reached.append(
                records.produce_live(
                    client, place.topics[0], bench.rate, seconds, lambda at_s, offset: made.append((at_s, offset))
                )
            )
        )
        producer.start()
        time.sleep(_SETTLE_S)
        begin_s, before_s = time.monotonic(), capture.cpu_s()
        time.sleep(bench.live_s)
        took_s, used_s = time.monotonic() - begin_s, capture.cpu_s() - before_s
        producer.join()
        time.sleep(_SETTLE_S)  # the last records get their pack
    inside = [one for one in made if begin_s <= one[0] <= begin_s + took_s]
    if not reached:
        raise SystemExit("the producer failed")
    return 100 * used_s / took_s, lags_s(inside, watch.stored()), reached[0]


def _delete(bench: Bench, topic: str) -> None:
    admin = AdminClient(dict(bench.rig.broker.client_config()))  # has to live until the answer is there
    admin.delete_topics([topic])[topic].result(_ANSWER_S)
