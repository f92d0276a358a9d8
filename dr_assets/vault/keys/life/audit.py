"""Whether a vault's keys are as they should be: wrapped by all, in all regions, young enough, none of them stolen.

What belongs here: looking. What stays out: mending (`rotate` does), and colours (components/).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.estate.errors import DrError, VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.keys.life.choice import retired_at
from dr_assets.vault.keys.life.escrow import lacking
from dr_assets.vault.keys.life.listing import KeyRow, datasets_with_keys, list_keys, sealed_since
from dr_assets.vault.keys.life.rotation import KeyAge, unfinished
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.versions import get_authentic
from dr_assets.vault.vault import Vault

TAKEN_UP: Final = timedelta(minutes=10)  # live writers look every 30 s, and a piece may wait in the spool
LOOKED_BACK: Final = timedelta(days=2)  # somebody looks every day


@dataclass(frozen=True, slots=True)
class KeyAudit:
    """What was found, each as `dataset/key id` and what of it. Empty tuples are good news.

    `unwrapped` lack a wrapping by a provider, `elsewhere` lack one in another region; `late` were sealed under a key
    that whoever has a retired key-encryption key can open; `unescrowed` write and are in no export.
    """

    ages: tuple[KeyAge, ...]
    unwrapped: tuple[str, ...]
    elsewhere: tuple[str, ...]
    unfinished: tuple[str, ...]
    late: tuple[str, ...]
    unescrowed: tuple[str, ...]


def audit(vault: Vault, every: timedelta) -> KeyAudit:
    """Look at every dataset that has a key; raises what the vault raises."""
    now = vault.clock()
    rows = {dataset: list_keys(vault, dataset) for dataset in datasets_with_keys(vault)}
    writing = [row for found in rows.values() for row in found if row.is_writing]
    begun = {dataset: unfinished(vault, dataset) for dataset in rows}
    return KeyAudit(
        ages=tuple(KeyAge(row.dataset, row.key_id, row.created_at, now - row.created_at, every) for row in writing),
        unwrapped=tuple(name for dataset in rows for name in _unwrapped(vault, dataset, rows[dataset])),
        elsewhere=tuple(name for dataset in rows for name in _elsewhere(vault, dataset)),
        unfinished=tuple(f"{dataset}/{key_id}" for dataset, key_id in begun.items() if key_id),
        late=tuple(name for dataset in rows for name in _late(vault, dataset, rows[dataset], now)),
        unescrowed=tuple(lacking(vault)),
    )


def _unwrapped(vault: Vault, dataset: str, rows: list[KeyRow]) -> Iterator[str]:
    needed = [provider.name for provider in vault.keys.providers.of_dataset(dataset)]
    for row in rows:
        there = {wrapped.provider for wrapped in row.wrappings}
        yield from (f"{dataset}/{row.key_id} by {name}" for name in needed if name not in there)


def _elsewhere(vault: Vault, dataset: str) -> Iterator[str]:
    wanted = [key for key, _ in vault.keys.wrappings(dataset)]
    for region in vault.keys.regions(dataset):
        try:
            store = region.open()
            yield from (f"{key} in {region.name}" for key in wanted if not _lies_in(store, key))
        except DrError as error:
            yield f"{dataset}: {region.name} does not say ({error.code})"


def _lies_in(store: ObjectStore, key: ObjectKey) -> bool:
    """Whether the very bytes are there: a delete marker on top hides none, rubbish under the name is none."""
    try:
        get_authentic(store, key)
    except VaultError as error:
        if error.code not in {"vault.missing", "vault.tampered"}:
            raise
        return False
    return True


def _late(vault: Vault, dataset: str, rows: list[KeyRow], now: datetime) -> Iterator[str]:
    retired = retired_at(vault)
    exposed: dict[str, float] = {}
    for row in rows:
        marked = [retired[wrapped.kek_id] for wrapped in row.wrappings if wrapped.is_retired]
        if marked:
            exposed[row.key_id] = min(marked)
    if not exposed:
        return
    for lying in sealed_since(vault, dataset, now - LOOKED_BACK):
        marked_at = exposed.get(lying.key_id)
        if marked_at is not None and lying.sealed_at > datetime.fromtimestamp(marked_at, UTC) + TAKEN_UP:
            yield str(lying.obj.key)
