"""All that copying or restoring one bucket takes, put together from its declaration and the environment.

What belongs here: that, and the work folder with its one user at a time. What stays out: the work itself.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import BucketDataset, Estate
from dr_assets.stores.bucket.fetching import Reader
from dr_assets.stores.bucket.names import Names
from dr_assets.stores.bucket.persons import Keys, Ring, Whose
from dr_assets.stores.bucket.runs import system_of
from dr_assets.stores.bucket.source import Place, source_of
from dr_assets.vault.subjects.connect import open_ring, subject_id_key
from dr_assets.vault.subjects.ids import SubjectIds
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Site:
    """One dataset with its vault, its people's keys (None where its documents are nobody's) and its work folder."""

    vault: Vault
    dataset: BucketDataset
    names: Names
    whose: Whose
    ring: Ring | None
    folder: Path

    @property
    def name(self) -> str:
        """The dataset's."""
        return self.dataset.name

    @property
    def system_id(self) -> str:
        """Of the declared bucket and prefix."""
        return system_of(self.dataset.bucket, self.dataset.prefix)

    def reader(self, place: Place) -> Reader:
        """What reads and seals documents, with no key remembered yet. Raises SourceError."""
        keys = Keys(self.ring, is_sealing=True)
        return Reader(place, self.vault.estate, self.name, self.names, self.whose, keys, place.has_versions())

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Nobody else does `what` with this folder meanwhile. Raises PolicyError `bucket.busy`."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / f"{self.name}.{what}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise PolicyError(
                    "bucket.busy",
                    f"another process is at work on the {what} of {self.name} in {self.folder}",
                    "wait for it, or give this one another --work folder",
                ) from None
            yield


def open_site(
    estate: Estate, dataset: BucketDataset, vault: Vault, env: Mapping[str, str], folder: Path, *, signing: bool = True
) -> Site:
    """The dataset's. Raises PolicyError `subjects.undeclared` where its rule wants people, and what the ring raises."""
    if dataset.subject.kind == "none":
        return Site(vault, dataset, Names.of(dataset.name, None), Whose(dataset.subject, None), None, folder)
    id_key = subject_id_key(estate, env)
    names, whose = Names.of(dataset.name, id_key), Whose(dataset.subject, SubjectIds(id_key))
    ring = open_ring(estate, env, signing=signing, role="writer" if signing else "reader")
    return Site(vault, dataset, names, whose, ring, folder)


def open_source(site: Site, env: Mapping[str, str]) -> Place:
    """The declared bucket; nothing is asked yet."""
    return source_of(site.dataset, env)
