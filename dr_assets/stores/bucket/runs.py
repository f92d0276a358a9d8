"""Runs of copying as the vault holds them: which is the newest, what leads to it, what its inventories say.

What belongs here: reading manifests and shards. What stays out: making them (copy.py), choosing a restore's run
(plan.py).
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.bucket import manifest as manifests
from dr_assets.stores.bucket.inventory import Row, decode_shard
from dr_assets.stores.bucket.manifest import RunManifest
from dr_assets.vault.facts import was_ours
from dr_assets.vault.format.keys import BASE, ObjectKey
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault

_READERS: Final = 4
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def system_of(bucket: str, prefix: str) -> str:
    """The system id of what is copied: another bucket or prefix is another one, and begins anew."""
    return hashlib.sha256(f"{bucket}\n{prefix}".encode()).hexdigest()[:32]


def microseconds(at: datetime) -> int:
    """Since 1970, as positions and rows count."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """The time that `microseconds` counted."""
    return _EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True)
class Run:
    """One run with its stored manifest; `manifest` is None, with the reason, where that can't be believed."""

    stored: StoredObject
    manifest: RunManifest | None
    trouble: str | None = None

    @property
    def key(self) -> ObjectKey:
        """The manifest's name: `first` is when its listing began, in µs."""
        return self.stored.key


def stored_runs(vault: Vault, dataset: str, *, as_of: datetime | None = None) -> list[StoredObject]:
    """The manifests' names, oldest first, none opened."""
    found = list(vault.objects(dataset, BASE, as_of=as_of))
    return sorted(found, key=lambda obj: (obj.key.first, obj.modified_at, obj.key.digest))


def read_run(vault: Vault, stored: StoredObject) -> Run | None:
    """One run; None for what none of ours ever sealed. Raises VaultError when the store is away."""
    try:
        return Run(stored, manifests.decode(vault.open(stored).plaintext, name=str(stored.key)))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return Run(stored, None, f"{error.code}: {error.found}") if was_ours(vault, stored) else None


def newest_run(vault: Vault, dataset: str, system_id: str | None = None) -> Run | None:
    """The newest that can be read; None if there is none. Raises VaultError when the store is away."""
    for stored in reversed(stored_runs(vault, dataset)):
        if system_id in {None, stored.key.system_id}:
            run = read_run(vault, stored)
            if run is not None and run.manifest is not None:
                return run
    return None


def chain_to(vault: Vault, run: Run, *, as_of: datetime | None = None) -> list[Run]:
    """The full, its incrementals in order, and the run itself last.

    Raises VaultError `restore.parent_missing`, and what reading a manifest raises.
    """
    chain = [run]
    while (manifest := chain[-1].manifest) is not None and (parent := manifest.parent) is not None:
        key = ObjectKey.parse(parent.key)
        try:
            if key is None:
                raise _no_parent(manifest, "is no name of an object")
            stored = vault.find(key, as_of=as_of)
        except VaultError as error:
            if error.code != "vault.missing":
                raise
            raise _no_parent(manifest, "is not in the vault") from None
        above = manifests.decode(vault.open(stored).plaintext, name=str(key))
        own = (above.snapshot_id, above.full_snapshot_id, above.depth, above.system_id)
        if own != (parent.snapshot_id, parent.full_snapshot_id, parent.depth - 1, manifest.system_id):
            raise _no_parent(manifest, "is the manifest of another run")
        chain.append(Run(stored, above))
    return list(reversed(chain))


def rows_of(vault: Vault, chain: Sequence[Run]) -> Iterator[list[Row]]:
    """Every shard's rows, run after run; what a later one says of a version holds. A few shards are read ahead.

    Raises VaultError for a shard that is missing or damaged.
    """
    keys = [key for run in chain if run.manifest is not None for key in run.manifest.inventory]
    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
        for key in keys:
            waiting.append(pool.submit(_shard, vault, key))
            if len(waiting) > _READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _shard(vault: Vault, name: str) -> list[Row]:
    key = ObjectKey.parse(name)
    if key is None:
        raise VaultError("backup.bad_manifest", f"{name} is no name of a shard", "run `dr-assets vault verify`")
    return decode_shard(vault.open(vault.find(key)).plaintext, name=name)


def _no_parent(child: RunManifest, found: str) -> VaultError:
    parent = child.parent
    named = "" if parent is None else parent.key
    return VaultError(
        "restore.parent_missing",
        f"run {child.snapshot_id} builds on {named}, which {found}",
        "run `dr-assets vault verify`; restore from another vault",
    )
