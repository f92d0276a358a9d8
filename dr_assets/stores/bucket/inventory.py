"""An inventory: one row for every version and delete marker, with where its records lie; cut into shards.

What belongs here: rows, and a shard's bytes. What stays out: gathering rows (index.py), putting shards (copy.py).

Rows are in the order of name ids, and of age within a name. Nothing in them tells a person's name: whoever has the
dataset's key and not the person's sees digests, sizes and times.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dr_assets.stores.bucket.names import FOLDER_BYTES, NAME_BYTES
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.format.sizes import SEGMENT_LIMIT_BYTES

FORMAT: Final = "dr_assets.bucket_inventory"
VERSION: Final = 1
SHARD_ROWS: Final = 8192
_COLUMNS: Final = 11

State = Literal["version", "marker", "withheld"]
_LETTERS: Final[dict[State, str]] = {"version": "v", "marker": "m", "withheld": "x"}
_STATES: Final[dict[str, State]] = {letter: state for state, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Spot:
    """Bytes [offset, offset + length) of a part's plaintext."""

    part: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Row:
    """One version. `order` grows with age within a name: µs of its last modification, told apart within a second.

    `withheld`: it belongs to a person whose key was deleted when it was to be sealed, so nothing of it is here.
    `head` is where its head lies (with the content, unless that lies in `pieces`). `gone_at` (µs): the listing that
    had it no more; None while it is there.
    """

    name_id: bytes
    version: str
    order: int
    state: State
    subject_id: str | None
    size_bytes: int
    digest: str
    folders: tuple[bytes, ...]
    head: Spot | None
    pieces: tuple[Spot, ...] = ()
    gone_at: int | None = None

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Everywhere that something of it lies."""
        return (*self.pieces, *([self.head] if self.head else []))


def encode_shard(rows: Sequence[Row]) -> bytes:
    """Canonical JSON; parts and folders stand once each, and rows name them by their number."""
    parts: dict[str, int] = {}
    folders: dict[bytes, int] = {}

    def spot(at: Spot | None) -> list[Json] | None:
        return None if at is None else [parts.setdefault(at.part, len(parts)), at.offset, at.length]

    encoded: list[Json] = [
        [
            row.name_id.hex(),
            row.version,
            row.order,
            _LETTERS[row.state],
            row.subject_id,
            row.size_bytes,
            row.digest,
            [folders.setdefault(folder, len(folders)) for folder in row.folders],
            spot(row.head),
            [spot(piece) for piece in row.pieces],
            row.gone_at,
        ]
        for row in rows
    ]
    return canonical.encode(
        {
            "format": FORMAT,
            "version": VERSION,
            "parts": list(parts),
            "folders": [folder.hex() for folder in folders],
            "rows": encoded,
        }
    )


def decode_shard(data: bytes, *, name: str) -> list[Row]:
    """The rows of a shard called `name`. Raises VaultError `vault.malformed`."""
    raw = canonical.decode(data, limit_bytes=SEGMENT_LIMIT_BYTES, what=name)
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise malformed(f"{name}: no inventory of a bucket that this program reads")
    try:
        parts = _texts(raw["parts"])
        folders = [_folder(text) for text in _texts(raw["folders"])]
        rows = raw["rows"]
        return [_row(row, parts, folders) for row in (rows if isinstance(rows, list) else [None])]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise malformed(f"{name}: a row that is none ({type(error).__name__})") from None


def parts_in(rows: Iterable[Row]) -> set[str]:
    """Every part that some row's records lie in."""
    return {spot.part for row in rows for spot in row.spots}


def _row(raw: Json, parts: Sequence[str], folders: Sequence[bytes]) -> Row:
    if not isinstance(raw, list) or len(raw) != _COLUMNS:
        raise ValueError("another number of columns")
    name_id, version, order, letter, subject_id, size_bytes, digest, within, head, pieces, gone_at = raw
    if not isinstance(within, list) or not isinstance(pieces, list) or not isinstance(version, str):
        raise TypeError("no row")
    row = Row(
        name_id=bytes.fromhex(str(name_id)),
        version=version,
        order=_integer(order),
        state=_STATES[str(letter)],
        subject_id=None if subject_id is None else str(subject_id),
        size_bytes=_integer(size_bytes),
        digest=str(digest),
        folders=tuple(folders[_integer(number)] for number in within),
        head=None if head is None else _spot(head, parts),
        pieces=tuple(_spot(piece, parts) for piece in pieces),
        gone_at=None if gone_at is None else _integer(gone_at),
    )
    if len(row.name_id) != NAME_BYTES:
        raise ValueError("a name id of another length")
    return row


def _folder(text: str) -> bytes:
    folder = bytes.fromhex(text)
    if len(folder) != FOLDER_BYTES:
        raise ValueError("a folder of another length")
    return folder


def _spot(raw: Json, parts: Sequence[str]) -> Spot:
    if not isinstance(raw, list) or len(raw) != 3:  # noqa: PLR2004 - part, offset, length
        raise ValueError("no place")
    return Spot(parts[_integer(raw[0])], _integer(raw[1]), _integer(raw[2]))


def _integer(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("no whole number")
    return value


def _texts(value: Json) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError("no list of texts")
    return [str(text) for text in value]
