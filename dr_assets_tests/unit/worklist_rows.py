"""Hand-made relations of a work-list: a small restored ledger, and what outsiders say of the minute after it.

What belongs here: rows with defaults. What stays out: what a list must make of them (test_worklist*.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from dr_assets.recovery.worklist.relations import LEDGER, OUTSIDERS
from dr_assets.recovery.worklist.worklist import Window, WorkList, work_list

SINCE = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WINDOW = Window(SINCE, SINCE + timedelta(seconds=60))
_SINCE_US = int(SINCE.timestamp()) * 1_000_000


def at(seconds: float) -> int:
    """So many seconds after the recovery point."""
    return _SINCE_US + round(seconds * 1_000_000)


def ledger(balance: int = 10_000) -> dict[str, list[dict[str, Any]]]:
    """Four players with an account in EUR each, 3 erased, 4 closed; a deposit of player 1, withdrawals of 2."""
    accounts = [(str(10 + player), str(player)) for player in (1, 2, 3, 4)]
    return {
        "ledger_keys": [{"idempotency_key": "old-bet"}],
        "ledger_payments": [
            {"reference": "P-OLD", "direction": "in", "currency": "EUR", "amount_minor": 900, "account": "11"}
        ],
        "ledger_withdrawals": [
            {"withdrawal": "7", "account": "12", "currency": "EUR", "amount_minor": 400, "state": "approved",
             "payout_reference": "W-7"},
            {"withdrawal": "8", "account": "12", "currency": "EUR", "amount_minor": 500, "state": "requested"},
            {"withdrawal": "9", "account": "12", "currency": "EUR", "amount_minor": 600, "state": "rejected",
             "payout_reference": "W-9"},
        ],
        "ledger_accounts": [
            {"account": account, "currency": "EUR", "balance_minor": balance, "may_go_negative": False}
            for account, _ in accounts
        ],
        "ledger_players": [
            {"player": player, "closed": player == "4", "erased": player == "3"} for _, player in accounts
        ],
        "ledger_player_accounts": [
            {"account": account, "player": player, "currency": "EUR"} for account, player in accounts
        ],
    }  # fmt: skip


@dataclass
class Said:
    """What outsiders say, gathered by calls; `listed` makes the list of it."""

    ledger: dict[str, list[dict[str, Any]]] = field(default_factory=ledger)
    provider_lines: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def provider(self, kind: str, reference: str, gross: int, when: float = 10, **more: Any) -> None:
        """A line of the payment provider's file."""
        line = {"provider": "psp", "file": "a.csv", "line": len(self.provider_lines) + 2, "currency": "EUR"}
        self.provider_lines.append(
            {**line, "kind": kind, "reference": reference, "gross_minor": gross, "booked_us": at(when)} | more
        )

    def game(
        self, kind: str, key: str, amount: int, status: str = "acknowledged", when: float = 10, **more: Any
    ) -> None:
        """A line of the game provider's list; a bet opens the round of its own key."""
        line = {"round_reference": key, "idempotency_key": key, "kind": kind, "player": "1", "currency": "EUR"}
        self.rounds.append(line | {"amount_minor": amount, "status": status, "at_us": at(when)} | more)

    def event(
        self, what: str, key: str | None, amount: int | None, cash: int | None, when: float = 10.2, **more: Any
    ) -> None:
        """A record of the topic of `what`."""
        place = {"topic": f"ledger.{what}", "place": f"0/{len(self.events)}", "player": "1", "account": "11"}
        self.events.append(
            {**place, "what": what, "idempotency_key": key, "amount_minor": amount, "cash_minor": cash,
             "currency": "EUR", "at_us": at(when), "says": True} | more
        )  # fmt: skip

    def listed(self, *absent: str) -> WorkList:
        """The list, with the relations that were `absent` asked of nobody."""
        outside = {"provider_lines": self.provider_lines, "rounds": self.rounds, "events": self.events}
        return work_list(
            {name: table(name, rows) for name, rows in (self.ledger | outside).items() if name not in absent}, WINDOW
        )

    def lines(self, *absent: str) -> list[dict[str, Any]]:
        """Its lines."""
        found: list[dict[str, Any]] = self.listed(*absent).lines.to_pylist()
        return found

    def the_line(self, *absent: str) -> dict[str, Any]:
        """The only line."""
        (line,) = self.lines(*absent)
        return line


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a relation; what a row doesn't name is NULL."""
    schemas: Mapping[str, pa.Schema] = {**LEDGER, **OUTSIDERS}
    return pa.Table.from_pylist(rows, schema=schemas[name])
