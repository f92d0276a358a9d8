"""Episodes: from states that are looked at again and again to the moments when something went wrong or got well.

What belongs here: the pure fold from conditions to notices, and its text form that fits a sensor's cursor. What stays
out: where conditions come from (alerts.py) and where notices go (delivery.py).

The fold works on states, not on an event stream: a look that was missed or made twice changes nothing, and nothing
can slip between two events.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self

Kind = Literal["check", "freshness", "run"]
Status = Literal["firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Condition:
    """How one subject stands: red or not, since `at`, and what a person should read about it."""

    subject: str
    kind: Kind
    red: bool
    at: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told once when an episode begins (`firing`) and once when it ends (`resolved`).

    `episode` is the same for both and unique over time, so that a receiver can drop what it already has.
    """

    episode: str
    status: Status
    kind: Kind
    subject: str
    begin_at: datetime
    end_at: datetime | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; times as ISO 8601."""
        end_at = self.end_at.isoformat() if self.end_at else None
        return {**asdict(self), "begin_at": self.begin_at.isoformat(), "end_at": end_at}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        end_at = datetime.fromisoformat(values["end_at"]) if values["end_at"] else None
        return cls(**{**values, "begin_at": datetime.fromisoformat(values["begin_at"]), "end_at": end_at})


@dataclass(frozen=True, slots=True)
class Pending:
    """A notice that one channel has not taken yet."""

    channel: str
    notice: Notice


@dataclass(frozen=True, slots=True)
class Episodes:
    """What is red right now, and what still has to be told. `seen_runs` are run ids already folded in."""

    open: dict[str, Notice] = field(default_factory=dict)
    pending: tuple[Pending, ...] = ()
    seen_runs: tuple[str, ...] = ()
    runs_until: float | None = None

    def to_cursor(self) -> str:
        """Text for a sensor's cursor."""
        return json.dumps(
            {
                "open": {subject: notice.to_json() for subject, notice in self.open.items()},
                "pending": [[pending.channel, pending.notice.to_json()] for pending in self.pending],
                "seen_runs": self.seen_runs,
                "runs_until": self.runs_until,
            },
            sort_keys=True,
        )

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """The inverse of `to_cursor`; no cursor means nothing was ever red."""
        if not cursor:
            return cls()
        values = json.loads(cursor)
        return cls(
            open={subject: Notice.from_json(notice) for subject, notice in values["open"].items()},
            pending=tuple(Pending(channel, Notice.from_json(notice)) for channel, notice in values["pending"]),
            seen_runs=tuple(values["seen_runs"]),
            runs_until=values["runs_until"],
        )


def fold(episodes: Episodes, conditions: Iterable[Condition], channels: Iterable[str]) -> Episodes:
    """Open an episode for each subject that turned red, close it when it is green; queue a notice per channel.

    Conditions are taken in order, so a subject that failed and recovered between two looks is told as both.
    """
    opened = dict(episodes.open)
    notices: list[Notice] = []
    for condition in conditions:
        known = opened.get(condition.subject)
        if condition.red and known is None:
            opened[condition.subject] = _begin(condition)
            notices.append(opened[condition.subject])
        elif not condition.red and known is not None:
            del opened[condition.subject]
            notices.append(replace(known, status="resolved", end_at=condition.at, detail=condition.detail))
    queued = tuple(Pending(channel, notice) for notice in notices for channel in channels)
    return replace(episodes, open=opened, pending=episodes.pending + queued)


def _begin(condition: Condition) -> Notice:
    episode = f"{condition.subject}@{condition.at.isoformat(timespec='milliseconds')}"
    return Notice(episode, "firing", condition.kind, condition.subject, condition.at, None, condition.detail)
