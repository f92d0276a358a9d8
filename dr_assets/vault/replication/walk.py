"""Going through what has to lie in the other region: places in an order that is safe to die in, names side by side.

What belongs here: finding places, their order, joining two listings. What stays out: judging a pair (proof.py).

Keys come first, then what data they open, then what speaks of that (manifests, lists, facts), and the log last: a copy
that was cut short claims nothing that it has not. Both listings come in one order; whatever a store's listing loses,
the proof asks for by name before it calls it missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from dr_assets.vault.format.keys import BASE, KEYS, LOG, ObjectKey, fact_stream
from dr_assets.vault.log.names import is_log_name
from dr_assets.vault.storage import ObjectStore, Version
from dr_assets.vault.storage.versions import Name, look, scan

_CHECKPOINTS: Final = "checkpoint"
_TILES: Final = "tile"
# Backups of people's keys go to each vault by their own writer, and are forgotten there (docs/format.md).
_NEVER: Final = ("subjects/ring/",)
_LAST_STREAMS: Final = ("full-list", "pack-list", BASE, "expiry-list")  # after what they list, before facts


@dataclass(frozen=True, slots=True)
class Place:
    """A folder whose names are gone through as one. `resumes`: it lists in order, so a listing may begin in it."""

    prefix: str
    dataset: str
    resumes: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A name of ours with its versions here and there, oldest first. `key` is None for what is the log's."""

    text: str
    key: ObjectKey | None
    source: tuple[Version, ...]
    replica: tuple[Version, ...]

    @property
    def put_at(self) -> datetime:
        """When the source took it, by its own clock."""
        return self.source[0].modified_at

    @property
    def size_bytes(self) -> int:
        """As the source lists its oldest version."""
        return self.source[0].size_bytes


def places(store: ObjectStore, estate: str, datasets: tuple[str, ...]) -> Iterator[Place]:
    """Every place of these datasets and of the log, by the order of kinds and then by name. Lists folders only."""
    streams = [
        (_rank(stream), dataset, stream)
        for dataset in datasets
        for stream in _folders(store, f"{estate}/{dataset}/")
        if not stream.endswith(_NEVER)
    ]
    for _, dataset, stream in sorted(streams):
        for system in _folders(store, stream):
            for timeline in _folders(store, system):
                yield Place(timeline, dataset, resumes=True)
    for folder in sorted(_folders(store, f"{estate}/{LOG}/"), key=lambda folder: folder.endswith(f"/{_CHECKPOINTS}/")):
        yield Place(folder, LOG, resumes=False)


def pairs(source: ObjectStore, replica: ObjectStore, place: Place, start_after: str, as_of: datetime) -> Iterator[Pair]:
    """The place's names at the source as it was at `as_of`, each with what the replica lists under it now."""
    there = _names(replica, place, start_after, None)
    other = next(there, None)
    for name in _names(source, place, start_after, as_of):
        while other is not None and other.text < name.text:
            other = next(there, None)
        if not name.versions or not _is_ours(name, place):
            continue
        found = other.versions if other is not None and other.text == name.text else ()
        yield Pair(name.text, name.key if place.dataset != LOG else None, name.versions, found)


def here(store: ObjectStore, place: Place, as_of: datetime) -> Iterator[Pair]:
    """As `pairs`, of one store alone."""
    for name in _names(store, place, "", as_of):
        if name.versions and _is_ours(name, place):
            yield Pair(name.text, name.key if place.dataset != LOG else None, name.versions, ())


def _is_ours(name: Name, place: Place) -> bool:
    return is_log_name(name.text) if place.dataset == LOG else name.key is not None


def _names(store: ObjectStore, place: Place, start_after: str, as_of: datetime | None) -> Iterator[Name]:
    """In the order of their texts."""
    if place.dataset != LOG:
        return scan(store, place.prefix, start_after, as_of=as_of)
    if place.prefix.endswith(f"/{_TILES}/"):  # names there begin one another: a flat listing may lose some
        return iter(sorted(scan(store, place.prefix, as_of=as_of), key=lambda name: name.text))
    return _flat(store, place.prefix, as_of)


def _flat(store: ObjectStore, prefix: str, as_of: datetime | None) -> Iterator[Name]:
    for text, rows in groupby(store.list_versions(prefix), key=lambda row: row.key):
        known = [row for row in reversed(list(rows)) if as_of is None or row.modified_at <= as_of]
        versions = sorted((row for row in known if not row.is_delete_marker), key=lambda row: row.modified_at)
        yield Name(text, None, tuple(versions), ())


def _folders(store: ObjectStore, prefix: str) -> tuple[str, ...]:
    return look(store, prefix)[1]


def _rank(stream: str) -> tuple[int, str]:
    """Keys, then bytes, then what names them, then facts, and of these what counts the others last."""
    name = stream.rstrip("/").rsplit("/", 1)[1]
    if name == KEYS:
        return 0, stream
    if name == fact_stream("inventory"):
        return 4, stream
    if name.startswith(fact_stream("")):
        return 3, stream
    return (2 if name in _LAST_STREAMS else 1), stream
