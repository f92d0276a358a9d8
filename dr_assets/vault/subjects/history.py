"""What was decided about people's keys, by the vault's own facts: they can't be undone in the mutable store.

What belongs here: events of kind `subject_ring` and the states that follow from them. What stays out: acting.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_time
from dr_assets.vault.vault import Receipt, Vault

KIND: Final = "subject_ring"
DATASET: Final = "vault"  # of the whole estate
REMEMBERED_S: Final = 30.0
_LOOKED_BACK: Final = timedelta(minutes=5)  # facts of two writers may become visible in another order than they tell
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

EventName = Literal[
    "deleting", "deleted", "restored", "erased", "erased_again", "refused", "backed_up", "recovered", "rewrapped"
]


@dataclass(frozen=True, slots=True)
class SoftDeletion:
    """A deletion that is not final, or was not. `is_marked`: every region was seen to have the mark."""

    subject_id: str
    deleted_at: datetime
    final_after: datetime
    approval: str
    is_marked: bool


@dataclass(frozen=True, slots=True)
class History:
    """Who is deleted and can be taken back (`soft`), who is erased (`gone`), how many were deleted in the last day."""

    soft: dict[str, SoftDeletion]
    gone: dict[str, SoftDeletion]
    deleted_in_a_day: int

    @property
    def erased(self) -> frozenset[str]:
        """Whose key is gone for good."""
        return frozenset(self.gone)

    def decision_on(self, subject_id: str) -> SoftDeletion | None:
        """The deletion that holds, soft or final."""
        return self.soft.get(subject_id) or self.gone.get(subject_id)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of the ring; `name` is the object's, the same in every region."""

    name: str
    at: datetime
    event: str
    people: tuple[str, ...]
    body: dict[str, Json]


def record(vault: Vault, event: EventName, subject_ids: Sequence[str], **more: Json) -> Receipt:
    """Seal an event; subject ids are HMACs, so that nobody is named."""
    return record_fact(vault, DATASET, KIND, {"event": event, "subjects": list[Json](sorted(subject_ids))} | more)


def read_history(vault: Vault, day_begin: datetime) -> History:
    """All events in order; raises VaultError `vault.malformed` and what `facts` raises."""
    return fold(read_events(vault).values(), day_begin)


def read_events(vault: Vault, begin: datetime | None = None) -> dict[str, Event]:
    """The events since `begin`, by name; raises as `read_history`."""
    found: dict[str, Event] = {}
    for fact in facts(vault, DATASET, KIND, begin):
        event, people = _event(fact.body, str(fact.key))
        found[str(fact.key)] = Event(str(fact.key), fact.at, event, tuple(people), fact.body)
    return found


def fold(events: Iterable[Event], day_begin: datetime) -> History:
    """What follows from events, whichever vaults they were read from: names are in the order of time."""
    soft: dict[str, SoftDeletion] = {}
    gone: dict[str, SoftDeletion] = {}
    in_a_day = 0
    for one in sorted(events, key=lambda event: event.name):
        for subject_id in one.people:
            match one.event:
                case "deleting":
                    soft[subject_id] = _soft(one.body, subject_id, one.name)
                    in_a_day += one.at >= day_begin
                case "deleted" if subject_id in soft:
                    soft[subject_id] = replace(soft[subject_id], is_marked=True)
                case "restored":
                    soft.pop(subject_id, None)
                case "erased":
                    known = soft.pop(subject_id) if subject_id in soft else gone.get(subject_id)
                    gone[subject_id] = known or SoftDeletion(subject_id, one.at, one.at, "", is_marked=True)
    return History(soft, gone, in_a_day)


class Decisions:
    """Who is deleted by the facts of whichever vault answers first, remembered for half a minute; threads share it.

    The second line behind the marks in the mutable buckets: a region whose bucket was put back from a copy has none.
    """

    def __init__(self, remembered_s: float = REMEMBERED_S) -> None:
        self._remembered_s = remembered_s
        self._mutex = threading.Lock()
        self._events: dict[str, dict[str, Event]] = {}  # by vault: a replica may lack one that is older than its newest
        self._history: History | None = None
        self._read_s = 0.0

    def of(self, vaults: Sequence[Vault]) -> History:
        """The decisions; raises the first vault's VaultError when none gives an answer."""
        with self._mutex:
            if self._history is None or time.monotonic() - self._read_s > self._remembered_s:
                self._read_news(vaults)
                everything = {name: event for held in self._events.values() for name, event in held.items()}
                self._history = fold(everything.values(), _BEGINNING)
                self._read_s = time.monotonic()
            return self._history

    def forget(self) -> None:
        """Read anew at the next question: something was decided just now."""
        with self._mutex:
            self._history = None

    def _read_news(self, vaults: Sequence[Vault]) -> None:
        refusals: list[VaultError] = []
        for vault in vaults:
            held = self._events.setdefault(vault.name, {})
            newest = max((event.at for event in held.values()), default=None)
            try:
                held |= read_events(vault, None if newest is None else newest - _LOOKED_BACK)
            except VaultError as error:  # away, or damaged here: another region's copy says the same
                refusals.append(error)
            else:
                return
        raise refusals[0]


def times(deleted_at: datetime, final_after: datetime, approval: str) -> dict[str, Json]:
    """What a `deleting` event says besides whom."""
    return {
        "approval": approval,
        "deleted_at": canonical.format_time(deleted_at),
        "final_after": canonical.format_time(final_after),
    }


def _event(body: dict[str, Json], what: str) -> tuple[str, list[str]]:
    event, people = body.get("event"), body.get("subjects")
    if not isinstance(event, str) or not isinstance(people, list):
        raise malformed(f"{what}: no event of the ring of people's keys")
    return event, [str(subject_id) for subject_id in people]


def _soft(body: dict[str, Json], subject_id: str, what: str) -> SoftDeletion:
    return SoftDeletion(
        subject_id,
        parse_time(body.get("deleted_at"), f"{what}: deleted_at"),
        parse_time(body.get("final_after"), f"{what}: final_after"),
        str(body.get("approval")),
        is_marked=False,
    )
