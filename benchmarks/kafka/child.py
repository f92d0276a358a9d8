"""One measured process: `python -m benchmarks.kafka.child WHAT`, its orders as JSON on standard input.

What belongs here: doing one thing and saying how long it took and what it cost this process. What stays out: the
broker, the store, rows. The interpreter's start is not in any figure.
"""

import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.kafka.place import DATASET, Place
from dr_assets.stores.kafka.capture import KafkaCapture, KafkaCaptureOptions, KafkaCaptureReport
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.wire import Cluster

_GIVE_UP_S: Final = 600.0


class Cost:
    """Seconds and processor seconds of this process since it was made."""

    def __init__(self) -> None:
        self._begin_s, self._cpu_s = time.monotonic(), _cpu_s()

    def so_far(self) -> dict[str, float]:
        """Both."""
        return {"wall_s": time.monotonic() - self._begin_s, "cpu_s": _cpu_s() - self._cpu_s}


def main() -> int:
    """Do what is asked, print what it took."""
    asked = json.load(sys.stdin) if sys.argv[1] != "live" else json.loads(sys.stdin.readline())
    did = DOES[sys.argv[1]](asked, Place.from_json(asked["place"]))
    did["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(did), flush=True)  # noqa: T201 - its answer
    return 0


def baseline(asked: dict[str, Any], place: Place) -> dict[str, Any]:
    """kafka-python's own consumer over the same records, nothing done with them: as a Python exporter would begin."""
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415 - not to be in the others' memory

    consumer = KafkaConsumer(
        bootstrap_servers=place.bootstrap, enable_auto_commit=False, max_partition_fetch_bytes=8 << 20
    )
    where = TopicPartition(place.topics[0], 0)
    consumer.assign([where])
    consumer.seek_to_beginning(where)
    cost, count = Cost(), 0
    while count < asked["records"]:
        for messages in consumer.poll(1000, max_records=5000).values():
            count += len(messages)
    did = cost.so_far()
    consumer.close()
    return did


def export(asked: dict[str, Any], place: Place) -> dict[str, Any]:
    """The capture of a topic that is full already, until all of it is sealed, stored, read back and on record."""
    reports: list[KafkaCaptureReport] = []
    stored, stop = threading.Event(), threading.Event()

    def listen(report: KafkaCaptureReport) -> None:
        reports.append(report)
        if report.records_stored >= asked["records"]:
            stored.set()

    vault = place.vault()
    vault.keys.for_writing(DATASET)
    cost = Cost()
    with Cluster.connect(place.bootstrap) as cluster:
        capture = KafkaCapture(
            vault, place.dataset(), cluster, listener=listen, options=KafkaCaptureOptions(report_every_s=0.1)
        )
        thread = threading.Thread(target=_run, args=(capture, stop, stored))
        thread.start()
        if not stored.wait(_GIVE_UP_S):
            raise SystemExit(f"not stored: {reports[-1:]}")
        did = cost.so_far()
        stop.set()
        thread.join()
    if reports[-1].records_stored < asked["records"]:
        raise SystemExit(f"the capture ended early: {reports[-1]}")
    return {**did, "bytes": reports[-1].bytes_stored, "packs": reports[-1].packs_stored}


def live(_: dict[str, Any], place: Place) -> dict[str, Any]:
    """The capture of a topic that is being written, until standard input ends; says `ready` when it is up to date."""
    begun, ready, stop = datetime.now(UTC), threading.Event(), threading.Event()

    def listen(report: KafkaCaptureReport) -> None:
        if report.recovery_point_at is not None and report.recovery_point_at >= begun and not ready.is_set():
            ready.set()
            print("ready", flush=True)  # noqa: T201 - what the parent waits for

    with Cluster.connect(place.bootstrap) as cluster:
        thread = threading.Thread(
            target=_run, args=(KafkaCapture(place.vault(), place.dataset(), cluster, listener=listen), stop, ready)
        )
        thread.start()
        sys.stdin.read()
        stop.set()
        thread.join()
    return {}


def bring_back(asked: dict[str, Any], place: Place) -> dict[str, Any]:
    """A restore of the one topic under another name: opening the export, planning, records, configuration."""
    vault = place.vault()
    cost = Cost()
    with Cluster.connect(place.bootstrap) as cluster, tempfile.TemporaryDirectory() as folder:
        source = export_source(vault, DATASET)
        options = Options(mapping={place.topics[0]: asked["target"]}, groups=())
        plan = plan_restore(source, cluster, options)
        opened_s = cost.so_far()["wall_s"]
        done = restore(plan, cluster, Path(folder) / "state.json")
    return {
        **cost.so_far(), "opened_s": opened_s, "phases_s": done.phases_s, "bytes": done.size_bytes,
        "identical": done.is_identical,
    }  # fmt: skip


def _run(capture: KafkaCapture, stop: threading.Event, then: threading.Event) -> None:
    try:
        capture.run(stop)
    finally:
        then.set()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


DOES: Final[dict[str, Callable[[dict[str, Any], Place], dict[str, Any]]]] = {
    "baseline": baseline,
    "export": export,
    "live": live,
    "restore": bring_back,
}

if __name__ == "__main__":
    sys.exit(main())
