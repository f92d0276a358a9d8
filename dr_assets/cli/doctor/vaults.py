"""Probes of the vaults: reachable, locking, on time, openable, copied; on demand, write-once tried for real.

What belongs here: asking the stores. What stays out: what the stored backups are worth (backups.py).
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.cli.doctor.line import Line
from dr_assets.cli.doctor.patient import Patient
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import BucketDataset, Dataset, PostgresDataset, TopicsDataset
from dr_assets.stores.bucket.position import recovery_point as stored_bucket
from dr_assets.stores.kafka.position import stored_recovery_point as stored_topics
from dr_assets.stores.objective import StoredPoint, age_text, age_trouble
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

WRITE_PROBE: Final = "write_probe"


def vault(patient: Patient) -> Iterator[Line]:
    """The dataset's own vault."""
    yield from _store("vault", patient.vault())
    yield _openable(patient.vault(), patient.dataset.name)


def replica(patient: Patient, name: str) -> Iterator[Line]:
    """A vault that holds a further copy, and how far that copy has come."""
    check = f"replica {name}"
    opened = patient.vault(name)
    yield from _store(check, opened)
    point = _point(opened, patient.dataset)
    trouble = age_trouble(patient.dataset, point, opened.clock())
    if trouble is None and point is not None and point.at is not None:
        yield Line(check, "ok", f"in the copy {age_text(opened.clock(), point.at)}")
    else:
        hint = "see the store's replication: should the first vault be gone, this is all there is"
        yield Line(check, "warn", f"in the copy {trouble}", hint)


def _point(opened: Vault, dataset: Dataset) -> StoredPoint | None:
    match dataset:
        case TopicsDataset():
            return stored_topics(opened, dataset)
        case BucketDataset():
            return stored_bucket(opened, dataset.name)
        case PostgresDataset():
            return stored_recovery_point(opened, dataset)
        case _:
            raise TypeError(dataset.kind)


def write_once(patient: Patient) -> Iterator[Line]:
    """Try it: a locked object is not written over, its lock is not shortened. Leaves one small, locked fact behind."""
    opened = open_vault(patient.estate, patient.dataset.vault, patient.env, signing=True, role="writer")
    receipt = record_fact(opened, patient.dataset.name, WRITE_PROBE, {"why": "dr-assets doctor --write-probe"})
    yield Line("write probe", "ok", f"sealed, stored and read back, locked until {receipt.lock.retain_until:%Y-%m-%d}")
    key, until = str(receipt.key), receipt.lock.retain_until
    other = b"written over by dr-assets doctor"
    if _refused(lambda: opened.store.put(key, other, hashlib.sha256(other).hexdigest(), receipt.lock)):
        yield Line("write once", "ok", "a second put under the same name is refused")
    else:
        hint = "this store ignores If-None-Match: versions still keep what was there, but `vault verify` will complain"
        yield Line("write once", "bad", f"{key} was written over", hint)
    shorter = Lock(receipt.lock.mode, until - timedelta(days=1))
    if _refused(lambda: opened.store.extend(key, receipt.version_id, shorter)):
        yield Line("lock holds", "ok", "shortening a lock is refused")
    else:
        hint = (
            "these credentials may bypass retention: take s3:BypassGovernanceRetention away, or lock in compliance mode"
        )
        yield Line("lock holds", "bad", f"the lock of {key} was shortened by a day", hint)


def _refused(attempt: object) -> bool:
    if not callable(attempt):
        raise TypeError(attempt)
    try:
        attempt()
    except VaultError as error:
        if error.code in {"vault.key_conflict", "vault.lock_refused"}:
            return True
        raise
    return False


def _store(check: str, opened: Vault) -> Iterator[Line]:
    begin = datetime.now(UTC)
    state = opened.store.bucket_state()
    took_s = (datetime.now(UTC) - begin) / timedelta(seconds=1)
    if not (state.versioned and state.object_lock):
        hint = "declare another bucket: `dr-assets vault init` creates it with versioning and Object Lock"
        lacks = "versioning" if not state.versioned else "Object Lock"
        yield Line(check, "bad", f"the bucket has no {lacks}: what is written can be deleted", hint)
    elif state.default_lock_days is None:
        hint = "give the bucket a default retention of 14 days: the net under every put"
        yield Line(check, "warn", "versioned, Object Lock on, and no default retention", hint)
    else:
        net = f"{state.default_mode} {state.default_lock_days} d by default"
        yield Line(check, "ok", f"answers in {took_s * 1000:.0f} ms; versioned, Object Lock on, {net}")
    opened.check_clock()
    yield Line(f"{check} clock", "ok", "within 5 s of this host's")


def _openable(opened: Vault, dataset: str) -> Line:
    """Opening the newest fact takes the trust file, the key-encryption key and the data key."""
    kinds = ("capture", "snapshot", "kafka_capture", "bucket_copy")
    newest = next((fact for kind in kinds if (fact := latest_fact(opened, dataset, kind)) is not None), None)
    if newest is None:
        hint = f"start `dr-assets capture {dataset}`, then take a base backup"
        return Line("data key", "bad", "the vault holds nothing of this dataset yet", hint)
    return Line("data key", "ok", f"opened a fact of {newest.at:%Y-%m-%d %H:%M} UTC: signature, key and content hold")
