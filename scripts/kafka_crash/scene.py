"""What the kill rounds of a topics' capture run in: a vault, a producer that remembers what was acknowledged.

What belongs here: these. What stays out: what is done to them (kafka_crash_rounds.py).
"""

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dr_assets.estate.model import TIERS, Drill, KafkaRestoreTest, Location, Retention, TopicsDataset
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.life.choice import follow_facts
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.vault import Vault

DATASET: Final = "events"
TOPIC: Final = "bets"
PARTITIONS: Final = 4
RECORD_BYTES: Final = 300
LINGER: Final = timedelta(milliseconds=500)
_SEED: Final = b"kafka-crash-rounds-signing-seed!"
_NUMBER_BYTES: Final = 16


@dataclass
class Place:
    """Everything a process needs to open the vault and the dataset."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    keys_dir: Path

    def vault(self) -> Vault:
        """The vault, to write and to read."""
        if not any(self.keys_dir.glob("kek-*.hex")):
            FileKeyProvider.create(self.keys_dir)
        signer, dataset = Signer.from_seed(_SEED), self.dataset()
        store = S3Store(make_client(self.endpoint, self.access_key, self.secret_key), self.bucket)
        parts: dict[str, Any] = {
            "store": store,
            "estate": "casino",
            "trust": Trust.of(signer),
            "signer": signer,
            "locks": LockRules({DATASET: (dataset.retention, dataset.base_every)}),
            "clock": lambda: datetime.now(UTC),
        }
        keys = KeyRing(providers=Providers.of(FileKeyProvider(self.keys_dir)), **parts)
        return follow_facts(Vault(name="primary", keys=keys, **parts))

    def dataset(self) -> TopicsDataset:
        """The declared topics."""
        return TopicsDataset(
            name=DATASET, tier=next(iter(TIERS.values())), bootstrap_env="EVENTS", topics=(TOPIC,),
            rpo=timedelta(minutes=2), rto=timedelta(minutes=30),
            retention=Retention(lock="governance", days=14, lock_days=14), location=Location("ovh", "gra", "MT"),
            vault="primary", replicas=(), restore_test=KafkaRestoreTest("0 3 * * *"),
            drill=Drill("0 4 1 * *", timedelta(days=35)), owners=("team:platform",), exception=None, linger=LINGER,
            source=Path("defs.yaml"), line=1,
        )  # fmt: skip


class CaptureProcess:
    """The capture, in a process that can be killed."""

    def __init__(self, place: Place, bootstrap: str, folder: Path) -> None:
        self.status = folder / "status.json"
        self.status.unlink(missing_ok=True)
        self._log = (folder / "capture.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.kafka_crash.child"], stdin=subprocess.PIPE, stdout=self._log,
            stderr=self._log,
        )  # fmt: skip
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        asked = {**vars(place), "keys_dir": str(place.keys_dir), "bootstrap": bootstrap, "status": str(self.status)}
        self.process.stdin.write(json.dumps(asked).encode())
        self.process.stdin.close()

    def report(self) -> dict[str, Any]:
        """The newest report; empty before the first."""
        return json.loads(self.status.read_text()) if self.status.exists() else {}

    def wait_stored(self, at: datetime, timeout_s: float) -> dict[str, Any]:
        """A report that says that all acknowledged before `at` is stored. Raises RuntimeError."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            report = self.report()
            point = report.get("recovery_point_at")
            if point is not None and datetime.fromisoformat(point) >= at:
                return report
            if self.process.poll() is not None:
                raise RuntimeError(f"the capture ended with {self.process.returncode}")
            time.sleep(0.05)
        raise RuntimeError(f"not stored within {timeout_s:g} s: {self.report()}")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def stop(self) -> None:
        """SIGTERM, and its end."""
        self.process.terminate()
        self.process.wait(120)
        self._log.close()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A record that the broker has acknowledged with acks=all, when we heard of it."""

    number: int
    partition: int
    offset: int
    at_s: float


class Feeder:
    """Produces numbered records at a rate until it is stopped; idempotent, so that a retry makes no second one."""

    def __init__(self, bootstrap: str, rate: float, seed: int) -> None:
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311 - load, no secret
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
                "message.timeout.ms": 600_000, "reconnect.backoff.max.ms": 1000, "log_level": 0,
            }
        )  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self.acknowledged: list[Acknowledged] = []
        self.failed: list[str] = []
        self.produced = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, with everything acknowledged or failed."""
        self._stop.set()
        self._thread.join()
        self._producer.flush(120)

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - began_s) * self._rate)
            while self.produced < due:
                self._produce(self.produced)
                self.produced += 1
            self._producer.poll(0.01)

    def _produce(self, number: int) -> None:
        value = f"{number:0{_NUMBER_BYTES}d}".encode() + self._random.randbytes((RECORD_BYTES - _NUMBER_BYTES) // 2)

        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failed.append(str(error))
                return
            self.acknowledged.append(Acknowledged(number, message.partition(), message.offset(), time.monotonic()))

        try:
            self._producer.produce(TOPIC, value=value.ljust(RECORD_BYTES, b"x"), partition=number % PARTITIONS,
                                   on_delivery=told)  # fmt: skip
        except (BufferError, KafkaException) as error:
            self.failed.append(str(error))


def number_of(value: bytes | None) -> int:
    """The number that a record was produced with."""
    return int((value or b"")[:_NUMBER_BYTES])
