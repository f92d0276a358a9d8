"""One bucket dataset over real regions, put together the same in every process of the benchmark.

What belongs here: the declaration, the environment, opening. What stays out: measuring (bucket.py).
"""

import os
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import (
    TIERS,
    BucketDataset,
    BucketRestoreTest,
    Drill,
    Estate,
    Location,
    Retention,
    SubjectRule,
    Subjects,
)
from dr_assets.stores.bucket.site import Site, open_site
from dr_assets.stores.bucket.source import Place, place_of
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.subjects.connect import init_ring

NAME: Final = "kyc"
PATTERN: Final = r"^kyc/(?P<subject>[^/]+)/"


@dataclass(frozen=True)
class Rig:
    """Everything by name; `env` holds the addresses and keys."""

    vault_bucket: str
    source_bucket: str
    folder: str
    env: dict[str, str]

    @classmethod
    def make(cls, region: SeaweedRegion, other: SeaweedRegion, folder: Path, source_bucket: str) -> "Rig":
        """Buckets, keys and the ring of people's keys, made once."""
        env = {
            "DR_KEYS_DIR": str(folder / "keys"),
            "DR_TRUST_FILE": str(folder / "trust.json"),
            "DR_SIGNING_KEY": str(folder / "signing.pem"),
            "DR_SUBJECT_ID_KEY": str(folder / "subject-ids.hex"),
            "KYC_ENDPOINT": region.endpoint,
            "KYC_ACCESS_KEY": region.access_key,
            "KYC_SECRET_KEY": region.secret_key,
        }
        for name, server in (("PRIMARY", region), ("STANDBY", other)):
            env[f"DR_VAULT_{name}_ENDPOINT"] = server.endpoint
            env[f"DR_VAULT_{name}_ACCESS_KEY"] = server.access_key
            env[f"DR_VAULT_{name}_SECRET_KEY"] = server.secret_key
        rig = cls("vault", source_bucket, str(folder), env)
        for name in rig.estate().vaults:
            init_vault(rig.estate(), name, env)
        init_ring(rig.estate(), env)
        return rig

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def estate(self) -> Estate:
        """The packaged estate's vaults, with one bucket of documents."""
        estate = load_estate(default_defs_dir())
        places = {name: replace(place, bucket=self.vault_bucket) for name, place in estate.vaults.items()}
        dataset = self.dataset()
        return replace(
            estate,
            vaults=places,
            subjects=Subjects(("primary", "standby"), f"{self.vault_bucket}-keys", "DR_SUBJECT_ID_KEY"),
            datasets={dataset.name: dataset},
            approvals=None,
        )

    def dataset(self) -> BucketDataset:
        """The declaration."""
        tier = TIERS["kyc_aml"]
        return BucketDataset(
            name=NAME,
            tier=tier,
            rpo=tier.rpo,
            rto=tier.rto,
            retention=Retention("governance", 30, 30),
            location=Location("local", "one", "MT"),
            vault="primary",
            replicas=(),
            restore_test=BucketRestoreTest("0 3 * * *"),
            drill=Drill("0 4 1 * *", timedelta(days=35)),
            owners=("team:platform",),
            exception=None,
            linger=timedelta(),
            source=Path("benchmarks"),
            line=1,
            bucket=self.source_bucket,
            endpoint_env="KYC_ENDPOINT",
            access_key_env="KYC_ACCESS_KEY",
            secret_key_env="KYC_SECRET_KEY",  # noqa: S106 - a name
            subject=SubjectRule("key", PATTERN),
        )

    def site(self) -> Site:
        """Opened, as a new process opens it."""
        estate = self.estate()
        vault = open_vault(estate, "primary", self.env, role="roller")
        return open_site(estate, self.dataset(), vault, self.env, Path(self.folder) / "work")

    def bucket(self, name: str) -> Place:
        """A bucket of the first region."""
        env = self.env
        keys = {"access_key": env["KYC_ACCESS_KEY"], "secret_key": env["KYC_SECRET_KEY"]}
        return place_of(env["KYC_ENDPOINT"], name, **keys)


def peak_bytes(pid: int | None = None) -> int:
    """The most memory that a process has had resident; this one by default."""
    status = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1024
