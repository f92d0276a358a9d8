"""Full segments: what they say of the micro-segments whose WAL they hold, and the list that names these.

What belongs here: the words in a full's header, how any two pieces of WAL join, the list's content. What stays out:
making them (stores/postgres/rollup.py), reading a stream of them (stores/postgres/full_segments.py).

A micro-segment is a piece as the capture put it. A full holds the bytes of micros that continue one another. So that
fulls and micros can stand for each other anywhere in a chain, a full says in its header what its first micro
continued and what continues its last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dr_assets.vault.format.canonical import Json, malformed, parse_hex
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import WAL, ObjectKey

FULL: Final = "full"
FULL_LIST: Final = "full-list"
FULL_LIMIT_BYTES: Final = 64 << 20

# In a full's header, beside what the capture's pieces have.
ROLE: Final = "role"
ROLLER: Final = "roller"
MICRO_COUNT: Final = "micro_count"
MICRO_KEYS: Final = "micro_keys_sha256"
MICRO_PREVIOUS: Final = "micro_previous"
MICRO_LAST: Final = "micro_last"


def continues(header: Header) -> str | None:
    """The header digest of the micro-segment that this piece, micro or full, goes on behind; None at a beginning."""
    return header.extra.get(MICRO_PREVIOUS) if header.stream == FULL else header.previous


def continued_by(header: Header) -> str:
    """What whoever goes on behind this piece, micro or full, names: the header digest of its last micro-segment.

    Raises VaultError `vault.malformed`.
    """
    if header.stream != FULL:
        return header.digest
    return parse_hex(header.extra.get(MICRO_LAST), 32, f"full segment at {header.first:016X}: {MICRO_LAST}")


def joins(earlier: Header, later: Header) -> bool:
    """Whether `later` was made to follow `earlier`; each may be a micro or a full. Raises VaultError."""
    return earlier.last == later.first and continues(later) == continued_by(earlier)


@dataclass(frozen=True, slots=True)
class Covered:
    """One micro-segment that a full holds: its name, and the SHA-256 (hex) of its plaintext."""

    key: ObjectKey
    plaintext_sha256: str


@dataclass(frozen=True, slots=True)
class FullList:
    """The micro-segments of one full in order; `full` is its name, `header` its header's digest."""

    full: ObjectKey
    header: str
    covered: tuple[Covered, ...]

    def to_json(self) -> dict[str, Json]:
        """The list's plaintext, for `canonical.encode`; names without the part they all share."""
        return {
            "full": str(self.full),
            "full_header": self.header,
            "micros": [[str(row.key).rpartition("/")[2], row.plaintext_sha256] for row in self.covered],
        }


def parse_full_list(body: Mapping[str, Json], *, name: str) -> FullList:
    """The list of an object called `name`. Raises VaultError `vault.malformed`."""
    full, micros = body.get("full"), body.get("micros")
    key = ObjectKey.parse(full) if isinstance(full, str) else None
    if key is None or key.stream != FULL or not isinstance(micros, list):
        raise malformed(f"{name}: no list of a full segment")
    place = f"{key.estate}/{key.dataset}/{WAL}/{key.system_id}/{key.timeline:08X}/"
    covered = tuple(_covered(place, row, name) for row in micros)
    return FullList(key, parse_hex(body.get("full_header"), 32, f"{name}: full_header"), covered)


def _covered(place: str, row: Json, name: str) -> Covered:
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str):  # noqa: PLR2004 - name and digest
        raise malformed(f"{name}: no list of a full segment")
    key = ObjectKey.parse(place + row[0])
    if key is None:
        raise malformed(f"{name}: a micro-segment's name is malformed")
    return Covered(key, parse_hex(row[1], 32, f"{name}: plaintext digest"))


def are_contiguous(keys: Sequence[ObjectKey], first: int, last: int) -> bool:
    """Whether these names, in order, cover [first, last) with nothing between or twice."""
    at = first
    for key in keys:
        if key.first != at:
            return False
        at = key.last
    return bool(keys) and at == last


def extra_of(first: Header, last: Header, keys_sha256: str, count: int) -> dict[str, str]:
    """What a full's header says of its `count` micro-segments, of which these are the first and the last.

    `keys_sha256` is over their names in order, each with a line feed behind it.
    """
    extra = {ROLE: ROLLER, MICRO_COUNT: str(count), MICRO_KEYS: keys_sha256, MICRO_LAST: last.digest}
    return extra | ({} if first.previous is None else {MICRO_PREVIOUS: first.previous})
