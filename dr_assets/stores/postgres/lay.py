"""Laying a base backup out as a data directory that nobody can mistake for a finished one.

What belongs here: where archive members go, which are held back until the end, tablespaces' links. What stays out:
fetching (fetch.py), tar (tar.py), WAL (lay_wal.py), starting servers.

Held back: `PG_VERSION` and `global/pg_control`, without which no server starts on the directory, until everything
else lies there; and the source's configuration, for good, because it may run commands (archive_command,
shared_preload_libraries) on whoever starts it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from dr_assets.engines.placement import RunAs
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.base_manifest import Archive, BaseManifest
from dr_assets.stores.postgres.crc32c import crc32c_hex
from dr_assets.stores.postgres.host import allocate
from dr_assets.stores.postgres.tar import Member, TarReader, unreadable
from dr_assets.vault.format.segment import Opened

LAST: Final = ("PG_VERSION", "global/pg_control")
SETTINGS_FILES: Final = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")
BACKUP_MANIFEST_FILE: Final = "backup_manifest"
TABLESPACES: Final = "pg_tblspc"
_HELD: Final = frozenset({*LAST, *SETTINGS_FILES})
# A server that finds one of these would recover by its source's rules; ours are made when recovery begins.
_DROPPED: Final = frozenset({"standby.signal", "recovery.signal", "recovery.conf", "tablespace_map"})
_HELD_LIMIT_BYTES: Final = 64 << 20
# Ours are made with CRC32C; they were with SHA256, and pg_combinebackup may be told otherwise.
_CHECKSUMS: Final[dict[str, Callable[[bytes], str]]] = {
    "CRC32C": crc32c_hex,
    "SHA256": lambda data: hashlib.sha256(data).hexdigest(),
}
# The first thing in a restored directory's own postgresql.conf until the restore is whole: no server reads past it.
UNFINISHED_CONF: Final = """\
# This directory is an unfinished restore. No server may start on it: it would serve a state that nobody has proven.
# Remove the directory and restore again.
this_restore_is_not_finished
"""


class Layout(Protocol):
    """Where the pieces of one restored cluster lie."""

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        ...

    def tablespace(self, oid: int) -> Path:
        """The folder of a tablespace."""
        ...


@dataclass(slots=True)
class LaidBase:
    """What was laid, and what is held back: file contents by their path in the data directory."""

    size_bytes: int = 0
    held: dict[str, bytes] = field(default_factory=dict)
    backup_manifest: bytes = b""


def lay_base(manifest: BaseManifest, layout: Layout, parts: Iterator[Opened], user: RunAs) -> LaidBase:
    """Unpack every archive of the base backup from its opened parts, which come in order.

    Files belong to `user`. Raises VaultError when an archive is cut, too short or leads elsewhere.
    """
    laid = LaidBase()
    _make_folder(layout.data_dir, user)
    # Whoever starts a server here by hand meets this file before anything else lies there.
    write_file(layout.data_dir / "postgresql.conf", UNFINISHED_CONF.encode(), user)
    for archive in manifest.archives:
        _lay_archive(archive, layout, parts, laid, user)
    pieces = [next(parts).plaintext for _ in range(archive_parts(manifest.backup_manifest))]
    laid.backup_manifest = b"".join(pieces)
    _check_size(manifest.backup_manifest, len(laid.backup_manifest))
    write_file(layout.data_dir / BACKUP_MANIFEST_FILE, laid.backup_manifest, user)
    _check_held(laid)
    return laid


def archive_parts(archive: Archive) -> int:
    """How many parts an archive has."""
    return archive.last_part - archive.first_part


def finish_base(laid: LaidBase, layout: Layout, user: RunAs) -> None:
    """Put `PG_VERSION` and then `global/pg_control` in place: from here on a server with its own settings can start."""
    for name in LAST:
        write_file(layout.data_dir / name, laid.held[name], user)


def write_file(path: Path, data: bytes, user: RunAs, mode: int = 0o600) -> None:
    """Write a new file of `user`'s; raises FileExistsError rather than write over one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        give_open(descriptor, user)
        file.write(data)


def give_open(descriptor: int, user: RunAs) -> None:
    """Hand an open file to `user`."""
    if user.uid != os.geteuid():
        os.fchown(descriptor, user.uid, user.gid)


def _lay_archive(archive: Archive, layout: Layout, parts: Iterator[Opened], laid: LaidBase, user: RunAs) -> None:
    if archive.oid is None:
        sink = ArchiveSink(archive.name, layout.data_dir, laid, user, holds=True)
    else:
        root = layout.tablespace(archive.oid)
        _make_folder(root.parent, user)
        _make_folder(root, user)
        _link_tablespace(layout, archive.oid, root, user)
        sink = ArchiveSink(archive.name, root, laid, user, holds=False)
    reader, size_bytes = TarReader(archive.name, sink), 0
    try:
        for _ in range(archive_parts(archive)):
            for frame in next(parts).frames:
                size_bytes += len(frame)
                reader.feed(frame)
        reader.close()
    finally:
        sink.close()
    _check_size(archive, size_bytes)
    laid.size_bytes += size_bytes


