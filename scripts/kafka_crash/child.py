"""The capture as a process of its own, to be killed: reads its place from standard input, writes its last report."""

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path

from dr_assets.stores.kafka.capture import KafkaCapture, KafkaCaptureOptions
from dr_assets.stores.kafka.report import KafkaCaptureReport
from dr_assets.stores.kafka.wire import Cluster
from scripts.kafka_crash.scene import Place


def main() -> None:
    """Capture until SIGTERM; the newest report is always whole in the status file."""
    asked = json.load(sys.stdin)
    bootstrap, status = asked.pop("bootstrap"), Path(asked.pop("status"))
    place = Place(**{**asked, "keys_dir": Path(asked["keys_dir"])})
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(report: KafkaCaptureReport) -> None:
        text = json.dumps({**dataclasses.asdict(report), "pid": os.getpid()}, default=str)
        fresh = status.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(status)

    options = KafkaCaptureOptions(report_every_s=0.2, heartbeat_every_s=1.0, session_s=6.0)
    with Cluster.connect(bootstrap, patience_s=120) as cluster:
        KafkaCapture(place.vault(), place.dataset(), cluster, listener=tell, options=options).run(stop)


if __name__ == "__main__":
    main()
