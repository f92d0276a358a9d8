"""Writing a bundle: everything that the vault held at one moment, as files that were read back.

What belongs here: the order, going on after a kill, volumes. What stays out: the layout (layout.py).

A batch of objects is written, synchronised, read back from the disk; then its lines are added to the contents. So
whatever a line names was on the disk, and a run that is killed goes on behind the last line, with the moment that the
first run fixed. The index comes last: a folder without it claims nothing.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time, parse_time
from dr_assets.vault.replication.bundle.files import digest_of, digest_on_disk, sync_folder, write_whole
from dr_assets.vault.replication.bundle.layout import (
    BUNDLE,
    CONTENTS,
    LINE_LIMIT_BYTES,
    OBJECTS,
    README,
    README_TEXT,
    TRUST,
    UNFINISHED,
    Bundle,
    Line,
    Volume,
    parse_line,
)
from dr_assets.vault.replication.ordered import in_order
from dr_assets.vault.replication.overlaid import Overlaid
from dr_assets.vault.replication.proof import LOG_LIMIT_BYTES, held_at_source
from dr_assets.vault.replication.routes import SHARED
from dr_assets.vault.replication.walk import Pair, here, places
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.storage.versions import get_authentic
from dr_assets.vault.vault import Vault

BATCH_OBJECTS: Final = 256
BATCH_BYTES: Final = 64 << 20
WORKERS: Final = 8

Listener = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What the folder holds now, and how much of it this run wrote."""

    bundle: Bundle
    written: int
    written_bytes: int


@dataclass(slots=True)
class _Open:
    """The volume that is being filled."""

    name: str
    folder: Path
    objects: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Batch:
    """Objects that were written, and are not in the contents yet."""

    lines: list[Line] = field(default_factory=list)
    size_bytes: int = 0


def export_bundle(
    vault: Vault,
    folder: Path,
    datasets: tuple[str, ...],
    *,
    volume_bytes: int | None = None,
    listener: Listener | None = None,
) -> Exported:
    """Write, or go on writing, the bundle of these datasets, of what the estate shares and of the log.

    A volume is closed before the object with which it would hold more than `volume_bytes`. `listener` is told objects
    and bytes. Raises PolicyError `bundle.*` for a folder that holds something else, or a whole bundle; VaultError when
    the store can't be read. What is damaged at the source is listed in the index's `lacks`.
    """
    return _Export(vault, folder, tuple(dict.fromkeys((*datasets, *SHARED))), volume_bytes, listener).run()


