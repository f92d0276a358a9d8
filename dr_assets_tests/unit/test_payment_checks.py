from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.reconciliation.checks import all_checks, run_check
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.shared import stand_in
from dr_assets_tests.unit.settlement_rows import World, days_ago

Plant = Callable[[World], World]
YOUNG = days_ago(0.5)


def clean() -> World:
    """Whatever is no break: captures, refunds, reversals, batches, what is on its way and what no file covers."""
    world = World().payment("A", 5000).line("A", 5000, fee_minor=100)
    world.payment("B", 900).line("B", 400).line("B", 500)  # two captures of one payment
    world.payment("C", 700).line("C", 700).payment("C-r", 200, direction="out")  # a refund with a row of its own
    world.line("C-r", -200, "refund", original_reference="C")
    world.payment("D", 800).line("D", 800).payment("D", 300, direction="out")  # a refund under the payment's reference
    world.line("D-r", -300, "refund", original_reference="D")
    world.line("E", 600).line("E-back", -600, "reversal", original_reference="E")  # voided, never posted
    world.payment("F", 100).line("F", 100).line("F-r", -100, "refund", original_reference="F")
    world.line("F-rr", 100, "reversal", original_reference="F-r")  # a refund that failed
    world.payment("G", 50, created_us=YOUNG).line("H", 60, booked_us=YOUNG)  # on their way
    world.payment("I", 70, state="pending").payment("J", 70, state="reversed")
    world.payment("old", 10, created_us=days_ago(400))  # before the files begin
    world.line("fee-1", -30, "fee").line("move-1", -1000, "transfer")
    world.payment("K", 1000, currency="JPY").line("K", 1000, currency="JPY", batch="7", fee_minor=10)
    world.line("bank-7", -990, "batch", currency="JPY", batch="7")
    return world.bank_line("bank-7", 990, currency="JPY")


def test_a_clean_world_has_no_break(tmp_path: Path) -> None:
    """Captures add up, refunds and reversals are found wherever the ledger has them, what is on its way is no break."""
    assert clean().breaks("payments", tmp_path) == []


def test_what_agrees_is_counted(tmp_path: Path) -> None:
    """Matched payments, what is in flight and what the files don't cover are counted by currency."""
    world = clean()
    check = next(check for check in all_checks() if check.name == "payments/settled_agree")
    with duckdb_engine(tmp_path, "512MB", 1) as engine:
        counts = world.load(engine)
        stand_in(engine, [check], frozenset(counts))
        matched = run_check(engine, check, counts, max_breaks=10).matched
    assert {(each.outcome, each.currency): each.count for each in matched} == {
        ("matched", "EUR"): 7,
        ("matched", "JPY"): 1,
        ("in_flight", "EUR"): 2,
        ("not_covered", "EUR"): 1,
    }


