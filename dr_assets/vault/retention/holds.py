"""Legal holds: what must stay, whatever its lock and the policy say, until somebody lets it go.

What belongs here: placing, releasing, keeping up and listing holds, as facts and as the store's own flag. What stays
out: which objects an instant needs (stores/postgres/held.py), and expiry, which asks here.

A hold is a fact first and a flag on every object second. Expiry goes by both: an object that was sealed after the hold
was placed is kept by the fact, one that is flagged is kept by the store itself. Killed anywhere, `keep_holds` sets the
flags that lack; a release that was killed is finished by releasing again.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.facts import Fact, facts, record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of
from dr_assets.vault.storage.versions import Name, authentic, find_name
from dr_assets.vault.vault import Vault

LEGAL_HOLD: Final = "legal_hold"
NAMES_LIMIT: Final = 1000

_WORKERS: Final = 16
_CHUNK: Final = 1024


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold. Of the dataset's objects it covers those of `objects`, or all that were stored in [stored_from, until].

    `begin` and `end` are the instants (source's clock) that somebody asked to be able to show again; None is open.
    `stored_from` and `until` are the store's clock.
    """

    hold_id: str
    dataset: str
    reason: str
    placed_by: str
    placed_at: datetime
    begin: datetime | None = None
    end: datetime | None = None
    stored_from: datetime | None = None
    until: datetime | None = None
    objects: tuple[str, ...] = ()

    def covers(self, key: ObjectKey, stored_at: datetime) -> bool:
        """Whether an object falls under it. Data keys always do: without them nothing that is held can be read."""
        if self.objects:
            return str(key) in self.objects or key.stream == KEYS
        if key.stream == KEYS:
            return True
        return (self.stored_from is None or stored_at >= self.stored_from) and (
            self.until is None or stored_at <= self.until
        )

    def to_json(self) -> dict[str, Json]:
        """For machines, and as the fact's body."""
        times = {"begin": self.begin, "end": self.end, "stored_from": self.stored_from, "until": self.until}
        return {
            "hold": self.hold_id,
            "reason": self.reason,
            "by": self.placed_by,
            "objects": list[Json](self.objects),
            **{name: None if at is None else canonical.format_time(at) for name, at in times.items()},
        }


def place_hold(
    vault: Vault,
    dataset: str,
    *,
    reason: str,
    placed_by: str,
    begin: datetime | None = None,
    end: datetime | None = None,
    stored_from: datetime | None = None,
    until: datetime | None = None,
    objects: Sequence[str] = (),
) -> tuple[Hold, int]:
    """Record a hold and flag every object under it; the hold, and how many were flagged.

    Raises PolicyError `hold.reason_missing`, `hold.too_many`, `hold.not_an_object`; VaultError `vault.missing` for a
    named object that is not there, and what `record_fact` raises.
    """
    if not reason.strip():
        raise PolicyError("hold.reason_missing", "a hold needs a reason", "name the case or the order: --reason '…'")
    if len(objects) > NAMES_LIMIT:
        raise PolicyError("hold.too_many", f"{len(objects)} objects are named", "hold a time range, or the dataset")
    for text in objects:
        key = ObjectKey.parse(text)
        if key is None or (key.estate, key.dataset) != (vault.estate, dataset):
            raise PolicyError("hold.not_an_object", f"{text} is no object of {dataset}", "give its full name")
        vault.find(key)
    hold_id = os.urandom(8).hex()
    hold = Hold(
        hold_id, dataset, reason, placed_by, vault.clock(), begin, end, stored_from, until, tuple(sorted(set(objects)))
    )
    record_fact(vault, dataset, LEGAL_HOLD, {"event": "placed", **hold.to_json()})
    return hold, _flag(vault, dataset, [hold])


def release_hold(vault: Vault, dataset: str, hold_id: str, *, reason: str, released_by: str) -> int:
    """Record the end of a hold and take its flags away, but for what another one covers; how many were.

    Raises PolicyError `hold.unknown`, `hold.reason_missing`.
    """
    if not reason.strip():
        raise PolicyError("hold.reason_missing", "a release needs a reason", "say who allowed it: --reason '…'")
    placed = {hold.hold_id: (hold, is_over) for hold, is_over in all_holds(vault, dataset)}
    if hold_id not in placed:
        known = ", ".join(sorted(name for name, (_, is_over) in placed.items() if not is_over)) or "none"
        raise PolicyError("hold.unknown", f"{dataset} has no hold {hold_id}", f"in force: {known}")
    hold, is_over = placed[hold_id]
    if not is_over:
        body: dict[str, Json] = {"event": "released", "hold": hold_id, "reason": reason, "by": released_by}
        record_fact(vault, dataset, LEGAL_HOLD, body)
    others = holds_in_force(vault, dataset)
    return _set(vault, _names_under(vault, dataset, [hold], others), held=False)


