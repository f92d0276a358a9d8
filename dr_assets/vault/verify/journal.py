"""What a verification under way has judged, in a file: whoever was killed goes on where it was.

What belongs here: the file, its form, and what of it may be believed again. What stays out: judging.

A line says that one version of one name was read and found whole, and holds what others are held to. It counts only
while the store lists exactly the same versions and markers under that name; locks are judged anew from what was read.
What had a finding is on no line, and what is on no line is read. The file is as trustworthy as the disk it lies on.
"""

import hashlib
import heapq
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import format_time, parse_time
from dr_assets.vault.format.header import PREFIX_BYTES, Header, parse_header
from dr_assets.vault.format.keys import PACKS, WAL, ObjectKey
from dr_assets.vault.format.pack import LENGTH_BYTES, PackIndex, parse_index
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.examine import Examined, judge_lock
from dr_assets.vault.verify.levels import is_bulk

VALID_FOR: Final = timedelta(days=7)  # what was read longer ago than that is read again
LINE_LIMIT_BYTES: Final = 1 << 20
FLUSH_EVERY_S: Final = 1.0
_CHECK_HEX: Final = 16
_BEGIN: Final = "begin"

Order = tuple[bool, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One judged object as the file holds it."""

    name: str
    listing: str
    fields: dict[str, Any]

    @property
    def order(self) -> Order:
        """Names are examined in this order: WAL last, text order before that and within it."""
        return order_of(self.name)


def order_of(name: str) -> Order:
    """Where a name of ours comes in a verification."""
    return name.split("/")[2:3] in ([WAL], [PACKS]), name


def listing_of(name: Name) -> str:
    """What the store lists under a name, in short: another listing is another object to judge."""
    rows = [
        f"{row.version_id} {row.size_bytes} {row.modified_at.isoformat()}" for row in (*name.versions, *name.markers)
    ]
    return hashlib.sha256("\n".join([str(len(name.versions)), *rows]).encode()).hexdigest()[:32]


class Journal:
    """Reads what earlier runs left behind, in the order of names, and adds to it. Not for several threads."""

    def __init__(self, path: Path, subject: str, now: datetime) -> None:
        """`subject` says what is verified, and how. Raises PolicyError `verify.other_state`, `verify.bad_state`."""
        self.path = path
        self._now = now
        sections = _sections(path, subject)
        self.resumed = bool(sections)
        self._known = heapq.merge(*(_lines(path, *section) for section in sections), key=lambda line: line.order)
        self._ahead = next(self._known, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        self._flushed_s = time.monotonic()
        # A torn last line ends here; the section begins on a line of its own.
        self._file.write(b"\n" + _encoded({_BEGIN: subject}))
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._flush()
        self._file.close()

    def finished(self) -> None:
        """The verification reached its end: the next one begins anew."""
        self.path.unlink(missing_ok=True)

    def recall(self, vault: Vault, name: Name, moment: datetime) -> Examined | None:
        """What was found of this name before, its lock judged at `moment`; None if it has to be examined.

        Ask for the names in their order: what was passed over can't be asked for any more.
        """
        order = order_of(name.text)
        while self._ahead is not None and self._ahead.order < order:
            self._ahead = next(self._known, None)
        line = self._ahead
        if line is None or name.key is None or line.name != name.text or line.listing != listing_of(name):
            return None
        try:
            if not timedelta(0) <= self._now - parse_time(line.fields["read_at"], "read_at") <= VALID_FOR:
                return None
            return _examined(vault, name.key, line, moment)
        except (VaultError, KeyError, TypeError, ValueError):
            return None  # a line in another form than ours: the object tells

    def note(self, name: Name, item: Examined) -> None:
        """Write down what was found whole and without any finding, if there is much of its kind."""
        if item.findings or item.obj is None or item.header is None or item.lock is None or not is_bulk(item.obj.key):
            return  # what speaks of other objects is small, and its words are wanted again
        header = item.header.encoded()[PREFIX_BYTES:].decode("ascii")
        self._file.write(
            _encoded(
                {
                    "name": name.text,
                    "listing": listing_of(name),
                    "version_id": item.obj.version_id,
                    "modified_at": format_time(item.obj.modified_at),
                    "size_bytes": item.size_bytes,
                    "sha256": item.sha256,
                    "header": header,
                    "lock": [item.lock.mode, format_time(item.lock.retain_until)],
                    "read_at": format_time(self._now),
                    **({} if item.index is None else {"index": item.index.encoded()[LENGTH_BYTES:].decode("ascii")}),
                }
            )
        )
        if time.monotonic() - self._flushed_s > FLUSH_EVERY_S:
            self._flush()

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed_s = time.monotonic()


def _examined(vault: Vault, key: ObjectKey, line: Line, now: datetime) -> Examined | None:
    raw = line.fields
    header = parse_header(raw["header"].encode("ascii"))
    if header.key(raw["sha256"]) != key:
        return None
    lock = Lock(raw["lock"][0], parse_time(raw["lock"][1], "lock"))
    version_id, size_bytes = str(raw["version_id"]), int(raw["size_bytes"])
    if judge_lock(vault, key, version_id, lock, header, now):
        return None  # it may have been extended since
    return Examined(
        name=line.name,
        key=key,
        findings=(),
        obj=StoredObject(key, version_id, size_bytes, parse_time(raw["modified_at"], "modified_at")),
        header=header,
        header_sha256=header.digest,
        sha256=str(raw["sha256"]),
        size_bytes=size_bytes,
        lock=lock,
        locked=lock.retain_until > now,
        index=_index(raw.get("index"), header, line.name),
    )


def _index(text: str | None, header: Header, name: str) -> PackIndex | None:
    """What was written down of a pack's index."""
    if text is None:
        return None
    encoded = text.encode("ascii")
    return parse_index(len(encoded).to_bytes(LENGTH_BYTES) + encoded, size_bytes=header.size_bytes, name=name)


def _sections(path: Path, subject: str) -> list[tuple[int, int]]:
    """Where each run's lines lie in the file: from its beginning to the next one's."""
    begins: list[int] = []
    if not path.exists():
        return []
    with path.open("rb") as file:
        while text := file.readline(LINE_LIMIT_BYTES):
            raw = _decoded(text)
            if raw is None or _BEGIN not in raw:
                continue
            if raw[_BEGIN] != subject:
                raise PolicyError(
                    "verify.other_state",
                    f"{path} is of another verification: {str(raw[_BEGIN])[:300]}",
                    "give each vault, dataset, level and moment a state file of its own, or remove it knowingly",
                )
            begins.append(file.tell())
        end = file.tell()
    if end and not begins:
        raise PolicyError(
            "verify.bad_state", f"{path} is no state of a verification", "name another file, or remove it knowingly"
        )
    return list(zip(begins, [*begins[1:], end], strict=True))


def _lines(path: Path, begin: int, end: int) -> Iterator[Line]:
    with path.open("rb") as file:
        file.seek(begin)
        while file.tell() < end and (text := file.readline(LINE_LIMIT_BYTES)):
            raw = _decoded(text)
            if raw is not None and isinstance(raw.get("name"), str) and isinstance(raw.get("listing"), str):
                yield Line(raw["name"], raw["listing"], raw)


def _encoded(fields: dict[str, Any]) -> bytes:
    text = canonical.encode(fields)
    return hashlib.sha256(text).hexdigest()[:_CHECK_HEX].encode("ascii") + b" " + text + b"\n"


def _decoded(text: bytes) -> dict[str, Any] | None:
    """A line that was written to its end; None for any other."""
    check, _, body = text.rstrip(b"\n").partition(b" ")
    if hashlib.sha256(body).hexdigest()[:_CHECK_HEX].encode("ascii") != check:
        return None
    raw = json.loads(body)
    return raw if isinstance(raw, dict) else None
