import random
from collections import Counter

import pytest

from dr_assets.casino.moves import Chooser, Move
from dr_assets.casino.pace import Pace

_WALLETS = [(player, "EUR") for player in range(1, 50)]


def _play(seed: int, moves: int) -> list[Move]:
    """A casino that says yes to everything and hands out round and withdrawal ids in order."""
    chooser = Chooser(random.Random(seed), _WALLETS, "run-")
    played = []
    for number in range(moves):
        move = chooser.next_move()
        chooser.succeeded(move, (number, 1000 + number), f"key/{number}")
        played.append(move)
    return played


def test_one_seed_gives_one_stream_of_moves() -> None:
    """A failing run can be played again; another seed plays differently."""
    assert _play(1, 500) == _play(1, 500)
    assert _play(1, 500) != _play(2, 500)


def test_traffic_has_every_kind_of_move() -> None:
    """Deposits, bets, wins and every step of a withdrawal take part, so that a restore is proven on all of them."""
    played = _play(3, 5000)
    kinds = Counter(move.kind for move in played)
    assert set(kinds) == {
        "bet", "win", "deposit", "request_withdrawal", "step_withdrawal", "reverse_deposit", "announcement",
    }  # fmt: skip
    states = {move.withdrawal.state for move in played if move.withdrawal}
    assert states == {"requested", "approved", "paid", "rejected", "cancelled"}


def test_a_round_is_won_once_and_a_withdrawal_never_leaves_its_machine() -> None:
    """What the workload asks for is legal, so that a refusal in its stats means something."""
    opened: set[int] = set()
    states: dict[int, str] = {}
    for number, move in enumerate(_play(4, 5000)):
        if move.kind == "bet":
            opened.add(1000 + number)
        elif move.kind == "win":
            opened.remove(move.arguments[0])
        elif move.kind == "request_withdrawal":
            states[1000 + number] = "requested"
        elif move.withdrawal:
            withdrawal, state = move.withdrawal.withdrawal_id, move.withdrawal.state
            assert (states[withdrawal], state) in {
                ("requested", "approved"),
                ("requested", "rejected"),
                ("requested", "cancelled"),
                ("approved", "paid"),
                ("approved", "rejected"),
                ("approved", "cancelled"),
            }
            states[withdrawal] = state


@pytest.mark.parametrize("rate_per_s", [5.0, 100.0])
def test_arrivals_come_at_the_offered_rate(rate_per_s: float) -> None:
    """A database that keeps up is offered the rate, shed nothing."""
    pace = Pace(rate_per_s, random.Random(1), start_s=0.0)
    now_s = 0.0
    for _ in range(5000):
        now_s = pace.next_due_s(now_s)
    assert pace.shed == 0
    assert 5000 / now_s == pytest.approx(rate_per_s, rel=0.05)


def test_a_stall_is_shed_down_to_the_cap_and_counted() -> None:
    """After ten seconds' stall at 100/s the next arrival lies at most the cap back, about 900 are given up."""
    pace = Pace(100.0, random.Random(1), start_s=0.0, backlog_cap_s=1.0)
    due_s = pace.next_due_s(10.0)
    assert 9.0 <= due_s <= 10.0
    assert 800 <= pace.shed <= 1000


def test_a_short_backlog_is_worked_off_not_shed() -> None:
    """Behind by less than the cap, every arrival is still made: latency shows the stall."""
    pace = Pace(100.0, random.Random(1), start_s=0.0, backlog_cap_s=1.0)
    assert pace.next_due_s(0.9) < 0.9
    assert pace.shed == 0
