"""What the players do next: a seeded choice of money moves, each one SQL call.

What belongs here: the mix, the amounts, what the outsiders do along with a move, and what a worker remembers to
continue (open rounds, open withdrawals, deposits that may be taken back). What stays out: the database and the clock:
the same seed and the same answers give the same moves.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dr_assets.casino.outsiders import Act, Stake

# Each call takes the idempotency key first and returns the transfer id first.
_SQL = {
    "deposit": "SELECT casino.deposit(%s, %s, %s, %s, %s, %s)",
    "bet": "SELECT transfer_id, round_id FROM casino.bet(%s, %s, %s, %s, %s)",
    "win": "SELECT casino.win(%s, %s, %s)",
    "request_withdrawal": "SELECT transfer_id, withdrawal_id FROM casino.request_withdrawal(%s, %s, %s, %s)",
    "step_withdrawal": "SELECT casino.step_withdrawal(%s, %s, %s)",
    "reverse_deposit": "SELECT casino.reverse_deposit(%s, %s, %s, %s)",
}
# Shares of the attempts. A win without an open round, a step without an open withdrawal and a reversal without a
# deposit become a bet.
_MIX = {"bet": 53, "win": 28, "deposit": 8, "request_withdrawal": 4, "step_withdrawal": 6, "reverse_deposit": 1}
_GAMES = ("slots", "roulette", "blackjack", "baccarat", "sportsbook")
_BONUS_PERCENT = 30  # of the deposits come with a bonus
_REFUND_PERCENT = 60  # of what is taken back is asked for, the rest disputed
_LATE_PERCENT = 50  # of what is taken back is heard of later
_OPEN_ROUNDS = 500  # older rounds are lost bets: nobody settles them
_LATE_MOVES = 40  # the ledger hears of what was announced this many moves later at the latest
_OLD_DEPOSITS = 100


@dataclass(frozen=True)
class OpenRound:
    """A stake that may still win; `reference` is the stake's key."""

    round_id: int
    player_id: int
    currency: str
    reference: str


@dataclass(frozen=True)
class OpenWithdrawal:
    """A withdrawal on its way. `payout` is what the provider will do once it is approved."""

    withdrawal_id: int
    state: str
    payout: Act


@dataclass(frozen=True)
class Move:
    """One money transaction: a statement, its parameters after the idempotency key, and what it is about.

    `act` is what the payment provider has done by the time the ledger is told; `stake` is what the game provider sent.
    A move of the kind `announcement` is the provider's alone: the ledger hears of it later.
    """

    kind: str
    arguments: tuple[Any, ...]
    withdrawal: OpenWithdrawal | None = None  # the withdrawal as it will be when the step is done
    act: Act | None = None
    stake: Stake | None = None

    @property
    def is_outside(self) -> bool:
        """Whether the ledger is not told."""
        return self.kind == "announcement"

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
    _rounds: deque[OpenRound] = field(default_factory=lambda: deque(maxlen=_OPEN_ROUNDS))
    _withdrawals: deque[OpenWithdrawal] = field(default_factory=deque)
    _deposits: deque[Act] = field(default_factory=lambda: deque(maxlen=_OLD_DEPOSITS))
    _announced: deque[tuple[int, Act]] = field(default_factory=deque)
    _moves: int = 0

    def next_move(self) -> Move:
        """Draw the next move; the draw happens before looking at what is open, to keep streams of one seed alike."""
        self._moves += 1
        (kind,) = self.rng.choices(tuple(_MIX), tuple(_MIX.values()))
        player_id, currency = self.rng.choice(self.wallets)
        amount_minor = self.rng.randint(10, 5_000)
        if self._takes_back(kind):
            return self._reversal()
        if kind == "win" and self._rounds:
            return _win(self._rounds.popleft(), amount_minor * 17 // 10)
        if kind == "step_withdrawal" and self._withdrawals:
            return self._step(self._withdrawals.popleft())
        if kind == "deposit":
            return self._deposit(player_id, currency, amount_minor)
        if kind == "request_withdrawal":
            payout = Act("payout", "", player_id, currency, -amount_minor * 4)
            return Move(kind, (player_id, currency, amount_minor * 4), OpenWithdrawal(0, "requested", payout))
        stake = Stake("bet", player_id, currency, amount_minor)
        return Move("bet", (player_id, currency, self.rng.choice(_GAMES), amount_minor), stake=stake)

    def _takes_back(self, kind: str) -> bool:
        if self._announced and self._moves - self._announced[0][0] >= _LATE_MOVES:
            return True
        return kind == "reverse_deposit" and bool(self._announced or self._deposits)

    def _deposit(self, player_id: int, currency: str, amount_minor: int) -> Move:
        bonus_minor = amount_minor // 5 if self.rng.randrange(100) < _BONUS_PERCENT else 0
        act = Act("payment", self._reference(), player_id, currency, amount_minor * 10)
        return Move("deposit", (player_id, currency, act.gross_minor, bonus_minor, act.reference), act=act)

    def _reference(self) -> str:
        return f"{self.reference_prefix}{self.rng.getrandbits(64):016X}"

    def _step(self, withdrawal: OpenWithdrawal) -> Move:
        outcomes = {"requested": ("approved", 85), "approved": ("paid", 92)}
        forward, share = outcomes[withdrawal.state]
        draw = self.rng.randrange(100)
        chosen = forward if draw < share else "rejected" if draw % 2 else "cancelled"
        act = withdrawal.payout if chosen == "paid" else None
        arguments = (withdrawal.withdrawal_id, chosen)
        return Move("step_withdrawal", arguments, replace(withdrawal, state=chosen), act=act)

    def _reversal(self) -> Move:
        """What was announced is posted first; else a deposit is taken back, told at once or announced."""
        if self._announced:
            _, act = self._announced.popleft()
            return Move("reverse_deposit", (act.original_reference, act.kind, act.reference))
        paid = self._deposits.popleft()
        kind: Literal["refund", "chargeback"] = "refund" if self.rng.randrange(100) < _REFUND_PERCENT else "chargeback"
        act = Act(kind, self._reference(), paid.player_id, paid.currency, -paid.gross_minor, paid.reference)
        if self.rng.randrange(100) < _LATE_PERCENT:
            self._announced.append((self._moves, act))
            return Move("announcement", (), act=act)
        return Move("reverse_deposit", (paid.reference, kind, act.reference), act=act)

    def succeeded(self, move: Move, answer: tuple[Any, ...], key: str) -> None:
        """Remember what the move opened. `answer` is the row that the call under `key` returned."""
        if move.stake is not None and move.kind == "bet":
            self._rounds.append(OpenRound(answer[1], move.stake.player_id, move.stake.currency, key))
        elif move.kind == "deposit" and move.act is not None:
            self._deposits.append(move.act)
        elif move.withdrawal is not None and move.kind == "request_withdrawal":
            self._withdrawals.append(replace(move.withdrawal, withdrawal_id=answer[1]))
        elif move.withdrawal is not None and move.withdrawal.state == "approved":
            payout = replace(move.withdrawal.payout, reference=key)
            self._withdrawals.append(replace(move.withdrawal, payout=payout))


def _win(opened: OpenRound, amount_minor: int) -> Move:
    stake = Stake("win", opened.player_id, opened.currency, amount_minor, opened.reference)
    return Move("win", (opened.round_id, amount_minor), stake=stake)
