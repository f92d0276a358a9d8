"""A bucket of documents in a real store, two vaults and a ring of people's keys in memory.

What belongs here: the world of one test, and what a bucket holds, for comparing. What stays out: assertions.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.model import (
    TIERS,
    BucketDataset,
    BucketRestoreTest,
    Drill,
    Location,
    Retention,
    SubjectRule,
)
from dr_assets.stores.bucket.copy import Asked, CopyResult, copy
from dr_assets.stores.bucket.names import Names
from dr_assets.stores.bucket.persons import Whose
from dr_assets.stores.bucket.plan import Wanted, plan_restore
from dr_assets.stores.bucket.restore import Restored, restore
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place, place_of
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.subjects.deletion import delete
from dr_assets.vault.subjects.erased import ErasureList, merge, read_list
from dr_assets.vault.subjects.ids import SubjectIds
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.shelf import MemoryShelf
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault

NAME = "kyc"
BY_FOLDER = SubjectRule("key", r"^kyc/(?P<subject>[^/]+)/")
Content = dict[str, list[tuple[Any, ...]]]


class Agreed:
    """Approvals of whatever is asked."""

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Agree."""
        return f"{action}-{len(objects)}"


def dataset_of(bucket: str, rule: SubjectRule, **changes: Any) -> BucketDataset:
    """A declaration of a bucket of documents."""
    tier = TIERS["kyc_aml"]
    dataset = BucketDataset(
        name=NAME,
        tier=tier,
        rpo=tier.rpo,
        rto=tier.rto,
        retention=Retention("governance", 14, 14),
        location=Location("local", "one", "MT"),
        vault="primary",
        replicas=(),
        restore_test=BucketRestoreTest("0 3 * * *"),
        drill=Drill("0 4 1 * *", timedelta(days=35)),
        owners=("team:platform",),
        exception=None,
        linger=timedelta(),
        source=Path("test"),
        line=1,
        bucket=bucket,
        endpoint_env="KYC_ENDPOINT",
        access_key_env="KYC_ACCESS_KEY",
        secret_key_env="KYC_SECRET_KEY",
        subject=rule,
    )
    return replace(dataset, **changes)


