"""Streams of contiguous pieces: holes where something was stored, orphans where nothing was acknowledged.

What belongs here: judging each place of kind `wal` by names, headers and the capture's own facts. What stays out: any
one store's positions beyond the two ways they are written in facts.

A hole is damage when something signed says that the vault had everything up to beyond it: a capture's fact
(`stored`), or a header's `acknowledged_to`. Where nothing was ever said, a hole is damage too. Only pieces beyond
everything that was said are what a crash leaves behind: orphans.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.vault.chain import Chain, Hole, resolve
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import TIMELINE_END, ObjectKey, fact_stream, prefix_of
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, parse_position
from dr_assets.vault.vault import StoredObject
from dr_assets.vault.verify.examine import Examined
from dr_assets.vault.verify.relations import Whole
from dr_assets.vault.verify.report import Finding

CAPTURE: Final = "capture"
GAP: Final = "gap"

_POSITION: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


@dataclass(slots=True)
class _Said:
    """What facts and headers say of one place: how far all was stored, where chains begin, what was never captured."""

    stored: int | None = None
    begins: dict[int, datetime] = field(default_factory=dict)
    gaps: list[Hole] = field(default_factory=list)

    def note_stored(self, position: int | None) -> None:
        """The highest position said to be stored counts."""
        if position is not None and (self.stored is None or position > self.stored):
            self.stored = position


def judge_chains(whole: Whole) -> list[Finding]:
    """Findings about every place that holds pieces of kind `wal`, or that a capture spoke of."""
    pieces: defaultdict[str, list[StoredObject]] = defaultdict(list)
    headers: dict[ObjectKey, Header] = {}
    for item in whole.sound():
        if item.obj is not None and item.header is not None and item.header.kind == "wal":
            pieces[item.obj.key.place].append(item.obj)
            headers[item.obj.key] = item.header
    said = _collect(whole, headers)
    findings: list[Finding] = []
    for place in sorted(pieces.keys() | said.keys()):
        findings += _judge_place(whole, place, pieces[place], headers, said.get(place, _Said()))
    return findings


def _judge_place(
    whole: Whole, place: str, pieces: list[StoredObject], headers: dict[ObjectKey, Header], said: _Said
) -> Iterator[Finding]:
    first = min((obj.key.first for obj in pieces), default=None)
    yield from _beginning(whole, place, first, said)
    if first is None:
        return
    begin: int | None = first
    while begin is not None:
        chain = resolve(pieces, lambda obj: headers[obj.key], begin, strict=True)
        for obj in chain.forks:
            if obj.key.first >= begin:
                yield Finding("fork", str(obj.key), obj.version_id, "competes with the chain and lost")
        if not chain.holes:
            yield from _ending(place, chain, said)
            return
        yield from _hole(place, chain, said)
        begin = _next_begin(chain, said)


def _next_begin(chain: Chain, said: _Said) -> int | None:
    """Beyond a hole that matters the chain is judged again; orphans at the very end are not a chain."""
    hole = chain.holes[0]
    return hole.end if _is_gap(hole, said) or _is_damage(hole, said) else None


def _hole(place: str, chain: Chain, said: _Said) -> Iterator[Finding]:
    hole = chain.holes[0]
    name = f"{place}{hole.begin:016X}-{hole.end:016X}-"
    if _is_gap(hole, said):
        yield Finding("gap", name, None, "was never captured, as a gap fact says")
    elif _is_damage(hole, said):
        yield Finding("hole", name, None, f"positions {hole.begin:X} to {hole.end:X} are gone, pieces beyond are there")
    else:
        for obj in chain.orphans:
            yield Finding("orphan", str(obj.key), obj.version_id, "beyond the chain's end, never acknowledged, unused")


def _is_gap(hole: Hole, said: _Said) -> bool:
    return any(gap.begin <= hole.begin and hole.end <= gap.end for gap in said.gaps)


def _is_damage(hole: Hole, said: _Said) -> bool:
    return said.stored is None or said.stored > hole.begin


def _ending(place: str, chain: Chain, said: _Said) -> Iterator[Finding]:
    if said.stored is not None and said.stored > chain.end:
        name = f"{place}{chain.end:016X}-{said.stored:016X}-"
        yield Finding("hole", name, None, f"ends at {chain.end:X}, all up to {said.stored:X} was acknowledged once")


def _beginning(whole: Whole, place: str, first: int | None, said: _Said) -> Iterator[Finding]:
    """A chain that a capture began is there from its beginning until that may have expired."""
    for begin, at in sorted(said.begins.items()):
        stored = said.stored or begin
        if (first is None and stored > begin) or (first is not None and begin < first):
            dataset = place.split("/")[1]
            if whole.now < at + whole.rules.length(dataset, "wal"):
                name = f"{place}{begin:016X}-{(stored if first is None else first):016X}-"
                yield Finding("hole", name, None, f"the chain began at {begin:X}, its beginning is gone")
                return


def _collect(whole: Whole, headers: dict[ObjectKey, Header]) -> dict[str, _Said]:
    said: defaultdict[str, _Said] = defaultdict(_Said)
    for key, header in headers.items():
        if ACKNOWLEDGED_TO in header.extra:
            said[key.place].note_stored(_position(header.extra[ACKNOWLEDGED_TO]))
    for item in whole.sound():
        if item.obj is None or item.body is None:
            continue
        place = _place_of(item)
        if place is None:
            continue
        if item.obj.key.stream == fact_stream(CAPTURE):
            begin = _position(item.body.get("begin"))
            said[place].note_stored(_position(item.body.get("stored")))
            if begin is not None and item.header is not None:
                at = item.header.begin_at
                said[place].begins[begin] = min(said[place].begins.get(begin, at), at)
        elif item.obj.key.stream == fact_stream(GAP):
            begin, end = _position(item.body.get("chain_end")), _position(item.body.get("available"))
            if begin is not None and end is not None:
                said[place].gaps.append(Hole(begin, end))
    return dict(said)


def _place_of(item: Examined) -> str | None:
    """The WAL place that a capture's or gap's body speaks of."""
    body = item.body or {}
    system_id, timeline = body.get("system_id"), body.get("timeline")
    if item.obj is None or not isinstance(system_id, str) or not isinstance(timeline, int):
        return None
    if not 0 <= timeline < TIMELINE_END:
        return None
    return prefix_of(item.obj.key.estate, item.obj.key.dataset, "wal", system_id, timeline)


def _position(value: Json) -> int | None:
    """A position as facts write it: `16/B374D848` (two halves in hex) or 16 hex digits; None for anything else."""
    if not isinstance(value, str):
        return None
    halves = _POSITION.fullmatch(value)
    if halves:
        return int(halves[1], 16) << 32 | int(halves[2], 16)
    return parse_position(value)
