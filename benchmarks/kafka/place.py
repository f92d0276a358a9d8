"""Where a measured process finds broker, bucket and keys; the same vault and dataset in every process.

What belongs here: that, and its way over a process's standard input. What stays out: what the process does.
"""

import hashlib
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from dr_assets.estate.model import TIERS, Drill, KafkaRestoreTest, Location, Retention, TopicsDataset
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault

DATASET: Final = "events"
LINGER: Final = timedelta(milliseconds=500)  # what a declaration has unless it says otherwise
_SEED: Final = hashlib.sha256(b"benchmarks: kafka").digest()


@dataclass(frozen=True, slots=True)
class Place:
    """A broker's address, a bucket of an S3 endpoint, the topics that are measured."""

    bootstrap: str
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    topics: tuple[str, ...]

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Place":
        """What `to_json` gave."""
        return cls(**{**said, "topics": tuple(said["topics"])})

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def store(self) -> S3Store:
        """The bucket."""
        return S3Store(make_client(self.endpoint, self.access_key, self.secret_key), self.bucket)

    def vault(self) -> Vault:
        """The vault in it; the same keys in every process."""
        return throwaway_vault(
            store=self.store(),
            provider=MemoryKeyProvider(_SEED),
            signer=Signer.from_seed(_SEED),
            rules={DATASET: (ThrowawayRetention(), timedelta(days=7))},
        )

    def dataset(self) -> TopicsDataset:
        """The declaration, with what a declaration has by default."""
        return TopicsDataset(
            name=DATASET,
            tier=TIERS["game_event_stream"],
            rpo=timedelta(minutes=2),
            rto=timedelta(minutes=30),
            retention=Retention(lock="governance", days=14, lock_days=14),
            location=Location("loopback", "here", "MT"),
            vault="primary",
            replicas=(),
            drill=Drill("0 4 1 * *", timedelta(days=35)),
            owners=("team:platform",),
            exception=None,
            source=Path("benchmarks"),
            line=1,
            linger=LINGER,
            bootstrap_env="BENCH_BOOTSTRAP",
            topics=self.topics,
            restore_test=KafkaRestoreTest("0 3 * * *"),
        )
