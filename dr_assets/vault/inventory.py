"""Inventories: signed counts of what a dataset's streams hold, so that what vanished without a trace is noticed.

What belongs here: taking one and comparing a listing with it. What stays out: when to take one, other claims.

A hole, a manifest or the fact that follows betray most deletions; only the newest object of a stream, or a whole
stream, can vanish silently. So an inventory is a fact that names each stream's first and last object, counts and
digests those between them, and names all of a small stream.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of
from dr_assets.vault.vault import Receipt, Vault

INVENTORY: Final = "inventory"
SETTLED: Final = timedelta(seconds=60)  # puts run in parallel: what was put just now may still gain a predecessor
NAMES_LIMIT: Final = 256


@dataclass(frozen=True, slots=True)
class Shelf:
    """One place's objects up to `last`, as an inventory counted them; `keys` are all of them if they are few."""

    first: ObjectKey
    last: ObjectKey
    count: int
    digest: str
    keys: tuple[ObjectKey, ...]


def record_inventory(vault: Vault, dataset: str, *, settled: timedelta = SETTLED) -> Receipt:
    """List the dataset, count what is older than `settled` by the store's clock, seal that as a fact."""
    until = vault.store.now() - settled
    places: dict[str, list[ObjectKey]] = {}
    closed: set[str] = set()
    for name in vault.names(prefix_of(vault.estate, dataset)):
        if name.key is None or not name.versions or name.key.place in closed:
            continue
        if name.versions[0].modified_at > until and name.key.stream != KEYS:
            closed.add(name.key.place)
            continue
        places.setdefault(name.key.place, []).append(name.key)
    return record_fact(vault, dataset, INVENTORY, {"places": {place: count(keys) for place, keys in places.items()}})


def count(keys: list[ObjectKey]) -> Json:
    """The shelf of these names, in key order, as an inventory's body holds it."""
    texts = [str(key) for key in sorted(keys)]
    few = texts if len(texts) <= NAMES_LIMIT else []
    return {
        "count": len(texts),
        "digest": digest_of(texts),
        "first": texts[0],
        "last": texts[-1],
        "keys": list[Json](few),
    }


def digest_of(texts: Iterable[str]) -> str:
    """SHA-256 over the names, each with a line feed behind it."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("ascii") + b"\n")
    return digest.hexdigest()


def parse_inventory(body: Mapping[str, Json], *, name: str) -> dict[str, Shelf]:
    """The shelves by place; raises VaultError `vault.malformed`."""
    places = body.get("places")
    if not isinstance(places, dict):
        raise malformed(f"{name}: no inventory")
    return {place: _shelf(raw, name) for place, raw in places.items()}


def _shelf(raw: Json, name: str) -> Shelf:
    if not isinstance(raw, dict):
        raise malformed(f"{name}: no inventory")
    first, last = _key(raw.get("first"), name), _key(raw.get("last"), name)
    total, digest, keys = raw.get("count"), raw.get("digest"), raw.get("keys")
    if not isinstance(total, int) or not isinstance(digest, str) or not isinstance(keys, list):
        raise malformed(f"{name}: no inventory")
    return Shelf(first, last, total, digest, tuple(_key(text, name) for text in keys))


def _key(text: Json, name: str) -> ObjectKey:
    key = ObjectKey.parse(text) if isinstance(text, str) else None
    if key is None:
        raise malformed(f"{name}: no inventory")
    return key