class _Export:
    """One run."""

    def __init__(
        self, vault: Vault, folder: Path, datasets: tuple[str, ...], volume_bytes: int | None, listener: Listener | None
    ) -> None:
        self._vault = vault
        self._folder = folder
        self._datasets = datasets
        self._volume_bytes = volume_bytes
        self._listener = listener
        self._done: set[int] = set()
        self._volumes: list[_Open] = []
        self._batch = _Batch()
        self._lacks: list[str] = []
        self._written = self._written_bytes = 0

    def run(self) -> Exported:
        """Begin or go on; end with the index."""
        as_of = self._begin()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="export") as pool:
            for pair, fetched in in_order(pool, self._todo(as_of), self._fetch, lambda pair: pair.size_bytes):
                if isinstance(fetched, str):
                    self._lacks.append(fetched)
                elif fetched is not None:
                    self._write(pair, *fetched)
        self._flush()
        return Exported(self._end(as_of), self._written, self._written_bytes)

    # -- begin and go on --------------------------------------------------------------------------------------------

    def _begin(self) -> datetime:
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / BUNDLE).exists():
            raise PolicyError(
                "bundle.is_whole", f"{self._folder} holds a whole bundle", "name an empty folder for a new one"
            )
        unfinished = self._folder / UNFINISHED
        wanted: dict[str, Json] = {
            "estate": self._vault.estate,
            "vault": self._vault.name,
            "datasets": list(self._datasets),
            "volume_bytes": self._volume_bytes,
        }
        if not unfinished.exists():
            if any(path.name != f"{UNFINISHED}.part" for path in self._folder.iterdir()):
                raise PolicyError("bundle.not_empty", f"{self._folder} is not empty", "name an empty or new folder")
            as_of = self._vault.store.now() - timedelta(seconds=1)
            write_whole(unfinished, canonical.encode({**wanted, "as_of": format_time(as_of)}))
            return as_of
        raw = canonical.decode(unfinished.read_bytes(), limit_bytes=1 << 20, what=str(unfinished))
        as_of = parse_time(raw.pop("as_of", None), f"{unfinished}: as_of")
        if raw != wanted:
            raise PolicyError(
                "bundle.other",
                f"{self._folder} holds the beginning of another bundle",
                "go on with the same vault, datasets and volume size, or name another folder",
            )
        self._take_up()
        return as_of

    def _take_up(self) -> None:
        """What the volumes' contents name is there; a line that was cut off is not."""
        for folder in sorted(self._folder.glob("volume-*")):
            volume = _Open(folder.name, folder)
            for line in _whole_lines(folder / CONTENTS):
                self._done.add(hash(line.name))
                volume.objects += 1
                volume.size_bytes += line.size_bytes
            self._volumes.append(volume)

    def _todo(self, as_of: datetime) -> Iterator[Pair]:
        store, overlaid = self._vault.store, Overlaid(self._vault)
        for place in places(store, self._vault.estate, self._datasets):
            for listed in here(store, place, as_of):
                pair = None if hash(listed.text) in self._done else overlaid.settled(listed)
                if pair is not None:
                    yield pair

    # -- one object -------------------------------------------------------------------------------------------------

    def _fetch(self, pair: Pair) -> tuple[Line, bytes] | str | None:
        """Line and bytes; the name of what is damaged; None for what was never ours, or is gone by now."""
        store = self._vault.store
        try:
            head = held_at_source(store, pair)
            if head is None:
                return None
            if pair.key is None:
                data = store.get(pair.text, head.version_id, limit_bytes=LOG_LIMIT_BYTES).data
            else:
                data = get_authentic(store, pair.key, head.version_id or None).data
        except VaultError as error:
            if error.code == "vault.missing":
                return None
            if error.code in STORE_AWAY or error.code != "vault.tampered":
                raise
            return pair.text
        sha256 = hashlib.sha256(data).hexdigest()
        return Line(pair.text, sha256, len(data), head.modified_at, head.lock, head.held), data

    def _write(self, pair: Pair, line: Line, data: bytes) -> None:
        if not self._volumes or self._is_full(line.size_bytes):
            self._flush()
            self._volumes.append(self._new_volume())
        volume = self._volumes[-1]
        path = volume.folder / OBJECTS / pair.text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        volume.objects += 1
        volume.size_bytes += line.size_bytes
        self._batch.lines.append(line)
        self._batch.size_bytes += line.size_bytes
        if len(self._batch.lines) >= BATCH_OBJECTS or self._batch.size_bytes >= BATCH_BYTES:
            self._flush()

    def _is_full(self, more_bytes: int) -> bool:
        volume = self._volumes[-1]
        return bool(
            self._volume_bytes is not None and volume.objects and volume.size_bytes + more_bytes > self._volume_bytes
        )

    def _new_volume(self) -> _Open:
        name = f"volume-{len(self._volumes) + 1:04d}"
        folder = self._folder / name
        folder.mkdir()
        sync_folder(self._folder)
        return _Open(name, folder)

    def _flush(self) -> None:
        """Synchronise the batch, read it back from the disk, and only then name it in the contents."""
        if not self._batch.lines:
            return
        volume, batch, self._batch = self._volumes[-1], self._batch, _Batch()
        folders: set[Path] = set()
        paths = [volume.folder / OBJECTS / line.name for line in batch.lines]
        for path in paths:
            _sync(path)
            folders |= {parent for parent in path.parents if parent.is_relative_to(volume.folder)}
        for folder in folders:
            sync_folder(folder)
        for path, line in zip(paths, batch.lines, strict=True):
            if digest_on_disk(path) != line.sha256:
                raise VaultError(
                    "bundle.not_written", f"{path} does not read back", "the disk is faulty: use another one"
                )
        with (volume.folder / CONTENTS).open("ab") as contents:
            contents.write(b"".join(line.encoded() for line in batch.lines))
            contents.flush()
            os.fsync(contents.fileno())
        sync_folder(volume.folder)
        self._written += len(batch.lines)
        self._written_bytes += batch.size_bytes
        if self._listener is not None:
            self._listener(self._written, self._written_bytes)

    # -- end --------------------------------------------------------------------------------------------------------

    def _end(self, as_of: datetime) -> Bundle:
        vault, filled = self._vault, [volume for volume in self._volumes if volume.objects]
        volumes = tuple(
            Volume(volume.name, volume.objects, volume.size_bytes, digest_of(volume.folder / CONTENTS))
            for volume in filled
        )
        bundle = Bundle(vault.estate, vault.name, as_of, self._datasets, volumes, tuple(self._lacks))
        write_whole(self._folder / README, README_TEXT.encode("ascii"))
        (self._folder / TRUST).unlink(missing_ok=True)
        vault.trust.save(self._folder / TRUST, name=f"{vault.estate} signer")
        _sync(self._folder / TRUST)
        write_whole(self._folder / BUNDLE, bundle.encoded(vault.signer))
        (self._folder / UNFINISHED).unlink()
        sync_folder(self._folder)
        return bundle


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole_lines(path: Path) -> Iterator[Line]:
    """The lines up to the first that was cut off, which is cut away; that only the last one can be."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        while (data := file.readline(LINE_LIMIT_BYTES)).endswith(b"\n"):
            yield parse_line(data, what=str(path))
            end += len(data)
    os.truncate(path, end)
