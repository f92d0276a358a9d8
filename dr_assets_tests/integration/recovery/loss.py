"""What a loss window really lost, by the workload's own record: what the work-list is held to, and never reads.

What belongs here: the lines that there ought to be and the right action of each, from the folder of acknowledgements.
What stays out: the list, and anything that the list is made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from dr_assets.casino.acks import read_acks
from dr_assets.casino.events import acknowledged_events
from dr_assets.casino.outsiders import Done, provider_record, rounds_record

_STEPS: Final = {f"ledger.withdrawal_{step}" for step in ("requested", "approved", "rejected", "cancelled")}
_WHAT: Final = {"payment": "deposit", "refund": "deposit_reversed", "chargeback": "deposit_reversed",
                "payout": "withdrawal_paid"}  # fmt: skip

Line = tuple[str, str]  # what it is, and its key (games and steps of withdrawals) or the provider's reference


@dataclass(frozen=True)
class Had:
    """What a casino's ledger had posted."""

    keys: frozenset[str]
    references: frozenset[str]
    paid: frozenset[str]
    players: Mapping[str, int]  # whose withdrawal each step was, by the step's key

    @classmethod
    def of(cls, dsn: str) -> "Had":
        """Read from a restored one."""
        with psycopg.connect(dsn) as ledger:
            return cls(
                keys=_set(ledger, "SELECT idempotency_key FROM casino.transfers"),
                references=_set(
                    ledger,
                    "SELECT provider_reference FROM casino.deposits"
                    " UNION SELECT provider_reference FROM casino.deposit_reversals",
                ),
                paid=_set(ledger, "SELECT payout_reference FROM casino.withdrawals WHERE state = 'paid'"),
                players=dict(
                    ledger.execute(
                        "SELECT t.idempotency_key, w.player_id FROM casino.withdrawal_steps s"
                        " JOIN casino.withdrawals w USING (withdrawal_id) JOIN casino.transfers t USING (transfer_id)"
                    ).fetchall()
                ),
            )


def _set(ledger: psycopg.Connection[Any], query: str) -> frozenset[str]:
    return frozenset(row[0] for row in ledger.execute(query.encode()).fetchall() if row[0] is not None)


@dataclass(frozen=True)
class Truth:
    """`right` is the right action of every line that there ought to be; `acknowledged` are the keys that were lost.

    `unknowable`: of those, what no outsider was told and no captured topic has: only the lost ledger knew.
    """

    right: Mapping[Line, str]
    acknowledged: frozenset[str]
    unknowable: frozenset[str]


def what_was_lost(
    acks: Path, restored: Had, last: Had, captured: Mapping[tuple[str, int], int], since: datetime, slack_s: float
) -> Truth:
    """Hold the record against the `restored` ledger; `last` is the newest state that could be brought back.

    `captured`: up to which offset each partition is in the vault. `last` only tells which reversals had been posted.
    """
    since_ns = int(since.timestamp() * 1e9)
    from_ns = since_ns - int(slack_s * 1e9)
    right: dict[Line, str] = {}
    for played in rounds_record(acks):
        lost_status = played.status != "refused" or played.at_ns >= since_ns
        if played.reference not in restored.keys and played.at_ns >= from_ns and lost_status:
            right[played.stake.kind, played.reference] = _of_round(played.stake.kind, played.status)
    done = _in_seconds(provider_record(acks))
    right |= _of_provider(done, restored, last, since_ns, from_ns)
    risky = _risky(done, restored, last, from_ns)
    told: set[str] = set()
    for event in acknowledged_events(acks):
        if event.offset < captured.get((event.topic, event.partition), 0):
            told.add(event.idempotency_key)
            if event.topic in _STEPS and event.idempotency_key not in restored.keys:
                step = event.topic.removeprefix("ledger.")
                leaves = step in {"withdrawal_requested", "withdrawal_approved"}
                holds = leaves and last.players.get(event.idempotency_key) in risky
                right[step, event.idempotency_key] = "hold" if holds else "replay"
    acknowledged = frozenset(read_acks(acks).acks["idempotency_key"].to_pylist()) - restored.keys
    # A payout bears the key of its approval: that the provider was told of the one says nothing of the other.
    keys = {key for what, key in right if what not in _WHAT.values()}
    return Truth(right, acknowledged, acknowledged - told - keys)


def _in_seconds(done: list[Done]) -> list[Done]:
    """As the provider's file dates them."""
    return [Done(each.act, each.fee_minor, each.at_ns // 10**9 * 10**9) for each in done]


def _of_round(kind: str, status: str) -> str:
    if status == "refused":
        return "none"
    return "ask_provider" if kind == "bet" and status == "unknown" else "replay"


def _of_provider(done: list[Done], restored: Had, last: Had, since_ns: int, from_ns: int) -> dict[Line, str]:
    undone = {each.act.original_reference: each.at_ns for each in done if each.act.kind == "reversal"}
    taken = {
        each.act.original_reference
        for each in done
        if each.act.kind in {"refund", "chargeback"}
        and each.act.reference not in last.references | restored.references
        and each.act.reference not in undone
        and each.at_ns >= from_ns
    }
    right: dict[Line, str] = {}
    for each in done:
        act = each.act
        if act.kind == "reversal" or act.reference in restored.references | restored.paid:
            continue
        over_ns = undone.get(act.reference)
        if max(each.at_ns, over_ns or 0) < (from_ns if over_ns is None else since_ns):
            continue
        line = (_WHAT[act.kind], act.reference)
        if over_ns is not None:
            right[line] = "none"
        elif act.kind in {"refund", "chargeback"}:
            right[line] = "replay" if act.reference in last.references else "hold"
        else:
            right[line] = "hold" if act.reference in taken else "replay"
    return right


def _risky(done: list[Done], restored: Had, last: Had, from_ns: int) -> set[int]:
    """Who charged a deposit back without any ledger knowing of it."""
    undone = {each.act.original_reference for each in done if each.act.kind == "reversal"}
    return {
        each.act.player_id
        for each in done
        if each.act.kind == "chargeback"
        and each.at_ns >= from_ns
        and each.act.reference not in last.references | restored.references | undone
    }