@dataclass
class World:
    """One test's. Every copy and restore opens the vault anew, as a new process does."""

    region: SeaweedRegion
    folder: Path
    rule: SubjectRule = BY_FOLDER
    versioned: bool = True
    prefix: str = ""
    full_every: timedelta = timedelta(days=7)
    store: ObjectStore = field(default_factory=MemoryStore)
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)
    signer: Signer = field(default_factory=Signer.generate)
    shelves: tuple[MemoryShelf, ...] = field(default_factory=lambda: (MemoryShelf("one"), MemoryShelf("two")))
    clock: Callable[[], datetime] | None = None
    ids: SubjectIds = field(default_factory=lambda: SubjectIds(b"i" * 32))

    def __post_init__(self) -> None:
        self.client = self.region.client(request_checksum_calculation="when_required")
        self.bucket = self.new_bucket("source", versioned=self.versioned)

    def new_bucket(self, what: str, *, versioned: bool = True) -> str:
        """A bucket of this test's own."""
        name = f"{what}-{secrets.token_hex(5)}"
        self.client.create_bucket(Bucket=name)
        if versioned:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def place(self, bucket: str | None = None) -> Place:
        """The source, or another bucket of the same store."""
        own = self.prefix if bucket is None else ""
        keys = {"access_key": self.region.access_key, "secret_key": self.region.secret_key}
        return place_of(self.region.endpoint, bucket or self.bucket, prefix=own, **keys)

    def vault(self, store: ObjectStore | None = None) -> Vault:
        """The vault, as a new process opens it."""
        return throwaway_vault(
            store=store or self.store,
            provider=self.provider,
            signer=self.signer,
            rules={NAME: (ThrowawayRetention(), self.full_every)},
            clock=self.clock,
        )

    def ring(self) -> SubjectRing:
        """People's keys, as a new process opens them."""
        return SubjectRing((self.vault(),), self.shelves, (self.provider,), ErasurePolicy(timedelta(days=30)))

    def site(self, store: ObjectStore | None = None, *, folder: str = "work") -> Site:
        """All that a copy or restore takes."""
        dataset = dataset_of(self.bucket, self.rule, full_every=self.full_every, prefix=self.prefix)
        if self.rule.kind == "none":
            names, whose, ring = Names.of(NAME, None), Whose(self.rule, None), None
        else:
            names, whose, ring = Names.of(NAME, b"n" * 32), Whose(self.rule, self.ids), self.ring()
        return Site(self.vault(store), dataset, names, whose, ring, self.folder / folder)

    def copy(self, asked: Asked | None = None, *, place: Place | None = None) -> CopyResult:
        """One run."""
        return copy(self.site(), place or self.place(), asked)

    def restore(self, wanted: Wanted | None = None, into: str | None = None, **options: Any) -> tuple[str, Restored]:
        """Restore, into a new bucket by default; its name, and what came of it."""
        into = into or self.new_bucket("target")
        site = self.site()
        plan = plan_restore(site, wanted or Wanted(), self.erasures(), target=into)
        return into, restore(plan, site, self.place(into), erasures_now=self.erasures, **options)

    def erasures(self) -> ErasureList:
        """The newest list."""
        return merge([read_list(self.vault())])

    def erase(self, person: str) -> str:
        """Decide a person's erasure; the subject id."""
        subject_id = self.ids.of(person)
        delete(self.ring(), [subject_id], Agreed())
        return subject_id

    def put(self, name: str, body: bytes, **more: Any) -> str:
        """A document; its version."""
        return str(self.client.put_object(Bucket=self.bucket, Key=name, Body=body, **more).get("VersionId", ""))

    def holds(self, bucket: str | None = None) -> Content:
        """Everything in a bucket by name, newest first: whether it is current, and all that belongs to it."""
        bucket = bucket or self.bucket
        found: Content = {}
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            rows: list[tuple[Any, ...]] = []
            for raw in page.get("Versions", []):
                of_version = {} if raw["VersionId"] == "null" else {"VersionId": raw["VersionId"]}
                got = self.client.get_object(Bucket=bucket, Key=raw["Key"], **of_version)
                tags = self.client.get_object_tagging(Bucket=bucket, Key=raw["Key"], **of_version)["TagSet"]
                belongs = [
                    got.get(one) for one in ("ContentType", "CacheControl", "ContentDisposition", "ContentLanguage")
                ]
                digest = hashlib.sha256(got["Body"].read()).hexdigest()
                told = sorted(got["Metadata"].items()), sorted((tag["Key"], tag["Value"]) for tag in tags)
                rows.append((raw["Key"], raw["VersionId"], raw["IsLatest"], digest, belongs, *told))
            rows += [
                (raw["Key"], raw["VersionId"], raw["IsLatest"], "deleted") for raw in page.get("DeleteMarkers", [])
            ]
            for name, version_id, is_latest, *rest in rows:
                found.setdefault(name, []).append((version_id, is_latest, *rest))
        # SeaweedFS counts its version ids down, so the smallest is the newest.
        return {name: [row[1:] for row in sorted(rows)] for name, rows in found.items()}

    def current(self, bucket: str | None = None) -> Content:
        """What a plain listing shows."""
        rows = {
            name: [row for row in versions if row[0] and row[1] != "deleted"]
            for name, versions in self.holds(bucket).items()
        }
        return {name: versions for name, versions in rows.items() if versions}

    def wait_for_a_later_second(self) -> datetime:
        """The store's clock once it has moved on: it tells whole seconds."""
        place = self.place()
        begin = place.now()
        while place.now() <= begin:
            time.sleep(0.05)
        return place.now()
