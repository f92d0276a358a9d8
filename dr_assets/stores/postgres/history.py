"""Timeline histories: the text that PostgreSQL keeps of where each timeline was left for the next.

What belongs here: parsing that text, which timelines lead to which. What stays out: where a text was found
(lineage.py), what WAL there is of a timeline (course.py).

Source of the rules: readTimeLineHistory() in PostgreSQL's timeline.c.
"""

from dataclasses import dataclass

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.postgres.lsn import parse_lsn


@dataclass(frozen=True, slots=True)
class Leg:
    """One timeline on a way. `end` is where it was left for the next one; None for the last."""

    timeline: int
    end: int | None


@dataclass(frozen=True, slots=True)
class History:
    """The ancestors of `timeline`, oldest first, each with the position where it was left; `text` is the file's."""

    timeline: int
    switches: tuple[tuple[int, int], ...]
    text: str

    def left_at(self, timeline: int) -> int | None:
        """Where `timeline` was left on the way to this one; None when it is no ancestor."""
        return dict(self.switches).get(timeline)

    def legs_from(self, timeline: int) -> tuple[Leg, ...]:
        """The way from an ancestor (or from this timeline itself) to this one."""
        before = [Leg(number, end) for number, end in self.switches if number >= timeline]
        return (*before, Leg(self.timeline, None))


def parse_history(timeline: int, text: str) -> History:
    """The history of `timeline`; no text at all is that of a first timeline.

    Raises VaultError (`restore.bad_history`) for what PostgreSQL would refuse, and for positions that go back.
    """
    switches: list[tuple[int, int]] = []
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            number, position = int(fields[0]), parse_lsn(fields[1])
        except (ValueError, IndexError, SourceError):
            raise _bad(timeline, f"the line {line[:80]!r}") from None
        before_number, before_position = switches[-1] if switches else (0, 0)
        if not before_number < number < timeline or position < before_position:
            raise _bad(timeline, f"the line {line[:80]!r} out of order")
        switches.append((number, position))
    return History(timeline, tuple(switches), text)


def _bad(timeline: int, found: str) -> VaultError:
    return VaultError(
        "restore.bad_history",
        f"the history of timeline {timeline} holds {found}",
        "take a base backup of that timeline: it brings the server's own history file along",
    )
