from collections.abc import Callable
from pathlib import Path

import pytest

from dr_assets_tests.unit.settlement_rows import World, days_ago

Plant = Callable[[World], World]
YOUNG = days_ago(0.5)


def clean() -> World:
    """Withdrawals in every state, with the payouts and the holds that belong to them."""
    world = World().withdrawal(1, "requested", 100).hold(1, 100)
    world.withdrawal(2, "approved", 200, state_us=days_ago(1)).hold(2, 200)
    world.withdrawal(3, "paid", 300).line("po-3", -300, "payout", fee_minor=5)
    world.withdrawal(4, "rejected", 400).withdrawal(5, "cancelled", 500, payout_reference="po-5")
    world.withdrawal(6, "paid", 600, state_us=YOUNG)  # the provider's line is on its way
    world.withdrawal(7, "approved", 700, state_us=days_ago(1)).hold(7, 700).line(
        "po-7", -700, "payout", booked_us=YOUNG
    )
    world.withdrawal(8, "cancelled", 800, payout_reference="po-8")  # paid out, returned and cancelled
    world.line("po-8", -800, "payout").line("po-8-back", 800, "reversal", original_reference="po-8")
    world.withdrawal(9, "paid", 900, state_us=days_ago(400), requested_us=days_ago(401))  # before the files begin
    return world.line("ch-1", 5000).payment("ch-1", 5000)


def test_a_clean_world_has_no_break(tmp_path: Path) -> None:
    """Every state with what belongs to it, and payouts on their way, are no breaks."""
    assert clean().breaks("withdrawals", tmp_path) == []


PLANTED: dict[str, tuple[Plant, list[tuple[str, str | None, int]]]] = {
    "paid, not posted": (
        lambda w: w.withdrawal(20, "approved", 50, state_us=days_ago(1)).hold(20, 50).line("po-20", -50, "payout"),
        [("paid_not_posted", "po-20", -50)],
    ),
    "posted, not paid": (lambda w: w.withdrawal(20, "paid", 50), [("posted_not_paid", "po-20", 50)]),
    "paid twice": (
        lambda w: w.withdrawal(20, "paid", 50).line("po-20", -50, "payout").line("po-20", -50, "payout"),
        [("paid_twice", "po-20", -50)],
    ),
    "another amount": (
        lambda w: w.withdrawal(20, "paid", 50).line("po-20", -51, "payout"),
        [("paid_other_amount", "po-20", -1)],
    ),
    "another currency": (
        lambda w: w.withdrawal(20, "paid", 50).line("po-20", -50, "payout", currency="USD"),
        [("paid_other_currency", "po-20", -50)],
    ),
    "paid after a refusal": (
        lambda w: w.withdrawal(20, "rejected", 50, payout_reference="po-20").line("po-20", -50, "payout"),
        [("paid_after_refusal", "po-20", -50)],
    ),
    "paid after a cancellation": (
        lambda w: w.withdrawal(20, "cancelled", 50, payout_reference="po-20").line("po-20", -50, "payout"),
        [("paid_after_refusal", "po-20", -50)],
    ),
    "nobody's payout": (lambda w: w.line("po-99", -50, "payout"), [("payout_unknown", "po-99", -50)]),
    "came back and is posted as paid": (
        lambda w: (
            w.withdrawal(20, "paid", 50).line("po-20", -50, "payout")
            .line("po-20-back", 50, "reversal", original_reference="po-20")
        ),
        [("return_not_posted", "po-20", 50)],
    ),
    "overdue": (
        lambda w: w.withdrawal(20, "approved", 50).hold(20, 50),
        [("payout_overdue", "po-20", 0)],
    ),
    "no such state": (lambda w: w.withdrawal(20, "lost", 50), [("state_unknown", None, 50)]),
    "paid without a reference": (
        lambda w: w.withdrawal(20, "paid", 50, payout_reference=None),
        [("payout_reference_missing", None, 50)],
    ),
    "a reference before the approval": (
        lambda w: w.withdrawal(20, "requested", 50, payout_reference="po-20").hold(20, 50),
        [("payout_reference_too_early", "po-20", 50)],
    ),
    "one reference for two": (
        lambda w: w.withdrawal(20, "paid", 50, payout_reference="po-3"),
        [("payout_reference_repeated", "po-3", 50)],
    ),
    "changed before it was asked for": (
        lambda w: w.withdrawal(20, "rejected", 50, state_us=days_ago(11)),
        [("state_before_request", None, 50)],
    ),
    "there twice, and not paid": (
        lambda w: w.withdrawal(20, "paid", 50).withdrawal(20, "paid", 50),
        [("withdrawal_repeated", "po-20", 50)],
    ),
    "nobody's payout, returned in another currency": (
        lambda w: (
            w.line("po-99", -50, "payout")
            .line("po-99-back", 50, "reversal", original_reference="po-99", currency="USD")
        ),
        [("payout_unknown", "po-99", 0)],
    ),
    "nobody's payout, and another of today": (
        lambda w: w.line("po-99", -50, "payout").line("po-99", -50, "payout", booked_us=YOUNG),
        [("payout_unknown", "po-99", -100)],
    ),
    "hold not released": (lambda w: w.hold(4, 400), [("hold_not_released", None, 400)]),
    "hold missing": (lambda w: w.withdrawal(20, "requested", 50), [("hold_missing", None, -50)]),
    "held twice": (lambda w: w.hold(1, 100), [("held_twice", None, 100)]),
    "another amount held": (lambda w: w.withdrawal(20, "requested", 50).hold(20, 49), [("hold_differs", None, -1)]),
    "held in another currency": (
        lambda w: w.withdrawal(20, "requested", 50).hold(20, 50, currency="USD"),
        [("hold_in_other_currency", None, 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_one_planted_break_is_one_row(name: str, tmp_path: Path) -> None:
    """Each break is one row with its reference and the difference in minor units, and nothing else is reported."""
    plant, expected = PLANTED[name]
    assert plant(clean()).breaks("withdrawals", tmp_path) == expected
