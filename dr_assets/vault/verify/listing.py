"""Which names a verification looks at, in their order: WAL and packs last, for they are held to what others say.

What belongs here: folders and names. What stays out: examining them.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import KEYS, PACKS, WAL, prefix_of
from dr_assets.vault.storage.versions import Name, look, scan
from dr_assets.vault.vault import Vault


def folders_of(vault: Vault, dataset: str | None, as_of: datetime | None) -> tuple[list[Name], list[str]]:
    """Names that lie above the streams (beside the estate's folder, too), and the streams' folders."""
    direct: list[Name] = []
    datasets = [prefix_of(vault.estate, dataset)]
    if dataset is None:
        direct, _ = look(vault.store, "", as_of=as_of)
        names, found = look(vault.store, prefix_of(vault.estate), as_of=as_of)
        direct += names
        datasets = list(found)
    folders: list[str] = []
    for place in datasets:
        names, found = look(vault.store, place, as_of=as_of)
        direct += names
        folders += found
    return direct, sorted(folders, key=lambda folder: (folder.endswith((f"/{WAL}/", f"/{PACKS}/")), folder))


def names_in(vault: Vault, direct: list[Name], folders: list[str], as_of: datetime | None) -> Iterator[Name]:
    """All names, one after the other."""
    yield from direct
    for folder in folders:
        yield from scan(vault.store, folder, as_of=as_of)


def require_keys(vault: Vault, folders: Iterable[str], as_of: datetime | None) -> None:
    """Tell a wrong keys folder once, not object by object. Raises VaultError `vault.wrong_key`."""
    refusal: VaultError | None = None
    for folder in folders:
        if not folder.endswith(f"/{KEYS}/"):
            continue
        for name in scan(vault.store, folder, as_of=as_of):
            if name.key is None or not name.versions:
                continue
            try:
                vault.keys.by_id(name.key.dataset, name.key.system_id)
            except VaultError as error:
                if error.code != "vault.wrong_key":
                    continue
                refusal = error
            else:
                return
    if refusal is not None:
        raise refusal
