"""A capture as a process of its own, to be killed: reads its place from standard input, writes its last report."""

import dataclasses
import importlib.util
import json
import os
import signal
import sys
import threading
from pathlib import Path

RIG = Path(__file__).parents[2] / "integration" / "capture" / "rig.py"


def main() -> None:
    """Capture until SIGTERM; the newest report is always whole in the status file."""
    spec = importlib.util.spec_from_file_location("capture_rig", RIG)
    assert spec is not None
    assert spec.loader is not None
    rig = importlib.util.module_from_spec(spec)
    sys.modules["capture_rig"] = rig
    spec.loader.exec_module(rig)
    asked = json.load(sys.stdin)
    dsn, status = asked.pop("dsn"), Path(asked.pop("status"))
    place = rig.Place(**{**asked, "keys_dir": Path(asked["keys_dir"])})
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(report: object) -> None:
        text = json.dumps({field.name: str(getattr(report, field.name)) for field in dataclasses.fields(report)})
        fresh = status.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, status)  # noqa: PTH105 - the atomic call itself

    options = rig.CaptureOptions(**{**rig.STEADY, "report_every_s": 0.05, "heartbeat_every_s": 0.2, **place.options})
    rig.Capture(place.vault(), place.dataset(), dsn, listener=tell, options=options).run(stop)


main()
