"""The policy on record: what it promises today, what changed since it was recorded last, and what of that is weaker.

What belongs here: the facts `policy_change` of dataset `vault`, and what is not acknowledged yet. What stays out: what
counts as weaker (estate/promises.py).

Nobody can stop an owner from weakening a policy; what can be had is that it is on record, signed and in the log, with
what was, what is, and the commit that did it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.estate.promises import Change, Value, changes, promises_of
from dr_assets.vault.facts import Fact, facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Vault

POLICY_CHANGE: Final = "policy_change"
DATASET: Final = "vault"  # what belongs to no single dataset


@dataclass(frozen=True, slots=True)
class Recorded:
    """One change of policy as it was recorded. `commit` is None where nobody knew."""

    at: datetime
    commit: str | None
    changes: tuple[Change, ...]

    @property
    def weakenings(self) -> tuple[Change, ...]:
        """Those that protect less than before."""
        return tuple(change for change in self.changes if change.is_weaker)


def record_policy(vault: Vault, estate: Estate, commit: str | None) -> tuple[Change, ...] | None:
    """Record the policy if it is another than the one on record; what changed, or None when nothing did.

    The first record has no changes. Raises what `record_fact` raises.
    """
    now = promises_of(estate)
    last = latest_fact(vault, DATASET, POLICY_CHANGE)
    was = None if last is None else _policy(last)
    if was == now:
        return None
    changed = [] if was is None else changes(was, now)
    body: dict[str, Json] = {
        "event": "first" if was is None else "changed",
        "policy": cast("Json", now),
        "commit": commit,
        "changes": [_to_json(change) for change in changed],
        "weaker": sum(change.is_weaker for change in changed),
    }
    record_fact(vault, DATASET, POLICY_CHANGE, body)
    return tuple(changed)


def acknowledge_policy(vault: Vault, *, acknowledged_by: str, reason: str) -> int:
    """Record that somebody has seen every weakening so far, and stands for it; how many there were.

    Raises PolicyError `policy_change.nothing`, `policy_change.nameless`.
    """
    if not acknowledged_by.strip() or not reason.strip():
        raise PolicyError("policy_change.nameless", "nobody's name, or no reason", "give --by NAME and --reason '…'")
    open_now = unacknowledged(vault)
    last = latest_fact(vault, DATASET, POLICY_CHANGE)
    if not open_now or last is None:
        raise PolicyError(
            "policy_change.nothing", "no weakening waits for anybody", "`dr-assets estate policy` lists all"
        )
    body: dict[str, Json] = {
        "event": "acknowledged",
        "policy": last.body.get("policy"),
        "by": acknowledged_by,
        "reason": reason,
        "weaker": sum(len(one.weakenings) for one in open_now),
    }
    record_fact(vault, DATASET, POLICY_CHANGE, body)
    return sum(len(one.weakenings) for one in open_now)


def policy_history(vault: Vault) -> list[tuple[Recorded, bool]]:
    """Every recorded change, oldest first, and whether it was acknowledged since."""
    rows: list[tuple[Recorded, bool]] = []
    for fact in facts(vault, DATASET, POLICY_CHANGE):
        if fact.body.get("event") == "acknowledged":
            rows = [(recorded, True) for recorded, _ in rows]
        else:
            rows.append((_recorded(fact), False))
    return rows


def unacknowledged(vault: Vault) -> list[Recorded]:
    """Changes with a weakening that nobody acknowledged yet, oldest first."""
    return [recorded for recorded, is_seen in policy_history(vault) if recorded.weakenings and not is_seen]


def _recorded(fact: Fact) -> Recorded:
    commit, rows = fact.body.get("commit"), fact.body.get("changes")
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return Recorded(fact.at, commit if isinstance(commit, str) else None, tuple(map(_change, listed)))


def _policy(fact: Fact) -> dict[str, Value] | None:
    policy = fact.body.get("policy")
    return cast("dict[str, Value]", policy) if isinstance(policy, dict) else None


def _to_json(change: Change) -> Json:
    told = {"what": change.what, "from": change.was, "to": change.now, "weaker": change.is_weaker}
    return cast("Json", told)


def _change(row: Mapping[str, Json]) -> Change:
    was, now = cast("Value", row.get("from")), cast("Value", row.get("to"))
    return Change(str(row.get("what")), was, now, row.get("weaker") is True)
