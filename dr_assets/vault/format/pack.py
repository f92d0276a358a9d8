"""What a pack of Kafka record batches holds: an index of slices, then the batches, byte for byte.

What belongs here: the index's form, its bounds, encoding and parsing; docs/format.md §11 is its specification. What
stays out: what a record batch is, cutting packs (stores/kafka/), and what packs say of each other (verify/packs.py).
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast

from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed

INDEX_LIMIT_BYTES: Final = 16 << 20
INDEX_VERSION: Final = 1
_LENGTH: Final = struct.Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size
_OFFSET_END: Final = 1 << 63
_NAME_LIMIT: Final = 255
_ID_HEX: Final = 32
_INT32_END: Final = 1 << 31

Why = Literal["gap", "diverged"]
# A topic's id, a partition, and which export of it from its first offset this is.
Stream = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Break:
    """Why a slice does not begin where its stream's last one ended, at `was`.

    `gap`: retention removed [was, first) before it was fetched. `diverged`: the source's log is another one from
    `first` on, below `was`; what was fetched of [first, was) is not the source's any more.
    """

    why: Why
    was: int


@dataclass(frozen=True, slots=True)
class Slice:
    """One partition's part of a pack: whole record batches, `size_bytes` of them from byte `at` behind the index on.

    They are all there was of offsets [first, next) when they were fetched; the first batch may begin below `first`,
    whose records then are not part of the slice. `count` is what the batches' headers say, `max_timestamp` (ms) their
    highest, `leader_epoch` that of the last. `high_watermark`, `last_stable` and `log_start` are what the leader said.
    """

    topic_id: str
    partition: int
    generation: int
    first: int
    next: int
    at: int
    size_bytes: int
    count: int
    max_timestamp: int
    leader_epoch: int
    high_watermark: int
    last_stable: int
    log_start: int
    transactional: bool = False
    broken: Break | None = None

    @property
    def stream(self) -> Stream:
        """What the offsets count in."""
        return self.topic_id, self.partition, self.generation


@dataclass(frozen=True, slots=True)
class Row:
    """Where a stream stood when a pack was cut, this pack included. `begin` is where its generation begins.

    `began_at` is when the capture began it; `complete`: it once held everything from there up to the end of the log.
    """

    topic_id: str
    partition: int
    generation: int
    begin: int
    next: int
    leader_epoch: int
    high_watermark: int
    last_stable: int
    log_start: int
    began_at: datetime
    complete: bool

    @property
    def stream(self) -> Stream:
        """What the offsets count in."""
        return self.topic_id, self.partition, self.generation


@dataclass(frozen=True, slots=True)
class PackIndex:
    """What a pack holds, in the order of its bytes. `topics` has the name of every topic id that occurs.

    `table` is None in most packs; where it is there, it tells where every stream stood.
    """

    cluster_id: str
    topics: Mapping[str, str]
    slices: tuple[Slice, ...]
    table: tuple[Row, ...] | None = None

    def encoded(self) -> bytes:
        """The bytes that a pack begins with: length and canonical JSON. Raises VaultError for what none could read."""
        text = canonical.encode(self.to_json())
        if len(text) > INDEX_LIMIT_BYTES:
            raise malformed(f"pack index: {len(text)} bytes, at most {INDEX_LIMIT_BYTES} are allowed")
        return _LENGTH.pack(len(text)) + text

    def to_json(self) -> dict[str, Json]:
        """The index itself, for `canonical.encode`."""
        table: Json = None if self.table is None else [_row_json(row) for row in self.table]
        return {
            "version": INDEX_VERSION, "cluster_id": self.cluster_id, "topics": dict(self.topics),
            "slices": [_slice_json(each) for each in self.slices], "table": table,
        }  # fmt: skip


_SLICE_NUMBERS: Final = (
    "partition", "generation", "first", "next", "at", "size_bytes", "count", "max_timestamp", "leader_epoch",
    "high_watermark", "last_stable", "log_start",
)  # fmt: skip
_ROW_NUMBERS: Final = (
    "partition", "generation", "begin", "next", "leader_epoch", "high_watermark", "last_stable", "log_start",
)  # fmt: skip
_SLICE_FIELDS: Final = frozenset({*_SLICE_NUMBERS, "topic_id", "transactional", "broken"})
_ROW_FIELDS: Final = frozenset({*_ROW_NUMBERS, "topic_id", "began_at", "complete"})
_MAY_BE_UNKNOWN: Final = frozenset({"max_timestamp", "leader_epoch", "high_watermark", "last_stable", "log_start"})
_SMALL: Final = frozenset({"partition", "generation", "at", "size_bytes"})


def index_length(head: bytes | bytearray | memoryview) -> int:
    """How many bytes of a pack its index takes, its length's four included. Raises VaultError `vault.malformed`."""
    if len(head) < _LENGTH.size:
        raise malformed("pack: ends before its index")
    (length,) = _LENGTH.unpack_from(head)
    if not 0 < length <= INDEX_LIMIT_BYTES:
        raise malformed(f"pack: an index of {length} bytes")
    return _LENGTH.size + int(length)


