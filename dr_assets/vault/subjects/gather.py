"""The erasure list from every region that answers, for whoever restores.

What belongs here: who is asked, and what is refused when nobody answers. What stays out: reading and merging
(erased.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import Estate, Subjects
from dr_assets.vault.connect import open_store, open_vault
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.subjects.erased import ErasureList, merge, open_list, read_list, read_marks
from dr_assets.vault.subjects.s3_shelf import S3Shelf
from dr_assets.vault.vault import Vault

# A host may have been given one region's variables only.
_AWAY: Final = STORE_AWAY | {"vault.setting_missing"}


def gather(
    estate: Estate,
    vault: Vault,
    env: Mapping[str, str],
    *,
    is_copy: bool = False,
    saved: Path | None = None,
    accept_copy: bool = False,
) -> ErasureList:
    """Every erasure that any reachable region knows of.

    `vault` is what is restored from. `is_copy`: it is a bundle, whose facts end with its export; then a region has to
    answer, or a `saved` list is given, or somebody `accept_copy`s that whoever was erased since comes back. Raises
    PolicyError `erasure.list_unreachable`, VaultError for a damaged fact.
    """
    lists = [read_list(vault)]
    if estate.subjects is not None:
        regions = [name for name in estate.subjects.vaults if is_copy or name != vault.name]
        found, away = _ask(estate, regions, env)
        lists += found
        if away:
            there = [name for name in estate.subjects.vaults if name not in away]
            lists += [marks for name in there if (marks := _marks(estate, estate.subjects, name, vault, env))]
        answered = bool(found) or (not is_copy and vault.name in estate.subjects.vaults)
        if not (answered or saved or accept_copy):
            raise PolicyError(
                "erasure.list_unreachable",
                f"none of {', '.join(estate.subjects.vaults)} answers; {vault.name} may not know the newest erasures",
                "give the list that `dr-assets erasure list --out` saved (--erasures FILE), or take the responsibility "
                "for whoever was erased since the copy was made (--erasures-of-the-copy)",
            )
    if saved is not None:
        lists.append(open_list(_read(saved), estate.name, vault.trust))
    return merge(lists)


def _ask(estate: Estate, names: list[str], env: Mapping[str, str]) -> tuple[list[ErasureList], set[str]]:
    found: list[ErasureList] = []
    away: set[str] = set()
    for name in names:
        try:
            found.append(read_list(open_vault(estate, name, env, signing=False, role="reader")))
        except DrError as error:
            if error.code not in _AWAY:
                raise
            away.add(name)
    return found, away


def _marks(estate: Estate, subjects: Subjects, name: str, vault: Vault, env: Mapping[str, str]) -> ErasureList | None:
    """What the region's bucket of people's keys says; None where this host may not, or can't, look into it."""
    try:
        shelf = S3Shelf(open_store(estate, name, env).client, subjects.bucket, name)
        return read_marks(shelf, estate.name, vault.trust)
    except DrError as error:
        if error.code not in _AWAY:
            raise
        return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(
            "erasure.no_file", f"{path}: {error.strerror}", "name the file that `dr-assets erasure list` wrote"
        ) from None
