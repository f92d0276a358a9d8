"""The tar stream of a base backup, read as it arrives: constant memory, no seeking, nothing trusted.

What belongs here: parsing ustar headers as PostgreSQL writes them, cutting the stream into members. What stays out:
where members go (lay.py) and fetching the bytes (fetch.py). Members are handed out as pieces of the fed buffers,
without copies.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from dr_assets.estate.errors import VaultError

BLOCK_BYTES = 512
_NO_BLOCK = bytes(BLOCK_BYTES)
_KINDS: dict[bytes, Literal["file", "directory", "symlink"]] = {
    b"0": "file",
    b"\0": "file",
    b"5": "directory",
    b"2": "symlink",
}
_CHECKSUM = slice(148, 156)
_BASE_256 = 0x80


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive: a relative path without `..`, its permission bits, for files its size."""

    path: PurePosixPath
    kind: Literal["file", "directory", "symlink"]
    mode: int
    size_bytes: int
    link: str


class MemberSink(Protocol):
    """Takes members in the archive's order: begin, data until `size_bytes` are there, end."""

    def begin(self, member: Member) -> None:
        """A member begins."""

    def data(self, piece: memoryview) -> None:
        """A piece of the member that began last; the buffer is not ours after the call."""

    def end(self) -> None:
        """The member that began last is whole."""


class TarReader:
    """Cuts one archive into members. Feed it pieces of any size in order, then `close()` it."""

    def __init__(self, archive: str, sink: MemberSink) -> None:
        self._archive = archive
        self._sink = sink
        self._head = b""
        self._inside = False
        self._data_left = 0
        self._padding_left = 0

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the archive. Raises VaultError (`backup.unreadable`) for what is no such archive."""
        view = memoryview(data)
        while view:
            if self._data_left:
                taken = self._feed_data(view)
            elif self._padding_left:
                taken = min(self._padding_left, len(view))
                self._padding_left -= taken
            else:
                taken = self._feed_head(view)
            view = view[taken:]

    def close(self) -> None:
        """The archive's last byte was fed. Raises VaultError (`backup.unreadable`) when it is cut."""
        if self._inside or self._padding_left or self._head:
            raise unreadable(self._archive, "ends inside a member")

    def _feed_data(self, view: memoryview) -> int:
        piece = view[: self._data_left]
        self._sink.data(piece)
        self._data_left -= len(piece)
        if not self._data_left:
            self._inside = False
            self._sink.end()
        return len(piece)

    def _feed_head(self, view: memoryview) -> int:
        piece = view[: BLOCK_BYTES - len(self._head)]
        self._head += bytes(piece)
        if len(self._head) == BLOCK_BYTES:
            head, self._head = self._head, b""
            # Two empty blocks end an archive; the server may leave them out.
            if head != _NO_BLOCK:
                self._begin(parse_member(head, self._archive))
        return len(piece)

    def _begin(self, member: Member) -> None:
        self._sink.begin(member)
        self._data_left = member.size_bytes
        self._padding_left = -member.size_bytes % BLOCK_BYTES
        self._inside = bool(member.size_bytes)
        if not self._inside:
            self._sink.end()


def parse_member(head: bytes, archive: str) -> Member:
    """The member that a 512-byte header describes. Raises VaultError (`backup.unreadable`)."""
    summed = sum(head[: _CHECKSUM.start]) + 8 * ord(" ") + sum(head[_CHECKSUM.stop :])
    if _number(head[_CHECKSUM], archive) != summed:
        raise unreadable(archive, "a member's header has a wrong checksum")
    kind = _KINDS.get(head[156:157])
    if kind is None:
        raise unreadable(archive, f"a member of kind {head[156:157]!r}")
    name, prefix = _text(head[0:100]), _text(head[345:500])
    path = PurePosixPath(prefix, name) if prefix else PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise unreadable(archive, f"member {str(path)!r} leads out of the data directory")
    size_bytes = _number(head[124:136], archive) if kind == "file" else 0
    return Member(path, kind, _number(head[100:108], archive) & 0o777, size_bytes, _text(head[157:257]))


def unreadable(archive: str, found: str) -> VaultError:
    """The error for an archive that cannot be taken apart."""
    return VaultError(
        "backup.unreadable",
        f"archive {archive}: {found}",
        "restore from an older base backup (--as-of), or from another vault",
    )


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes, archive: str) -> int:
    """Octal text; from 8 GiB on a binary number whose first byte says so."""
    if field[0] & _BASE_256:
        return int.from_bytes(bytes([field[0] & ~_BASE_256]) + field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise unreadable(archive, "a member's header holds a number that is none") from None