class ArchiveSink:
    """Writes one archive's members below `root`; with `holds`, those of the data directory that come last are kept."""

    def __init__(self, archive: str, root: Path, laid: LaidBase, user: RunAs, *, holds: bool) -> None:
        self._archive = archive
        self._root = os.fspath(root)
        self._laid = laid
        self._user = user
        self._holds = holds
        self._descriptor: int | None = None
        self._held: str | None = None
        self._pieces: list[bytes] = []

    def begin(self, member: Member) -> None:
        """Make the folder, or open the file."""
        name = str(member.path)
        if member.kind == "directory":
            self._folder(name, member.mode)
        elif member.kind == "symlink":
            # The server sends links for tablespaces only; ours lead to where we put them, never to where they were.
            if member.path.parts[:1] != (TABLESPACES,):
                raise unreadable(self._archive, f"a symbolic link {name!r}")
        elif self._holds and (name in _HELD or name in _DROPPED):
            if member.size_bytes > _HELD_LIMIT_BYTES:
                raise unreadable(self._archive, f"{name} of {member.size_bytes} bytes")
            self._held = name
        else:
            self._open(member)

    def data(self, piece: memoryview) -> None:
        """Write a piece."""
        if self._descriptor is None:
            self._pieces.append(bytes(piece))
            return
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]

    def end(self) -> None:
        """The member is whole."""
        self.close()
        if self._held is not None and self._held not in _DROPPED:
            self._laid.held[self._held] = b"".join(self._pieces)
        self._held, self._pieces = None, []

    def close(self) -> None:
        """Close what is open; again is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, member: Member) -> None:
        path = f"{self._root}/{member.path}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, member.mode)
        except FileNotFoundError:
            self._folder(str(member.path.parent), 0o700)
            self._descriptor = os.open(path, flags, member.mode)
        except FileExistsError:
            raise unreadable(self._archive, f"member {str(member.path)!r} twice") from None
        give_open(self._descriptor, self._user)
        allocate(self._descriptor, member.size_bytes)

    def _folder(self, name: str, mode: int) -> None:
        for parent in (*reversed(PurePosixPath(name).parents), PurePosixPath(name)):
            path = Path(self._root, parent)
            if not path.is_dir():
                _make_folder(path, self._user, mode)


def _make_folder(path: Path, user: RunAs, mode: int = 0o700) -> None:
    path.mkdir(mode=mode, exist_ok=True)
    if user.uid != os.geteuid():
        os.chown(path, user.uid, user.gid)


def _link_tablespace(layout: Layout, oid: int, root: Path, user: RunAs) -> None:
    folder = layout.data_dir / TABLESPACES
    _make_folder(folder, user)
    link = folder / str(oid)
    link.symlink_to(root)
    if user.uid != os.geteuid():
        os.chown(link, user.uid, user.gid, follow_symlinks=False)


def _check_size(archive: Archive, size_bytes: int) -> None:
    if size_bytes != archive.size_bytes:
        raise unreadable(archive.name, f"{size_bytes} bytes, the manifest says {archive.size_bytes}")


def _check_held(laid: LaidBase) -> None:
    """What is held back is compared with `backup_manifest` here: pg_verifybackup will not see the settings files."""
    missing = [name for name in LAST if name not in laid.held]
    if missing:
        raise unreadable("base.tar", f"no {missing[0]} in it")
    listed = {
        name: (algorithm, checksum) for name, algorithm, checksum in manifest_files(laid.backup_manifest, laid.held)
    }
    for name, data in laid.held.items():
        if name in listed and _CHECKSUMS[listed[name][0]](data) != listed[name][1]:
            raise VaultError(
                "backup.damaged",
                f"{name} is not the file that PostgreSQL's own backup_manifest describes",
                "restore from an older base backup (--as-of), or from another vault",
            )


def manifest_files(backup_manifest: bytes, names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Path, algorithm and checksum of those `names` that PostgreSQL's `backup_manifest` lists with one we know."""
    wanted = frozenset(names)
    try:
        for entry in json.loads(backup_manifest)["Files"]:
            if entry.get("Path") in wanted and entry.get("Checksum-Algorithm") in _CHECKSUMS:
                yield entry["Path"], entry["Checksum-Algorithm"], entry["Checksum"]
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable(BACKUP_MANIFEST_FILE, f"cannot be read ({type(error).__name__})") from None
