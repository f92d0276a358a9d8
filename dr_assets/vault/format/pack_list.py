"""Catalogues of packs: what the headers and indices of a stretch of packs say, in one object.

What belongs here: a catalogue's form, encoding and parsing; docs/format.md §11 is its specification. What stays out:
when one is made, and what a reader concludes from it (stores/kafka/catalogue.py).

A row speaks of the bytes that its pack's name is the digest of, and of nothing else: which packs there are, the store's
own listing says. So a catalogue that lacks, or lies, can neither hide a pack nor make one up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_hex, parse_time
from dr_assets.vault.format.keys import PACKS, ObjectKey
from dr_assets.vault.format.pack import PackIndex, index_of_json

PACK_LIST: Final = "pack-list"
PACK_LIST_LIMIT_BYTES: Final = 32 << 20
_VERSION: Final = 1
_EPOCH_END: Final = 1 << 53
_FIELDS: Final = frozenset(
    {"name", "header", "previous", "writer_epoch", "begin_at", "end_at", "recovery_point_at", "index"}
)


@dataclass(frozen=True, slots=True)
class PackRow:
    """One pack: its name, its header's digest (`digest`) and what of the header joins and dates packs, its index."""

    key: ObjectKey
    digest: str
    previous: str | None
    writer_epoch: int
    begin_at: datetime
    end_at: datetime
    recovery_point_at: datetime | None
    index: PackIndex


def encode_pack_list(rows: Sequence[PackRow]) -> bytes:
    """The plaintext of the catalogue of these packs, whose numbers follow each other."""
    return canonical.encode({"version": _VERSION, "packs": [_row_json(row) for row in rows]})


def parse_pack_list(body: Mapping[str, Json], key: ObjectKey) -> tuple[PackRow, ...]:
    """The rows of the catalogue called `key`, a row for each of its positions. Raises VaultError `vault.malformed`."""
    packs, name = body.get("packs"), str(key)
    if body.keys() != {"version", "packs"} or body["version"] != _VERSION or not isinstance(packs, list):
        raise malformed(f"{name}: no catalogue of packs")
    place = key.place.replace(f"/{key.stream}/", f"/{PACKS}/", 1)
    rows = tuple(_row(place, raw, name) for raw in packs)
    if [(row.key.first, row.key.last) for row in rows] != [(at, at + 1) for at in range(key.first, key.last)]:
        raise malformed(f"{name}: its packs are not those of its positions")
    return rows


def _row_json(row: PackRow) -> Json:
    at = row.recovery_point_at
    return {
        "name": str(row.key).rpartition("/")[2], "header": row.digest, "previous": row.previous,
        "writer_epoch": row.writer_epoch, "begin_at": canonical.format_time(row.begin_at),
        "end_at": canonical.format_time(row.end_at),
        "recovery_point_at": None if at is None else canonical.format_time(at), "index": row.index.to_json(),
    }  # fmt: skip


def _row(place: str, raw: Json, name: str) -> PackRow:
    if not isinstance(raw, dict) or raw.keys() != _FIELDS or not isinstance(raw["name"], str):
        raise malformed(f"{name}: no catalogue of packs")
    key, index, epoch = ObjectKey.parse(place + raw["name"]), raw["index"], raw["writer_epoch"]
    if key is None or not isinstance(index, dict):
        raise malformed(f"{name}: no catalogue of packs")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch < _EPOCH_END:
        raise malformed(f"{name}: writer_epoch is out of bounds")
    previous, at = raw["previous"], raw["recovery_point_at"]
    return PackRow(
        key, parse_hex(raw["header"], 32, f"{name}: header"),
        None if previous is None else parse_hex(previous, 32, f"{name}: previous"), epoch,
        parse_time(raw["begin_at"], f"{name}: begin_at"), parse_time(raw["end_at"], f"{name}: end_at"),
        None if at is None else parse_time(at, f"{name}: recovery_point_at"), index_of_json(index, None, name),
    )  # fmt: skip