def keep_holds(vault: Vault, dataset: str) -> int:
    """Flag what lacks the flag of a hold in force: sealed since, or left by a kill. How many were."""
    return _flag(vault, dataset, holds_in_force(vault, dataset))


def holds_in_force(vault: Vault, dataset: str) -> list[Hold]:
    """Those placed and not released, oldest first. Raises VaultError: a damaged fact hides no hold."""
    return [hold for hold, is_over in all_holds(vault, dataset) if not is_over]


def all_holds(vault: Vault, dataset: str) -> list[tuple[Hold, bool]]:
    """Every hold that was ever placed on a dataset, oldest first, and whether it was released."""
    placed: dict[str, Hold] = {}
    released: set[str] = set()
    for fact in facts(vault, dataset, LEGAL_HOLD):
        if fact.body.get("event") == "placed":
            hold = _hold(fact, dataset)
            placed[hold.hold_id] = hold
        else:
            released.add(str(fact.body.get("hold")))
    return [(hold, hold.hold_id in released) for hold in placed.values()]


def earliest_held(holds: Iterable[Hold]) -> datetime | None:
    """The earliest instant that any of these wants to be shown again; None when none asks for a time.

    A hold without a beginning asks for all of it: `datetime.min`, as aware as all others.
    """
    ranges = [hold for hold in holds if not hold.objects]
    if not ranges:
        return None
    first = datetime.min.replace(tzinfo=ranges[0].placed_at.tzinfo)
    return min(hold.begin or first for hold in ranges)


def _hold(fact: Fact, dataset: str) -> Hold:
    body, name = fact.body, str(fact.key)
    listed = body.get("objects")
    times = {
        what: None if body.get(what) is None else canonical.parse_time(body.get(what), f"{name}: {what}")
        for what in ("begin", "end", "stored_from", "until")
    }
    return Hold(
        str(body.get("hold")),
        dataset,
        str(body.get("reason")),
        str(body.get("by")),
        fact.at,
        objects=tuple(text for text in listed if isinstance(text, str)) if isinstance(listed, list) else (),
        **times,
    )


def _flag(vault: Vault, dataset: str, holds: Sequence[Hold]) -> int:
    return _set(vault, _names_under(vault, dataset, holds, ()), held=True) if holds else 0


def _names_under(vault: Vault, dataset: str, holds: Sequence[Hold], others: Sequence[Hold]) -> Iterator[Name]:
    """Names that one of `holds` covers and none of `others` does."""
    if all(hold.objects for hold in holds):
        listed = sorted({text for hold in holds for text in hold.objects})
        found = (find_name(vault.store, key) for key in map(ObjectKey.parse, listed) if key is not None)
        names: Iterable[Name] = (
            *(name for name in found if name is not None),
            *vault.names(prefix_of(vault.estate, dataset, KEYS)),
        )
    else:
        names = vault.names(prefix_of(vault.estate, dataset))
    for name in names:
        if name.key is None or not name.versions:
            continue
        key, stored_at = name.key, name.versions[0].modified_at
        if any(hold.covers(key, stored_at) for hold in holds) and not any(
            hold.covers(key, stored_at) for hold in others
        ):
            yield name


def _set(vault: Vault, names: Iterator[Name], *, held: bool) -> int:
    """Set or take the flag where it isn't so, sixteen at a time; how many were changed."""

    def change(name: Name) -> bool:
        version = authentic(vault.store, name)
        head = None if version is None else vault.store.head(name.text, version.version_id or None)
        if version is None or head is None or head.held == held:
            return False
        vault.store.set_hold(name.text, version.version_id, held=held)
        return True

    changed = 0
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="holds") as pool:
        while chunk := list(islice(names, _CHUNK)):
            changed += sum(pool.map(change, chunk))
    return changed
