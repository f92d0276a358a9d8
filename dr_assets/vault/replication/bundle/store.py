"""A bundle as an object store that can only be read: `verify`, `restore` and our own replicator work over it.

What belongs here: the port over files. What stays out: judging what is read.

The index is held to its signature and the contents to the index when it is opened. Bytes are held to the digests in
their names by whoever reads them; those of the log, whose names have none, to their lines, here. About half a KiB of
memory for each object.
"""

import hashlib
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.names import is_log_name
from dr_assets.vault.replication.bundle.layout import (
    BUNDLE,
    BUNDLE_LIMIT_BYTES,
    CONTENTS,
    LINE_LIMIT_BYTES,
    OBJECTS,
    Bundle,
    Line,
    parse_bundle,
    parse_line,
)
from dr_assets.vault.signing import Trust
from dr_assets.vault.storage import Blob, BucketState, Head, Level, Lock, Put, ThawTier, Version
from dr_assets.vault.storage.refusals import missing, too_large

VERSION_ID: Final = "bundle"


@dataclass(frozen=True, slots=True)
class _Row:
    folder: Path
    line: Line


class BundleStore:
    """An ObjectStore over a bundle's folder; threads may share it."""

    def __init__(self, folder: Path, trust: Trust | None = None) -> None:
        """Raises VaultError `bundle.unfinished`, `bundle.missing`, `bundle.damaged`, and what the index's checks do."""
        self.folder = folder
        self.bundle = _read_index(folder, trust)
        self._rows: dict[str, _Row] = {}
        for volume in self.bundle.volumes:
            self._take_up(folder / volume.name, volume.contents_sha256, volume.objects)
        self._names = sorted(self._rows)

    def head(self, key: str, version_id: str | None = None) -> Head | None:
        """As the port says; the lock is what the source said at the export."""
        row = self._rows.get(key)
        if row is None or version_id not in {None, VERSION_ID}:
            return None
        return _head(row.line)

    def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
        """As the port says."""
        row = self._rows.get(key)
        if row is None or version_id not in {None, VERSION_ID}:
            raise missing(key, version_id)
        path = row.folder / OBJECTS / key
        try:
            size_bytes = _size_of(path)
            if limit_bytes is not None and size_bytes > limit_bytes:
                raise too_large(key, size_bytes, limit_bytes)
            data = path.read_bytes()
        except FileNotFoundError:
            raise missing(key, version_id) from None
        except OSError as error:
            raise _unreadable(path, error) from None
        if is_log_name(key) and hashlib.sha256(data).hexdigest() != row.line.sha256:
            raise VaultError("vault.tampered", f"{path} has not the digest in {CONTENTS}", "use another copy")
        return Blob(_head(row.line), data)

    def get_range(self, key: str, version_id: str, begin: int, end: int) -> bytes:
        """As the port says."""
        row = self._rows.get(key)
        if row is None or version_id != VERSION_ID:
            raise missing(key, version_id)
        path = row.folder / OBJECTS / key
        try:
            _size_of(path)
            with path.open("rb") as file:
                file.seek(begin)
                return file.read(max(0, end - begin))
        except FileNotFoundError:
            raise missing(key, version_id) from None
        except OSError as error:
            raise _unreadable(path, error) from None

    def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
        """As the port says."""
        begin = max(bisect_left(self._names, prefix), bisect_right(self._names, start_after))
        for name in self._names[begin:]:
            if not name.startswith(prefix):
                return
            yield _version(self._rows[name].line)

    def list_name(self, key: str) -> Iterator[Version]:
        """As the port says."""
        row = self._rows.get(key)
        return iter(()) if row is None else iter((_version(row.line),))

    def list_level(self, prefix: str) -> Level:
        """As the port says; goes from folder to folder without looking at what is in them."""
        folders: list[str] = []
        rows: list[Version] = []
        at = bisect_left(self._names, prefix)
        while at < len(self._names) and self._names[at].startswith(prefix):
            head, slash, _ = self._names[at][len(prefix) :].partition("/")
            if slash:
                folders.append(f"{prefix}{head}/")
                at = bisect_left(self._names, f"{prefix}{head}0", at)  # "0" follows "/"
            else:
                rows.append(_version(self._rows[self._names[at]].line))
                at += 1
        return Level(tuple(sorted(set(folders))), tuple(rows))

    def put(self, key: str, data: bytes, sha256: str, lock: Lock) -> Put:
        """Never: raises PolicyError `bundle.read_only`, as all that would change it."""
        del data, sha256, lock
        self._refuse(key)

    def extend(self, key: str, version_id: str, lock: Lock) -> None:
        """Never."""
        del version_id, lock
        self._refuse(key)

    def delete_version(self, key: str, version_id: str) -> None:
        """Never."""
        del version_id
        self._refuse(key)

    def set_hold(self, key: str, version_id: str, *, held: bool) -> None:
        """Never."""
        del version_id, held
        self._refuse(key)

    def thaw(self, key: str, version_id: str, *, days: int, tier: ThawTier) -> None:
        """Nothing is cold here."""
        del key, version_id, days, tier

    def now(self) -> datetime:
        """A folder has no clock of its own: the host's."""
        return datetime.now(UTC).replace(microsecond=0)

    def recent_now(self) -> datetime:
        """As `now`."""
        return self.now()

    def bucket_state(self) -> BucketState:
        """As a folder is: no versions, no lock but the safe's."""
        return BucketState(versioned=False, object_lock=False, default_mode=None, default_lock_days=None)

    def _refuse(self, key: str) -> NoReturn:
        raise PolicyError(
            "bundle.read_only", f"{key} can't be changed in {self.folder}", "`dr-assets vault import` copies a bundle"
        )

    def _take_up(self, folder: Path, sha256: str, objects: int) -> None:
        digest, count = hashlib.sha256(), 0
        try:
            with (folder / CONTENTS).open("rb") as contents:
                while data := contents.readline(LINE_LIMIT_BYTES):
                    digest.update(data)
                    line = parse_line(data, what=f"{folder / CONTENTS}")
                    self._rows[line.name] = _Row(folder, line)
                    count += 1
        except FileNotFoundError:
            raise VaultError(
                "bundle.missing",
                f"{folder} is not there",
                "bring all volumes that bundle.json names into one folder",
            ) from None
        except OSError as error:
            raise _unreadable(folder / CONTENTS, error) from None
        if digest.hexdigest() != sha256 or count != objects:
            raise VaultError(
                "bundle.damaged", f"{folder / CONTENTS} is not what bundle.json says", "use another copy of the bundle"
            )


def _read_index(folder: Path, trust: Trust | None) -> Bundle:
    path = folder / BUNDLE
    try:
        with path.open("rb") as file:
            data = file.read(BUNDLE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise VaultError(
            "bundle.unfinished", f"{folder} has no {BUNDLE}", "run the export again: it goes on; or name another folder"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return parse_bundle(data, trust, what=str(path))


def _size_of(path: Path) -> int:
    """Of a plain file; what blocks when it is opened (a pipe) must not hang who reads a bundle of somebody else's."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise VaultError("vault.tampered", f"{path} is no plain file", "use another copy of the bundle")
    return state.st_size


def _unreadable(path: Path, error: OSError) -> VaultError:
    return VaultError(
        "vault.unreachable", f"{path}: {error.strerror}", "mount the disk, or copy the tape, that holds it"
    )


def _head(line: Line) -> Head:
    return Head(line.name, VERSION_ID, line.size_bytes, None, line.lock, line.stored_at, held=line.held)


def _version(line: Line) -> Version:
    return Version(line.name, VERSION_ID, line.size_bytes, line.stored_at)
