"""A witness: the newest names a reader has seen, kept outside the vault, so that an older vault is refused.

What belongs here: the file and the comparison. What stays out: how a vault could have become older.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.expiry_list import expiry_lists
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.log.checkpoint import Checkpoint, origin_of
from dr_assets.vault.log.trust import require_continues
from dr_assets.vault.vault import Vault

FILE_LIMIT_BYTES: Final = 16 << 20
_PASSING: Final = frozenset({("subjects", "ring")})  # backups of people's keys have to be gone after the erasure grace


@dataclass(frozen=True, slots=True)
class Witness:
    """Per place (`estate/dataset/stream/system id/timeline/`) the name with the highest position seen.

    `checkpoints` are the largest of each log, by its origin.
    """

    newest: Mapping[str, ObjectKey] = field(default_factory=dict)
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Iterable[ObjectKey], checkpoints: Iterable[Checkpoint] = ()) -> "Witness":
        """What these names and checkpoints witness."""
        newest: dict[str, ObjectKey] = {}
        for key in keys:
            if (key.dataset, key.stream) in _PASSING:
                continue
            known = newest.get(key.place)
            if known is None or (known.last, known.digest) < (key.last, key.digest):
                newest[key.place] = key
        grown = sorted(checkpoints, key=lambda each: each.size)
        return cls(newest, {each.origin: each for each in grown})

    @classmethod
    def load(cls, path: Path) -> "Witness":
        """The file's content; nothing witnessed yet when it does not exist. Raises PolicyError `vault.bad_witness`."""
        try:
            with path.open("rb") as file:
                raw = json.loads(file.read(FILE_LIMIT_BYTES))
            keys = [ObjectKey.parse(text) for text in raw["newest"]]
            checkpoints = [Checkpoint.parse(text) for text in raw.get("checkpoints", [])]
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, VaultError):
            keys, checkpoints = [None], []
        known = [key for key in keys if key is not None]
        if len(known) != len(keys):
            raise PolicyError(
                "vault.bad_witness", f"{path} is no witness file", "restore it from its copy, or remove it knowingly"
            )
        return cls.of(known, checkpoints)

    def save(self, path: Path) -> None:
        """Replace the file in one step."""
        body: dict[str, list[str]] = {"newest": sorted(map(str, self.newest.values()))}
        if self.checkpoints:
            body["checkpoints"] = sorted(each.text() for each in self.checkpoints.values())
        text = json.dumps(body, indent=2) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)

    def merged(self, other: "Witness") -> "Witness":
        """The newer of both at each place."""
        logs = [*self.checkpoints.values(), *other.checkpoints.values()]
        return Witness.of([*self.newest.values(), *other.newest.values()], logs)

    def moved_on(self, seen: "Witness", estate: str, dataset: str | None) -> "Witness":
        """What is known after a verification of this estate (and dataset) that found everything in order.

        What it did not see again has expired on record, and must not be asked for when that record has expired too.
        """
        others = [
            key
            for key in self.newest.values()
            if key.estate != estate or (dataset is not None and key.dataset != dataset)
        ]
        logs = [*self.checkpoints.values(), *seen.checkpoints.values()]
        return Witness.of([*others, *seen.newest.values()], logs)


def check_witness(vault: Vault, witness: Witness) -> None:
    """Raise VaultError `vault.older_than_witness` when a witnessed object isn't there any more: names it.

    Raises the same for a log with fewer leaves than were witnessed, VaultError `log.forked` for one with others. Looks
    up one name a place, so a restore can afford it. Other estates' names in the file are left alone.
    """
    for checkpoint in witness.checkpoints.values():
        if checkpoint.origin.startswith(origin_of(vault.estate, "")):
            require_continues(vault, checkpoint)
    for key in witness.newest.values():
        if key.estate != vault.estate:
            continue
        try:
            vault.find(key)
        except VaultError as error:
            if error.code != "vault.missing":
                raise
            if _has_expired(vault, key):
                continue
            raise VaultError(
                "vault.older_than_witness",
                f"{key} was seen in this vault once and is gone",
                "the vault was set back or emptied: restore from a replica, or give --as-of and no witness knowingly",
            ) from None


def _has_expired(vault: Vault, key: ObjectKey) -> bool:
    """Whether an expiry list that was sealed names it; only asked for what is gone, and lists are few."""
    return any(row.key == key for listed in expiry_lists(vault, key.dataset) for row in listed)