PLANTED: dict[str, tuple[Plant, list[tuple[str, str, int]]]] = {
    "missing at the provider": (lambda w: w.payment("X", 5000), [("missing_at_provider", "X", -5000)]),
    "missing in the ledger": (lambda w: w.line("X", 5000), [("payment_not_posted", "X", 5000)]),
    "off by a cent": (lambda w: w.payment("X", 5000).line("X", 5001), [("amount_differs", "X", 1)]),
    "off by a cent, both young": (
        lambda w: w.payment("X", 5000, created_us=YOUNG).line("X", 4999, booked_us=YOUNG),
        [("amount_differs", "X", -1)],
    ),
    "sign": (lambda w: w.payment("X", 5000).line("X", -5000), [("sign_differs", "X", -10000)]),
    "currency": (lambda w: w.payment("X", 5000).line("X", 5000, currency="USD"), [("currency_differs", "X", 5000)]),
    "captured twice": (lambda w: w.payment("X", 5000).line("X", 5000).line("X", 5000), [("settled_twice", "X", 5000)]),
    "posted twice": (lambda w: w.payment("X", 5000).payment("X", 5000).line("X", 5000), [("posted_twice", "X", -5000)]),
    "a capture too few": (
        lambda w: w.payment("X", 900).line("X", 400).line("X", 400),
        [("amount_differs", "X", -100)],
    ),
    "refund not posted": (
        lambda w: w.payment("X", 900).line("X", 900).line("X-r", -300, "refund", original_reference="X"),
        [("refund_not_posted", "X", -300)],
    ),
    "chargeback not posted": (
        lambda w: w.payment("X", 900).line("X", 900).line("X-c", -900, "chargeback", original_reference="X"),
        [("chargeback_not_posted", "X", -900)],
    ),
    "chargeback of a payment nobody knows": (
        lambda w: w.line("X-c", -900, "chargeback", original_reference="X"),
        [("chargeback_not_posted", "X", -900)],
    ),
    "reversal not posted": (
        lambda w: w.payment("X", 900).line("X", 900).line("X-v", -900, "reversal", original_reference="X"),
        [("reversal_not_posted", "X", -900)],
    ),
    "refund not made": (
        lambda w: w.payment("X", 900).line("X", 900).payment("X-r", 300, direction="out"),
        [("missing_at_provider", "X-r", 300)],
    ),
    "settled late": (
        lambda w: w.payment("X", 900, created_us=days_ago(20)).line("X", 900),
        [("settled_late", "X", 0)],
    ),
    "still pending": (
        lambda w: w.payment("X", 900, state="pending").line("X", 900),
        [("still_pending", "X", 900)],
    ),
    "reversed, yet settled": (
        lambda w: w.payment("X", 900, state="reversed").line("X", 900),
        [("reversed_but_settled", "X", 900)],
    ),
    "amounts swapped": (
        lambda w: w.payment("X", 10).line("X", 30).payment("Y", 30).line("Y", 10),
        [("amount_differs", "X", 20), ("amount_differs", "Y", -20)],
    ),
    "fee": (
        lambda w: w.payment("X", 900).line("X", 900, fee_minor=10, net_minor=891),
        [("net_differs", "X", 1)],
    ),
    "batch": (
        lambda w: (
            w.payment("X", 900)
            .line("X", 900, batch="8")
            .line("bank-8", -890, "batch", batch="8")
            .bank_line("bank-8", 890)
        ),
        [("batch_sum_differs", "bank-8", -10)],
    ),
    "batch not at the bank": (
        lambda w: w.payment("X", 900).line("X", 900, batch="8").line("bank-8", -900, "batch", batch="8"),
        [("batch_not_at_bank", "bank-8", -900)],
    ),
    "batch twice at the bank": (
        lambda w: (
            w.payment("X", 900)
            .line("X", 900, batch="8")
            .line("bank-8", -900, "batch", batch="8")
            .bank_line("bank-8", 900)
            .bank_line("bank-8", 900)
        ),
        [("bank_paid_twice", "bank-8", 900)],
    ),
    "bank pays another amount": (
        lambda w: (
            w.payment("X", 900)
            .line("X", 900, batch="8")
            .line("bank-8", -900, "batch", batch="8")
            .bank_line("bank-8", 899)
        ),
        [("bank_amount_differs", "bank-8", -1)],
    ),
    "bank pays another currency": (
        lambda w: (
            w.payment("X", 900)
            .line("X", 900, batch="8")
            .line("bank-8", -900, "batch", batch="8")
            .bank_line("bank-8", 900, currency="USD")
        ),
        [("bank_currency_differs", "bank-8", 900)],
    ),
    "a state that there is not": (lambda w: w.payment("X", 900, state="settled"), [("state_unknown", "X", 900)]),
    "a direction that there is not": (
        lambda w: w.payment("X", 900, direction="IN", state="pending"),
        [("direction_unknown", "X", 900)],
    ),
    "an amount below zero": (lambda w: w.payment("X", -900).line("X", -900), [("amount_not_positive", "X", -900)]),
    "two currencies that cancel in the ledger": (
        lambda w: w.payment("X", 500).payment("X", 500, direction="out", currency="USD"),
        [("currency_differs", "X", 0)],
    ),
    "two currencies that cancel at the provider": (
        lambda w: w.line("X", 500).line("X", -500, "refund", currency="USD"),
        [("currency_differs", "X", 0)],
    ),
    "one before the files begin, one after": (
        lambda w: w.payment("X", 500, created_us=days_ago(400)).payment("X", 500),
        [("missing_at_provider", "X", -1000)],
    ),
    "money from nobody": (lambda w: w.bank_line("gift", 4), [("bank_line_unknown", "gift", 4)]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_one_planted_break_is_one_row(name: str, tmp_path: Path) -> None:
    """Each break is one row with its reference and the difference in minor units, and nothing else is reported."""
    plant, expected = PLANTED[name]
    assert plant(clean()).breaks("payments", tmp_path) == expected


def test_a_tolerance_lets_small_differences_pass(tmp_path: Path) -> None:
    """A difference within `amount_minor` is no break, one above it is."""
    world = clean().payment("X", 5000).line("X", 5002)
    world.tolerances = replace(world.tolerances, amount_minor=2)
    assert world.breaks("payments", tmp_path) == []
    world.tolerances = replace(world.tolerances, amount_minor=1)
    assert world.breaks("payments", tmp_path) == [("amount_differs", "X", 2)]


def test_what_was_in_flight_is_a_break_later(tmp_path: Path) -> None:
    """What one side alone has is on its way only as long as `in_flight` says."""
    world = clean()
    world.tolerances = replace(world.tolerances, in_flight=timedelta(hours=1))
    assert world.breaks("payments", tmp_path) == [("missing_at_provider", "G", -50), ("payment_not_posted", "H", 60)]


def test_payouts_are_left_to_the_withdrawals(tmp_path: Path) -> None:
    """Payouts and their returns count as payments only where the contract has no withdrawals."""
    world = clean().line("po-1", -500, "payout").line("po-1-back", 500, "reversal", original_reference="po-1")
    world.line("po-2", -70, "payout")
    assert world.breaks("payments", tmp_path) == [("payout_not_posted", "po-2", -70)]
    world.withdrawal(2, "paid", 70)
    assert world.breaks("payments", tmp_path) == []
