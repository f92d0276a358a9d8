"""How far every erasure has come.

What belongs here: the state that follows from facts. What stays out: colours (components/), mending (daily.py), and
which restores have applied the list (proving/erasures.py tells it to us as `replays`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from dr_assets.estate.approvals import ApprovalRule
from dr_assets.vault.approvals import Approvals, Standing
from dr_assets.vault.erasure.certificate import certificates
from dr_assets.vault.erasure.requests import Erasure, erasures
from dr_assets.vault.subjects.history import History, read_history
from dr_assets.vault.subjects.records import DATASET as SUBJECTS
from dr_assets.vault.vault import Vault

OVERDUE_AFTER: Final = timedelta(days=2)  # `finish` runs daily, and a locked backup ends with its grace
State = Literal["requested", "approved", "lapsed", "taken_back", "soft", "overdue", "final"]


@dataclass(frozen=True, slots=True)
class ErasureStanding:
    """One erasure. `unreplayed` are datasets of which no restore since has shown that it leaves the people out.

    `still_known` are datasets that gave people back although their data was younger than the erasure: the source was
    never told. `certified` is the state that the newest certificate speaks of, None without one.
    """

    erasure: Erasure
    state: State
    approvers: tuple[str, ...]
    decided_at: datetime | None
    final_after: datetime | None
    unreplayed: tuple[str, ...]
    still_known: tuple[str, ...]
    certified: str | None


@dataclass(frozen=True, slots=True)
class Replay:
    """The newest restore of a dataset that applied the list: the newest erasure on it, and who was known after it."""

    newest_at: datetime | None
    known_after: int = 0


def standing(
    vault: Vault, rule: ApprovalRule | None, replays: Mapping[str, Replay | None], now: datetime
) -> list[ErasureStanding]:
    """Every erasure, oldest first. `replays`: each dataset that has to leave people out, None: no restore did yet."""
    history = read_history(vault, now)
    asked = {one.request.request_id: one for one in Approvals(vault, SUBJECTS, rule).standing()}
    certified = certificates(vault)
    return [
        _standing(one, history, asked.get(one.erasure_id), rule, replays, certified.get(one.erasure_id), now)
        for one in erasures(vault).values()
    ]


def _standing(
    erasure: Erasure,
    history: History,
    asked: Standing | None,
    rule: ApprovalRule | None,
    replays: Mapping[str, Replay | None],
    certificate: str | None,
    now: datetime,
) -> ErasureStanding:
    found = [history.decision_on(who) for who in erasure.subjects]
    ours = [one for one in found if one is not None and one.approval == erasure.erasure_id]
    decided_at = min((one.deleted_at for one in ours), default=None)
    final_after = max((one.final_after for one in ours), default=None)
    unreplayed: tuple[str, ...] = ()
    still_known: tuple[str, ...] = ()
    if decided_at is not None:
        unreplayed = tuple(sorted(name for name, one in replays.items() if not _covers(one, decided_at)))
        still_known = tuple(sorted(name for name, one in replays.items() if one is not None and one.known_after))
    state = _state(erasure, history, asked, rule, final_after, now)
    approvers = tuple(asked.approvers) if asked else ()
    return ErasureStanding(erasure, state, approvers, decided_at, final_after, unreplayed, still_known, certificate)


def _state(
    erasure: Erasure,
    history: History,
    asked: Standing | None,
    rule: ApprovalRule | None,
    final_after: datetime | None,
    now: datetime,
) -> State:
    if final_after is not None:
        if all(who in history.gone for who in erasure.subjects):
            return "final"
        return "overdue" if final_after + OVERDUE_AFTER < now else "soft"
    if asked is None:
        return "lapsed"
    if asked.used:
        return "taken_back"
    if asked.request.has_expired(now):
        return "lapsed"
    return "approved" if rule is not None and not asked.lacks(rule) else "requested"


def _covers(replay: Replay | None, decided_at: datetime) -> bool:
    return replay is not None and replay.newest_at is not None and replay.newest_at >= decided_at
