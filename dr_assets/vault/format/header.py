"""The header of a sealed object: what it holds, where it belongs, under which key, signed by whom.

What belongs here: its fields, their bounds, canonical bytes and digest. What stays out: frames and trailer.
"""

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_hex, parse_time
from dr_assets.vault.format.keys import POSITION_END, TIMELINE_END, ObjectKey, is_name

MAGIC: Final = b"\x89DRSEAL"  # the first byte is not ASCII, so that a transfer that strips bit 7 is seen at once
VERSION: Final = 1
CODEC: Final = "zstd+aes-256-gcm"
KINDS: Final = frozenset({"wal", "part", "manifest", "fact", "ring", "pack"})
HEADER_LIMIT_BYTES: Final = 64 * 1024
PREFIX_BYTES: Final = len(MAGIC) + 1 + 4
PLAINTEXT_LIMIT_BYTES: Final = 1 << 30
EXTRA_LIMIT: Final = 64
EXTRA_VALUE_LIMIT: Final = 4096

_EXTRA_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_POSITION: Final = re.compile(r"[0-9A-F]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Header:
    """All fields of docs/format.md. Digests, salt and ids are lower-case hex; times are aware UTC.

    `first` and `last` are positions in the stream, half-open. `size_bytes` is the plaintext's. `previous` is the
    digest of the header before this one in its chain, None where a chain begins. `writer_epoch` rises with every
    start of a writer.
    """

    estate: str
    dataset: str
    stream: str
    kind: str
    system_id: str
    timeline: int
    first: int
    last: int
    begin_at: datetime
    end_at: datetime
    sealed_at: datetime
    size_bytes: int
    plaintext_sha256: str
    key_id: str
    salt: str
    key_commitment: str
    signer_id: str
    previous: str | None = None
    writer_epoch: int = 0
    codec: str = CODEC
    extra: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Magic, version, length and canonical JSON: the bytes that an object begins with."""
        text = canonical.encode(self._to_json())
        if len(text) > HEADER_LIMIT_BYTES:
            raise malformed(f"header: {len(text)} bytes, at most {HEADER_LIMIT_BYTES} are allowed")
        return MAGIC + bytes([VERSION]) + struct.pack(">I", len(text)) + text

    @property
    def digest(self) -> str:
        """SHA-256 of `encoded()`: what the next header of the chain calls `previous`."""
        return hashlib.sha256(self.encoded()).hexdigest()

    def key(self, object_sha256: str) -> ObjectKey:
        """The only name under which an object with this header and this digest may lie."""
        return ObjectKey(
            self.estate,
            self.dataset,
            self.stream,
            self.system_id,
            self.timeline,
            self.first,
            self.last,
            object_sha256[:32],
        )

    def _to_json(self) -> dict[str, Json]:
        times = {name: canonical.format_time(getattr(self, name)) for name in _TIMES}
        plain = {name: getattr(self, name) for name in (*_NAMES, *_DIGESTS, *_INTEGERS, "kind", "codec", "previous")}
        return plain | times | {"first": f"{self.first:016X}", "last": f"{self.last:016X}", "extra": dict(self.extra)}


_NAMES: Final = ("estate", "dataset", "stream", "system_id")
_TIMES: Final = ("begin_at", "end_at", "sealed_at")
_DIGESTS: Final = {"plaintext_sha256": 32, "key_id": 16, "salt": 32, "key_commitment": 32, "signer_id": 16}
_INTEGERS: Final = {"timeline": TIMELINE_END, "size_bytes": PLAINTEXT_LIMIT_BYTES + 1, "writer_epoch": 1 << 53}
FIELDS: Final = frozenset(
    {*_NAMES, *_TIMES, *_DIGESTS, *_INTEGERS, "kind", "codec", "previous", "first", "last", "extra"}
)


def parse_header(text: bytes) -> Header:
    """The header that `text` (without magic, version and length) is the canonical encoding of.

    Every field is checked against its bounds; raises VaultError `vault.malformed` naming the first that is wrong.
    """
    raw = canonical.decode(text, limit_bytes=HEADER_LIMIT_BYTES, what="header")
    if raw.keys() != FIELDS:
        raise malformed(f"header: unknown or missing fields {sorted(raw.keys() ^ FIELDS)[:5]}")
    first, last = _position(raw, "first"), _position(raw, "last")
    if first >= last:
        raise malformed("header: first is not below last")
    previous = raw["previous"]
    return Header(
        estate=_name(raw, "estate"),
        dataset=_name(raw, "dataset"),
        stream=_name(raw, "stream"),
        kind=_one_of(raw, "kind", KINDS),
        system_id=_name(raw, "system_id"),
        timeline=_integer(raw, "timeline"),
        first=first,
        last=last,
        begin_at=parse_time(raw["begin_at"], "header: begin_at"),
        end_at=parse_time(raw["end_at"], "header: end_at"),
        sealed_at=parse_time(raw["sealed_at"], "header: sealed_at"),
        size_bytes=_integer(raw, "size_bytes"),
        plaintext_sha256=_digest(raw, "plaintext_sha256"),
        key_id=_digest(raw, "key_id"),
        salt=_digest(raw, "salt"),
        key_commitment=_digest(raw, "key_commitment"),
        signer_id=_digest(raw, "signer_id"),
        previous=None if previous is None else parse_hex(previous, 32, "header: previous"),
        writer_epoch=_integer(raw, "writer_epoch"),
        codec=_one_of(raw, "codec", frozenset({CODEC})),
        extra=_extra(raw["extra"]),
    )


def _digest(raw: dict[str, Json], field_name: str) -> str:
    return parse_hex(raw[field_name], _DIGESTS[field_name], f"header: {field_name}")


def _name(raw: dict[str, Json], field_name: str) -> str:
    value = raw[field_name]
    if not isinstance(value, str) or not is_name(value):
        raise malformed(f"header: {field_name} is no name")
    return value


def _one_of(raw: dict[str, Json], field_name: str, allowed: frozenset[str]) -> str:
    value = raw[field_name]
    if not isinstance(value, str) or value not in allowed:
        raise malformed(f"header: {field_name} is none of {', '.join(sorted(allowed))}")
    return value


def _integer(raw: dict[str, Json], field_name: str) -> int:
    value = raw[field_name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _INTEGERS[field_name]:
        raise malformed(f"header: {field_name} is out of bounds")
    return value


def _position(raw: dict[str, Json], field_name: str) -> int:
    value = raw[field_name]
    if not isinstance(value, str) or not _POSITION.fullmatch(value):
        raise malformed(f"header: {field_name} is not a position of 16 upper-case hex digits")
    return int(value, 16)


def _extra(raw: Json) -> dict[str, str]:
    if not isinstance(raw, dict) or len(raw) > EXTRA_LIMIT:
        raise malformed(f"header: extra is no object of at most {EXTRA_LIMIT} texts")
    extra: dict[str, str] = {}
    for name, value in raw.items():
        if not _EXTRA_NAME.fullmatch(name) or not isinstance(value, str) or not _plain(value):
            raise malformed("header: extra holds a name or text that is not allowed")
        extra[name] = value
    return extra


def _plain(text: str) -> bool:
    """Short enough, and Unicode proper: half of a surrogate pair would break whoever prints it."""
    return len(text) <= EXTRA_VALUE_LIMIT and not any("\ud800" <= char <= "\udfff" for char in text)


def check_header(header: Header) -> Header:
    """`header` after the same checks that a reader makes, so that nothing is written that can't be read."""
    if not 0 <= header.first < header.last < POSITION_END:
        raise malformed(f"header: [{header.first}, {header.last}) is no range of positions")
    return parse_header(header.encoded()[PREFIX_BYTES:])
