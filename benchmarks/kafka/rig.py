"""What is measured on: one Apache Kafka, one SeaweedFS, both on loopback; and starting the measured processes.

What belongs here: servers, buckets, children and what they cost from outside. What stays out: the figures.
"""

import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.kafka.place import Place
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.kafka.noida import NoidaServer
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion

_CHILD_S: Final = 900.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rig:
    """Both servers, up."""

    broker: KafkaServer | NoidaServer
    region: SeaweedRegion
    tell: Callable[[str], None]

    @property
    def versions(self) -> dict[str, str]:
        """What a row says it was measured with; the broker's own name first of all."""
        program = self.region.programs
        java = {"Java": str(self.broker.jars.java_major)} if isinstance(self.broker, KafkaServer) else {}
        return {
            "broker": self.broker.describe(),
            **java,
            "S3": f"SeaweedFS {program.version[0]}.{program.version[1]}",
            "cores": str(os.cpu_count()),
            # Beside other work seconds say little, and processor seconds are too many.
            "load": f"{os.getloadavg()[1]:.0f}",
            "python": platform.python_version(),
            "dr_assets": version("dr_assets"),
            "kafka-python": version("kafka-python"),
        }

    def place(self, *topics: str) -> Place:
        """These topics, captured into a bucket of their own."""
        bucket = f"bench-{secrets.token_hex(5)}"
        place = Place(
            self.broker.bootstrap, self.region.endpoint, self.region.access_key, self.region.secret_key, bucket, topics
        )
        place.store().create_bucket("GOVERNANCE", 14)
        return place

    def broker_cpu_s(self) -> float:
        """What the broker has burnt since its start."""
        return cpu_s_of(self.broker.pid)


@contextmanager
def open_rig(folder: Path, tell: Callable[[str], None]) -> Iterator[Rig]:
    """Broker and object store below `folder`; both stop at the end."""
    found = find_broker()
    tell(found.why)
    # As a broker runs in earnest: all of the JIT, its own choice of collector, a gigabyte.
    options: dict[str, Any] = {"heap_mib": 1024, "jvm_options": ()} if found.kind == "apache" else {}
    with ExitStack() as stack:
        broker = found.server(folder / "kafka", **options)
        stack.callback(broker.kill)
        region = stack.enter_context(SeaweedRegion(folder / "region", "bench", find_programs("weed")))
        broker.start()
        region.start()
        yield Rig(broker, region, tell)


def child(what: str, place: Place, **asked: Any) -> dict[str, Any]:
    """Run one measured process to its end; what it says. Raises SystemExit with its last words if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kafka.child", what],
        input=json.dumps({**asked, "place": place.to_json()}),
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHILD_S,
    )
    if done.returncode != 0:
        raise SystemExit(f"{what} failed: {done.stderr[-3000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


class LiveChild:
    """A capture that runs beside what is measured; leaving the context ends it."""

    def __init__(self, place: Place) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kafka.child", "live"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        self._process.stdin.write(json.dumps({"place": place.to_json()}) + "\n")
        self._process.stdin.flush()

    def wait_ready(self) -> None:
        """Until it is up to date."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("the live capture ended before it was ready")

    def cpu_s(self) -> float:
        """What it has burnt since its start."""
        return cpu_s_of(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=120)  # closes its input, which ends it
        finally:
            self._process.kill()


def cpu_s_of(pid: int) -> float:
    """Processor seconds of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
