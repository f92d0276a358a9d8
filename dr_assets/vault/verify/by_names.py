"""Streams of contiguous pieces judged by their names alone: holes where something was stored.

What belongs here: what positions tell when no header is read. What stays out: which of several pieces continues which,
forks and joints (chains.py), for which headers are needed.
"""

from collections.abc import Iterator
from datetime import datetime

from dr_assets.vault.chain import Hole
from dr_assets.vault.retention import LockRules
from dr_assets.vault.verify.examine import Examined
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.said import Said
from dr_assets.vault.verify.tallied import Covered


class NameWatch:
    """One place's pieces, added in any order, judged at the end as `chains.ChainWatch` judges holes."""

    def __init__(self, place: str, said: Said) -> None:
        self.place = place
        self.said = said
        self._held = Covered()

    def add(self, item: Examined) -> None:
        """The next piece; the store says that it is what was put."""
        if item.key is not None:
            self._held.add(item.key.first, item.key.last)

    def findings(self, rules: LockRules, now: datetime) -> Iterator[Finding]:
        """Every hole, once everything was added and everything said."""
        begin = self.said.began(rules.length(self.place.split("/")[1], "wal"), now)
        end = self.said.stored
        for begins, ends in self._held.ranges:
            if begin is not None and begin < begins:
                left_over, found = self._judge(Hole(begin, begins), ends)
                yield from found
                if left_over:
                    return
            begin = ends
        if begin is not None and end is not None and begin < end:
            for hole in self.said.covered.missing_of(Hole(begin, end)):
                yield self._hole(hole, "all up to there was acknowledged once")

    def _judge(self, hole: Hole, until: int) -> tuple[bool, list[Finding]]:
        """Whether the pieces behind a hole, up to `until`, are only left over; else what of the hole is missing."""
        found: list[Finding] = []
        for missing in self.said.covered.missing_of(hole):
            if self.said.is_gap(missing):
                detail = "was never captured, as a gap fact says"
                found.append(Finding("gap", self._name(missing.begin, missing.end), None, detail))
            elif self.said.is_damage(missing):
                found.append(self._hole(missing, "pieces beyond are there"))
            else:
                detail = "beyond the chain's end, never acknowledged, unused"
                return True, [Finding("orphan", self._name(hole.end, until), None, detail)]
        return False, found

    def _hole(self, hole: Hole, detail: str) -> Finding:
        return Finding("hole", self._name(hole.begin, hole.end), None, f"these positions are gone; {detail}")

    def _name(self, begin: int, end: int) -> str:
        return f"{self.place}{begin:016X}-{end:016X}"
