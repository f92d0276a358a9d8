"""Where each offset of a partition's source went in the target: compact, exact, and evidence.

What belongs here: runs of offsets that moved together, looking one up, the stored form. What stays out: which offsets
move (restore_steps.py) and whose positions are translated (groups.py).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.canonical import Json


@dataclass(frozen=True, slots=True)
class Run:
    """`count` offsets from `source` on, which lie from `target` on."""

    source: int
    target: int
    count: int


@dataclass(slots=True)
class OffsetMap:
    """One partition's map. Offsets of the source that lie in no run have no record in the target.

    `begin` and `end` are the target's first offset and the one behind its last.
    """

    begin: int
    end: int
    _runs: list[Run] = field(default_factory=list)

    def add(self, source: int, target: int, count: int) -> None:
        """The next run, in rising order; one that continues the last is joined to it."""
        if self._runs:
            last = self._runs[-1]
            if source < last.source + last.count or target < last.target + last.count:
                raise ValueError(f"offset {source} -> {target} lies before what is mapped already")
            if source - last.source == target - last.target == last.count:
                self._runs[-1] = Run(last.source, last.target, last.count + count)
                self.end = max(self.end, target + count)
                return
        self._runs.append(Run(source, target, count))
        self.end = max(self.end, target + count)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run, in order."""
        return tuple(self._runs)

    @property
    def is_identical(self) -> bool:
        """Whether every record has the offset that it had in the source."""
        return all(run.source == run.target for run in self._runs)

    def record_at(self, source: int) -> int | None:
        """Where this very record is; None when the target has none for this offset."""
        at = bisect_right(self._runs, source, key=lambda run: run.source) - 1
        if at < 0 or source >= self._runs[at].source + self._runs[at].count:
            return None
        return self._runs[at].target + source - self._runs[at].source

    def position(self, source: int) -> int:
        """A reader's position (the next offset that it wants) in the target: no record is skipped, none is repeated.

        An identical partition keeps every position as it is, also one in a hole; what lies behind its end is its end.
        """
        if not self._runs:
            # Nothing came: what the target holds before is somebody else's.
            return min(max(source, self.begin), self.end)
        if self.is_identical:
            return min(source, self.end)
        at = bisect_right(self._runs, source, key=lambda run: run.source) - 1
        if at >= 0 and source < self._runs[at].source + self._runs[at].count:
            return self._runs[at].target + source - self._runs[at].source
        return self._runs[at + 1].target if at + 1 < len(self._runs) else self.end

    def to_json(self) -> dict[str, Json]:
        """Each run as three numbers, relative to the end of the one before: most are small."""
        rows: list[Json] = []
        source = target = 0
        for run in self._runs:
            row: list[Json] = [run.source - source, run.target - target, run.count]
            rows.append(row)
            source, target = run.source + run.count, run.target + run.count
        return {"begin": self.begin, "end": self.end, "runs": rows}

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> Self:
        """What `to_json` gave. Raises VaultError (`kafka.map_unreadable`)."""
        try:
            rows: Any = said["runs"]
            end: Any = said["end"]
            begin: Any = said["begin"]
            found = cls(begin + 0, end + 0)
            source = target = 0
            for skipped, shifted, count in rows:
                found.add(source + skipped, target + shifted, count)
                source, target = source + skipped + count, target + shifted + count
        except (KeyError, TypeError, ValueError) as error:
            raise VaultError(
                "kafka.map_unreadable", f"an offset map can't be read: {type(error).__name__}", "it is not one of ours"
            ) from error
        found.end = end
        return found


def maps_to_json(maps: Iterable[tuple[str, int, OffsetMap]]) -> list[Json]:
    """Maps of many partitions, each with its topic's name in the target and its index."""
    return [{"topic": topic, "partition": index, "map": found.to_json()} for topic, index, found in maps]
