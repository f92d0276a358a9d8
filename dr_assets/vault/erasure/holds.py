"""Holds on people: whose data must stay, whatever they ask for, until somebody lets go.

What belongs here: placing, releasing and listing them as facts, by subject id. What stays out: legal holds on objects
(vault/retention/holds.py), of which those on datasets with people's documents oppose an erasure as well.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.erasure.law import Opposition
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import Json, format_time, malformed, parse_time
from dr_assets.vault.retention.holds import Hold, holds_in_force
from dr_assets.vault.subjects.ids import require_subject_id
from dr_assets.vault.vault import Vault

KIND: Final = "erasure_hold"
DATASET: Final = "vault"
PEOPLE_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class PersonHold:
    """A hold on people; `until` is when it ends by itself, None when somebody has to release it."""

    hold_id: str
    subjects: frozenset[str]
    reason: str
    placed_by: str
    placed_at: datetime
    until: datetime | None


def place(
    vault: Vault, subjects: Sequence[str], *, reason: str, placed_by: str, until: datetime | None = None
) -> PersonHold:
    """Record a hold. Raises PolicyError `hold.reason_missing`, `hold.too_many`, `subjects.bad_id`."""
    people = frozenset(map(require_subject_id, subjects))
    if not people or not reason.strip():
        raise PolicyError("hold.reason_missing", "a hold needs somebody and a reason", "name the case: --reason '…'")
    if len(people) > PEOPLE_MAX:
        raise PolicyError("hold.too_many", f"{len(people)} people", f"at most {PEOPLE_MAX} in one hold")
    hold = PersonHold(os.urandom(8).hex(), people, reason, placed_by, vault.clock(), until)
    body: dict[str, Json] = {
        "event": "placed",
        "hold": hold.hold_id,
        "subjects": list[Json](sorted(people)),
        "reason": reason,
        "by": placed_by,
        "until": None if until is None else format_time(until),
    }
    record_fact(vault, DATASET, KIND, body)
    return hold


def release(vault: Vault, hold_id: str, *, reason: str, released_by: str) -> None:
    """Record the end of a hold. Raises PolicyError `hold.unknown`, `hold.reason_missing`."""
    if not reason.strip():
        raise PolicyError("hold.reason_missing", "a release needs a reason", "say who allowed it: --reason '…'")
    known = {hold.hold_id for hold in in_force(vault, None)}
    if hold_id not in known:
        found = ", ".join(sorted(known)) or "none"
        raise PolicyError("hold.unknown", f"no hold {hold_id} on people is in force", f"in force: {found}")
    record_fact(vault, DATASET, KIND, {"event": "released", "hold": hold_id, "reason": reason, "by": released_by})


def in_force(vault: Vault, now: datetime | None) -> list[PersonHold]:
    """Those placed, not released, and not over at `now` (None: whatever their end). A damaged fact hides none."""
    placed: dict[str, PersonHold] = {}
    for fact in facts(vault, DATASET, KIND):
        body, what = fact.body, str(fact.key)
        if body.get("event") == "released":
            placed.pop(str(body.get("hold")), None)
            continue
        subjects, until = body.get("subjects"), body.get("until")
        if not isinstance(subjects, list):
            raise malformed(f"{what}: no hold on people")
        hold = PersonHold(
            str(body.get("hold")),
            frozenset(map(str, subjects)),
            str(body.get("reason")),
            str(body.get("by")),
            fact.at,
            None if until is None else parse_time(until, f"{what}: until"),
        )
        placed[hold.hold_id] = hold
    return [hold for hold in placed.values() if now is None or hold.until is None or hold.until > now]


def opposed_by_hold(holds: Iterable[PersonHold], people: Sequence[str]) -> list[Opposition]:
    """Every hold on one of these people."""
    return [
        Opposition(f"hold {hold.hold_id} on the person", who, hold.until, hold.reason, f"placed by {hold.placed_by}")
        for hold in holds
        for who in people
        if who in hold.subjects
    ]


def opposed_by_legal_hold(vaults: Mapping[str, Vault], people: Sequence[str]) -> list[Opposition]:
    """Every legal hold on a dataset with people's documents: which of them are whose, only their keys would tell.

    `vaults` gives each such dataset's vault. What is held must stay readable, so nobody's key goes meanwhile.
    """
    found: list[Opposition] = []
    for dataset, vault in vaults.items():
        found += [_opposition(hold, who) for hold in holds_in_force(vault, dataset) for who in people]
    return found


def _opposition(hold: Hold, who: str) -> Opposition:
    rule = f"legal hold {hold.hold_id} on {hold.dataset}"
    return Opposition(rule, who, None, hold.reason, f"placed by {hold.placed_by}")
