"""What facts and headers say of a stream: how far all was stored, where chains begin, what was never captured.

What belongs here: reading these words out of facts. What stays out: judging a stream by them (chains.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.vault.chain import Hole
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import PACKS, TIMELINE_END, ObjectKey, fact_stream, prefix_of
from dr_assets.vault.prefix import parse_position
from dr_assets.vault.verify.tallied import Covered

CAPTURE: Final = fact_stream("capture")
KAFKA_CAPTURE: Final = fact_stream("kafka_capture")
GAP: Final = fact_stream("gap")
WAL: Final = "wal"

_HALVES: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


@dataclass(slots=True)
class Said:
    """Of one place. `begins` has the time at which a beginning was first told.

    `covered` are positions that full segments hold or that were removed on record, so nothing has to lie there;
    `joints` tells for the end of a full which header what goes on there has to continue.
    """

    stored: int | None = None
    begins: dict[int, datetime] = field(default_factory=dict)
    gaps: list[Hole] = field(default_factory=list)
    covered: Covered = field(default_factory=Covered)
    joints: dict[int, set[str]] = field(default_factory=dict)

    def note_stored(self, position: int | None) -> None:
        """The highest position said to be stored counts."""
        if position is not None and (self.stored is None or position > self.stored):
            self.stored = position

    def note_fact(self, stream: str, body: Mapping[str, Json], at: datetime) -> None:
        """A capture's or a gap's word."""
        if stream == GAP:
            self.note_gap(stream, body)
            return
        begin = position_of(body.get("begin"))
        self.note_stored(position_of(body.get("stored")))
        if begin is not None:
            self.begins[begin] = min(self.begins.get(begin, at), at)

    def note_gap(self, stream: str, body: Mapping[str, Json]) -> None:
        """A gap's word; that of a capture is none."""
        begin, end = position_of(body.get("chain_end")), position_of(body.get("available"))
        if stream == GAP and begin is not None and end is not None:
            self.gaps.append(Hole(begin, end))

    def began(self, length: timedelta, now: datetime) -> int | None:
        """Where a capture began a chain, as long as its beginning can't have left at the end of its lock."""
        return min((begin for begin, at in self.begins.items() if now < at + length), default=None)

    def is_gap(self, hole: Hole) -> bool:
        """Whether these positions were never captured, on record."""
        return any(gap.begin <= hole.begin and hole.end <= gap.end for gap in self.gaps)

    def is_damage(self, hole: Hole) -> bool:
        """Whether something beyond the hole's beginning was said to be stored, or nothing was ever said."""
        return self.stored is None or self.stored > hole.begin


def place_spoken_of(key: ObjectKey, body: Mapping[str, Json]) -> str | None:
    """The place of WAL, or of packs, that a fact of a capture or a gap speaks of; None for any other fact."""
    system_id, timeline = body.get("system_id"), body.get("timeline")
    if (
        key.stream not in {CAPTURE, KAFKA_CAPTURE, GAP}
        or not isinstance(system_id, str)
        or not isinstance(timeline, int)
    ):
        return None
    if not 0 <= timeline < TIMELINE_END:
        return None
    stream = PACKS if key.stream == KAFKA_CAPTURE else WAL
    return prefix_of(key.estate, key.dataset, stream, system_id, timeline)


def position_of(value: Json) -> int | None:
    """A position as facts write it: `16/B374D848` (two halves in hex) or 16 hex digits; None for anything else."""
    if not isinstance(value, str):
        return None
    halves = _HALVES.fullmatch(value)
    if halves:
        return int(halves[1], 16) << 32 | int(halves[2], 16)
    return parse_position(value)
