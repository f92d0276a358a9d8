"""Make the golden vectors of packs: plaintexts, with their indices spelled out beside them.

    python -m dr_assets_tests.vectors.packs.generate

What belongs here: the packs. What stays out: reading them (reader.py). A changed byte is a changed format and needs a
new version number, never a new vector.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dr_assets.stores.kafka.batches import Record, encode
from dr_assets.stores.kafka.pack import Cutter, Part
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.pack import Break, Row, index_of_json
from dr_assets.vault.format.pack_list import PackRow, encode_pack_list

FOLDER = Path(__file__).parent
AT = datetime(2031, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
BETS, PLAYERS = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
NAMES = {BETS: "bets", PLAYERS: "players.compacted"}


def batch(offset: int, count: int) -> bytes:
    """A batch of records that say their offsets."""
    records = [Record(offset + at, 1935543721000 + at, b"k", b"v%d" % (offset + at), ()) for at in range(count)]
    return encode(records)


def part(topic: str, generation: int, first: int, count: int, broken: Break | None = None) -> Part:
    """One fetch's."""
    body = memoryview(batch(first, count))
    end = first + count
    return Part(
        (topic, 0, generation), first, end, body, count, 1935543721000 + count - 1, 3, end + 1, end, 0,
        transactional=False, broken=broken,
    )  # fmt: skip


def row(topic: str, generation: int, begin: int, end: int, *, complete: bool) -> Row:
    """A table's."""
    return Row(topic, 0, generation, begin, end, 3, end + 1, end, begin, AT, complete)


def packs() -> Iterator[tuple[str, bytes]]:
    """Label and plaintext: nothing, a table alone, slices, both, jumps."""
    cutter = Cutter("MkU3OEVBNTcwNTJENDM2Qk", 0, 0.5)
    yield "empty", cutter.cut(NAMES, None, AT, None).data.whole()
    table = (row(BETS, 0, 0, 0, complete=False), row(PLAYERS, 1, 7, 7, complete=False))
    yield "table", cutter.cut(NAMES, table, AT, None).data.whole()
    for each in (part(PLAYERS, 1, 7, 2), part(BETS, 0, 0, 3), part(BETS, 0, 3, 1)):
        cutter.add(each, 0.0, AT)
    yield "slices", cutter.cut(NAMES, None, AT, AT).data.whole()
    for each in (
        part(BETS, 0, 10, 2, Break("gap", 4)), part(PLAYERS, 1, 9, 1), part(PLAYERS, 1, 8, 3, Break("diverged", 10)),
    ):  # fmt: skip
        cutter.add(each, 0.0, AT)
    table = (row(BETS, 0, 0, 12, complete=True), row(PLAYERS, 1, 7, 11, complete=False))
    yield "jumps", cutter.cut(NAMES, table, AT, AT).data.whole()


def catalogue(index: dict[str, Any]) -> list[PackRow]:
    """A row for each pack, in their order; one that begins a chain, one without a recovery point."""
    rows = []
    for number, (label, _) in enumerate(packs()):
        key = ObjectKey("casino", "events", "packs", "0" * 32, 0, number, number + 1, f"{number:032x}")
        previous = None if number == 0 else f"{number - 1:064x}"
        parsed = index_of_json(index[f"{label}.bin"], None, label)
        rows.append(PackRow(key, f"{number:064x}", previous, 2, AT, AT, AT if number else None, parsed))
    return rows


def files() -> dict[str, bytes]:
    """Every file of the folder, by name."""
    made = {f"{label}.bin": plaintext for label, plaintext in packs()}
    index: dict[str, Any] = {
        name: json.loads(plaintext[4 : 4 + int.from_bytes(plaintext[:4])]) for name, plaintext in made.items()
    }
    made["catalogue.json"] = encode_pack_list(catalogue(index))
    made["index.json"] = json.dumps(index, indent=2, sort_keys=True).encode() + b"\n"
    return made


if __name__ == "__main__":
    for file_name, content in files().items():
        (FOLDER / file_name).write_bytes(content)