def parse_index(plaintext: bytes | bytearray | memoryview, *, size_bytes: int, name: str) -> PackIndex:
    """The index at the beginning of `plaintext`, of a pack of `size_bytes` in all. Raises VaultError `vault.malformed`.

    Its slices are held to lie side by side and to fill the pack.
    """
    end = index_length(plaintext)
    if len(plaintext) < end:
        raise malformed(f"{name}: ends within its index")
    raw = canonical.decode(bytes(plaintext[_LENGTH.size : end]), limit_bytes=INDEX_LIMIT_BYTES, what=f"{name}: index")
    return index_of_json(raw, size_bytes - end, name)


def index_of_json(raw: Mapping[str, Json], size_bytes: int | None, name: str) -> PackIndex:
    """The index that `raw` spells out, of `size_bytes` of batches (None: not known). Raises VaultError."""
    if raw.get("version") != INDEX_VERSION or raw.keys() != {"version", "cluster_id", "topics", "slices", "table"}:
        raise malformed(f"{name}: an index of another form")
    topics, slices, table = raw["topics"], raw["slices"], raw["table"]
    if not isinstance(topics, dict) or not isinstance(slices, list) or not isinstance(table, list | None):
        raise malformed(f"{name}: an index of another form")
    parsed = PackIndex(
        _text(raw["cluster_id"], name),
        {_topic_id(topic_id, name): _text(topic, name) for topic_id, topic in topics.items()},
        tuple(_slice(each, name) for each in slices),
        None if table is None else tuple(_row(each, name) for each in table),
    )
    _check(parsed, size_bytes, name)
    return parsed


def _check(index: PackIndex, size_bytes: int | None, name: str) -> None:
    at = 0
    for each in index.slices:
        if each.at != at or each.size_bytes <= 0 or each.first >= each.next:
            raise malformed(f"{name}: its slices don't lie side by side")
        at += each.size_bytes
    if size_bytes is not None and at != size_bytes:
        raise malformed(f"{name}: its slices hold {at} bytes, behind the index are {size_bytes}")
    _require_names(index, index.slices, name)
    _require_names(index, index.table or (), name)
    rows = [row.stream for row in index.table or ()]
    if len(set(rows)) != len(rows):
        raise malformed(f"{name}: its table names a stream twice")


def _require_names(index: PackIndex, rows: Iterable[Slice | Row], name: str) -> None:
    if any(row.topic_id not in index.topics for row in rows):
        raise malformed(f"{name}: a topic without a name")


def _slice_json(each: Slice) -> dict[str, Json]:
    numbers: dict[str, Json] = {field: getattr(each, field) for field in _SLICE_NUMBERS}
    broken: Json = None if each.broken is None else {"why": each.broken.why, "was": each.broken.was}
    return numbers | {"topic_id": each.topic_id, "transactional": each.transactional, "broken": broken}


def _row_json(row: Row) -> dict[str, Json]:
    numbers: dict[str, Json] = {field: getattr(row, field) for field in _ROW_NUMBERS}
    began_at = canonical.format_time(row.began_at)
    return numbers | {"topic_id": row.topic_id, "began_at": began_at, "complete": row.complete}


def _slice(raw: Json, name: str) -> Slice:
    fields = _fields(raw, _SLICE_FIELDS, name)
    numbers = {field: _number(fields[field], field, name) for field in _SLICE_NUMBERS}
    return Slice(
        topic_id=_topic_id(fields["topic_id"], name), transactional=_flag(fields["transactional"], name),
        broken=_broken(fields["broken"], numbers["first"], name), **numbers,
    )  # fmt: skip


def _row(raw: Json, name: str) -> Row:
    fields = _fields(raw, _ROW_FIELDS, name)
    numbers = {field: _number(fields[field], field, name) for field in _ROW_NUMBERS}
    return Row(
        topic_id=_topic_id(fields["topic_id"], name), complete=_flag(fields["complete"], name),
        began_at=canonical.parse_time(fields["began_at"], f"{name}: began_at"), **numbers,
    )  # fmt: skip


def _broken(raw: Json, first: int, name: str) -> Break | None:
    if raw is None:
        return None
    fields = _fields(raw, frozenset({"why", "was"}), name)
    was = _number(fields["was"], "was", name)
    if fields["why"] != ("gap" if was < first else "diverged") or was == first:
        raise malformed(f"{name}: a slice is broken off in no way that there is")
    return Break(cast("Why", fields["why"]), was)


def _fields(raw: Json, wanted: frozenset[str], name: str) -> dict[str, Json]:
    if not isinstance(raw, dict) or raw.keys() != wanted:
        raise malformed(f"{name}: an index with other fields")
    return raw


def _number(value: Json, field: str, name: str) -> int:
    least = -1 if field in _MAY_BE_UNKNOWN else 0
    end = _INT32_END if field in _SMALL else _OFFSET_END
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < end:
        raise malformed(f"{name}: {field} is out of bounds")
    return value


def _flag(value: Json, name: str) -> bool:
    if not isinstance(value, bool):
        raise malformed(f"{name}: an index with other fields")
    return value


def _text(value: Json, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_LIMIT:
        raise malformed(f"{name}: a name that can't be one")
    return value


def _topic_id(value: Json, name: str) -> str:
    return canonical.parse_hex(value, _ID_HEX // 2, f"{name}: topic_id")
