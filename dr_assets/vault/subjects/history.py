"""What was decided about people's keys, by the vault's own facts: they can't be undone in the mutable store.

What belongs here: events of kind `subject_ring` and the states that follow from them. What stays out: acting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_time
from dr_assets.vault.vault import Receipt, Vault

KIND: Final = "subject_ring"
DATASET: Final = "vault"  # of the whole estate

Event = Literal["deleting", "deleted", "restored", "erased", "refused", "backed_up", "recovered"]


@dataclass(frozen=True, slots=True)
class SoftDeletion:
    """A deletion that is not final. `is_marked`: every region was seen to have the mark."""

    subject_id: str
    deleted_at: datetime
    final_after: datetime
    approval: str
    is_marked: bool


@dataclass(frozen=True, slots=True)
class History:
    """Who is deleted, who is erased, and how many were deleted in the last day."""

    soft: dict[str, SoftDeletion]
    erased: frozenset[str]
    deleted_in_a_day: int


def record(vault: Vault, event: Event, subject_ids: Sequence[str], **more: Json) -> Receipt:
    """Seal an event; subject ids are HMACs, so that nobody is named."""
    return record_fact(vault, DATASET, KIND, {"event": event, "subjects": list[Json](sorted(subject_ids))} | more)


def read_history(vault: Vault, day_begin: datetime) -> History:
    """All events in order; raises VaultError `vault.malformed` and what `facts` raises."""
    soft: dict[str, SoftDeletion] = {}
    erased: set[str] = set()
    in_a_day = 0
    for fact in facts(vault, DATASET, KIND):
        event, people = _event(fact.body, str(fact.key))
        for subject_id in people:
            match event:
                case "deleting":
                    soft[subject_id] = _soft(fact.body, subject_id, str(fact.key))
                    in_a_day += fact.at >= day_begin
                case "deleted" if subject_id in soft:
                    old = soft[subject_id]
                    soft[subject_id] = SoftDeletion(
                        subject_id, old.deleted_at, old.final_after, old.approval, is_marked=True
                    )
                case "restored":
                    soft.pop(subject_id, None)
                case "erased":
                    soft.pop(subject_id, None)
                    erased.add(subject_id)
    return History(soft, frozenset(erased), in_a_day)


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
