"""What the players do next: a seeded choice of money moves, each one SQL call.

What belongs here: the mix, the amounts, and what a worker remembers to continue (open rounds, open withdrawals).
What stays out: the database and the clock: the same seed and the same answers give the same moves.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Each call takes the idempotency key first and returns the transfer id first.
_SQL = {
    "deposit": "SELECT casino.deposit(%s, %s, %s, %s, %s, %s)",
    "bet": "SELECT transfer_id, round_id FROM casino.bet(%s, %s, %s, %s, %s)",
    "win": "SELECT casino.win(%s, %s, %s)",
    "request_withdrawal": "SELECT transfer_id, withdrawal_id FROM casino.request_withdrawal(%s, %s, %s, %s)",
    "step_withdrawal": "SELECT casino.step_withdrawal(%s, %s, %s)",
}
# Shares of the attempts. A win without an open round and a step without an open withdrawal become a bet.
_MIX = {"bet": 54, "win": 28, "deposit": 8, "request_withdrawal": 4, "step_withdrawal": 6}
_GAMES = ("slots", "roulette", "blackjack", "baccarat", "sportsbook")
_BONUS_PERCENT = 30  # of the deposits come with a bonus
_OPEN_ROUNDS = 500  # older rounds are lost bets: nobody settles them


@dataclass(frozen=True)
class Move:
    """One money transaction: a statement, its parameters after the idempotency key, and what it is about."""

    kind: str
    arguments: tuple[Any, ...]
    withdrawal: tuple[int, str] | None = None  # the withdrawal it steps and the state that leads to

    @property
    def sql(self) -> str:
        """The statement; its first parameter is the idempotency key."""
        return _SQL[self.kind]


@dataclass
class Chooser:
    """A worker's stream of moves over `wallets` (player id, currency), drawn from `rng`.

    `reference_prefix` sets the payment provider's references of two runs with one seed apart.
    """

    rng: random.Random
    wallets: Sequence[tuple[int, str]]
    reference_prefix: str
    _rounds: deque[int] = field(default_factory=lambda: deque(maxlen=_OPEN_ROUNDS))
    _withdrawals: deque[tuple[int, str]] = field(default_factory=deque)

    def next_move(self) -> Move:
        """Draw the next move; the draw happens before looking at what is open, to keep streams of one seed alike."""
        (kind,) = self.rng.choices(tuple(_MIX), tuple(_MIX.values()))
        player_id, currency = self.rng.choice(self.wallets)
        amount_minor = self.rng.randint(10, 5_000)
        if kind == "win" and self._rounds:
            return Move("win", (self._rounds.popleft(), amount_minor * 17 // 10))
        if kind == "step_withdrawal" and self._withdrawals:
            return self._step(*self._withdrawals.popleft())
        if kind == "deposit":
            bonus_minor = amount_minor // 5 if self.rng.randrange(100) < _BONUS_PERCENT else 0
            reference = f"{self.reference_prefix}{self.rng.getrandbits(64):016X}"
            return Move("deposit", (player_id, currency, amount_minor * 10, bonus_minor, reference))
        if kind == "request_withdrawal":
            return Move(kind, (player_id, currency, amount_minor * 4))
        return Move("bet", (player_id, currency, self.rng.choice(_GAMES), amount_minor))

    def _step(self, withdrawal_id: int, state: str) -> Move:
        outcomes = {"requested": ("approved", 85), "approved": ("paid", 92)}
        forward, share = outcomes[state]
        draw = self.rng.randrange(100)
        chosen = forward if draw < share else "rejected" if draw % 2 else "cancelled"
        return Move("step_withdrawal", (withdrawal_id, chosen), (withdrawal_id, chosen))

    def succeeded(self, move: Move, answer: tuple[Any, ...]) -> None:
        """Remember what the move opened. `answer` is the row the call returned."""
        if move.kind == "bet":
            self._rounds.append(answer[1])
        elif move.kind == "request_withdrawal":
            self._withdrawals.append((answer[1], "requested"))
        elif move.withdrawal is not None and move.withdrawal[1] == "approved":
            self._withdrawals.append(move.withdrawal)
