"""The work-list's judgement over hand-made relations: what is a line, what is done with it, that nothing is silent."""

from datetime import timedelta

import pyarrow as pa
import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.recovery.worklist.rules import ACTIONS, consequences, rules
from dr_assets.recovery.worklist.worklist import Window, work_list
from dr_assets_tests.unit.worklist_rows import SINCE, WINDOW, Said


def judged(said: Said, *absent: str) -> tuple[str, str]:
    """Action and rule of the only line."""
    line = said.the_line(*absent)
    return line["action"], line["rule"]


def test_a_deposit_that_provider_and_topic_know_is_one_line_and_replayed_under_the_events_key() -> None:
    """One deposit, two who know it: one line, credited again under the key that the lost ledger had used."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.event("deposit", "k1", 500, 600, reference="P1")
    line = said.the_line()
    assert (line["action"], line["rule"], line["confidence"]) == ("replay", "deposit_captured", "high")
    assert (line["what"], line["reference"], line["player"], line["account"]) == ("deposit", "P1", "1", "11")
    assert (line["idempotency_key"], int(line["amount_minor"]), line["position"]) == ("k1", 500, 1)
    assert line["sources"] == ["ledger.deposit 0/0", "psp a.csv:2"]


def test_a_deposit_that_only_the_provider_knows_is_nobodys_until_it_says_whose() -> None:
    """No key and no player: asked for, under a key made from the reference, so that a later replay counts once."""
    said = Said()
    said.provider("payment", "P1", 500)
    line = said.the_line()
    assert (line["action"], line["rule"], line["player"]) == ("ask_provider", "deposit_of_nobody", None)
    assert line["idempotency_key"] == "work-list/deposit/P1"


def test_what_the_restored_ledger_has_is_on_no_line() -> None:
    """By reference, by key, by a withdrawal's state: known there, nothing lost."""
    said = Said()
    said.provider("payment", "P-OLD", 900)
    said.game("bet", "old-bet", 100)
    said.ledger["ledger_withdrawals"][0]["state"] = "paid"
    said.provider("payout", "W-7", -400)
    listed = said.listed()
    assert listed.lines.num_rows == 0
    assert listed.handled["in_ledger"] == 3


def test_a_deposit_that_was_captured_and_voided_needs_nothing() -> None:
    """The provider undid it and nobody was credited: listed, with nothing to do."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.provider("reversal", "P1-back", -500, original_reference="P1")
    assert judged(said) == ("none", "undone")


def test_a_void_before_the_window_is_on_no_line() -> None:
    """What went wrong and right again before the recovery point was not lost."""
    said = Said()
    said.provider("payment", "P1", 500, when=-3)
    said.provider("reversal", "P1-back", -500, when=-2, original_reference="P1")
    listed = said.listed()
    assert (listed.lines.num_rows, listed.handled["past"]) == (0, 2)


def test_a_deposit_that_was_credited_and_then_undone_is_a_persons() -> None:
    """The lost ledger had credited what the provider has given back: neither replayed nor forgotten."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.provider("reversal", "P1-back", -500, original_reference="P1")
    said.event("deposit", "k1", 500, 500, reference="P1")
    assert judged(said) == ("hold", "undone_after_credit")


def test_a_deposit_of_an_erased_person_goes_back_and_their_bets_wait() -> None:
    """Nobody may be credited who was erased; what they played is a person's case."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.event("deposit", "k1", 500, 500, reference="P1", player="3", account="13")
    said.game("bet", "b1", 100, player="3")
    assert {(line["what"], line["action"]) for line in said.lines()} == {("deposit", "refund"), ("bet", "hold")}


def test_a_deposit_of_a_closed_account_goes_back() -> None:
    """There is no account to play with any more."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.event("deposit", "k1", 500, 500, reference="P1", player="4", account="14")
    assert judged(said) == ("refund", "deposit_of_closed_player")


def test_a_record_that_an_erasure_blanked_is_held() -> None:
    """It says nothing any more, and is not left out for that."""
    said = Said()
    said.event("bet", None, None, None, says=False, currency=None)
    assert judged(said) == ("hold", "silent_record")


def test_a_currency_that_the_ledger_has_no_account_in_is_held() -> None:
    """No account, no replay."""
    said = Said()
    said.game("bet", "b1", 100, currency="XTS")
    assert judged(said) == ("hold", "currency_unknown")


def test_those_who_name_different_amounts_are_asked() -> None:
    """A cent more at the provider than in the event: nobody is credited before it is known why."""
    said = Said()
    said.provider("payment", "P1", 501)
    said.event("deposit", "k1", 500, 500, reference="P1")
    line = said.the_line()
    assert (line["action"], line["rule"]) == ("ask_provider", "differs_from_provider")
    assert line["detail"] == "provider 501, topic 500"


def test_an_order_that_was_captured_twice_is_asked_about_and_a_file_that_came_twice_is_not() -> None:
    """Two lines of one file are two captures; the same line in two files is one."""
    twice = Said()
    twice.provider("payment", "P1", 500, line=2)
    twice.provider("payment", "P1", 500, line=3)
    twice.event("deposit", "k1", 500, 500, reference="P1")
    assert judged(twice) == ("ask_provider", "deposit_captured_twice")
    again = Said()
    again.provider("payment", "P1", 500)
    again.provider("payment", "P1", 500, file="b.csv")
    again.event("deposit", "k1", 500, 500, reference="P1")
    assert judged(again) == ("replay", "deposit_captured")


def test_a_deposit_that_the_providers_files_do_not_show_is_asked_about_or_waits_for_a_later_file() -> None:
    """Within what the files cover the provider is asked; beyond, the next file will tell."""
    said = Said()
    said.event("deposit", "k1", 500, 500, reference="P1")
    said.provider("fee", "F1", -10, when=60)
    assert judged(said) == ("ask_provider", "deposit_not_at_provider")
    said.provider_lines.clear()
    assert judged(said) == ("hold", "deposit_not_covered")


def test_a_bet_and_its_win_are_replayed_in_order_though_the_clocks_say_otherwise() -> None:
    """A win follows its bet, whatever times were told."""
    said = Said()
    said.game("win", "w1", 900, when=9, round_reference="b1")
    said.game("bet", "b1", 100, when=10)
    lines = {line["what"]: line for line in said.lines()}
    assert [lines[what]["action"] for what in ("bet", "win")] == ["replay", "replay"]
    assert (lines["bet"]["position"], lines["win"]["position"], lines["win"]["behind"]) == (1, 2, "b1")


@pytest.mark.parametrize(
    ("status", "action"),
    [("acknowledged", "replay"), ("unknown", "ask_provider"), ("refused", "none"), ("voided", "none")],
)
def test_a_bet_is_done_with_as_the_game_was_told(status: str, action: str) -> None:
    """Acknowledged: take the stake. Unknown: ask whether it was played. Refused or voided: nothing was taken."""
    said = Said()
    said.game("bet", "b1", 100, status)
    assert said.the_line()["action"] == action


def test_a_win_that_never_got_an_answer_is_owed_all_the_same() -> None:
    """The player has won; the key makes a second asking count once."""
    said = Said()
    said.game("bet", "b1", 100)
    said.game("win", "w1", 900, "unknown", round_reference="b1")
    assert {line["what"]: line["action"] for line in said.lines()} == {"bet": "replay", "win": "replay"}


def test_a_win_waits_for_a_bet_that_is_not_replayed() -> None:
    """Behind a bet that is asked about, or that nobody knows, a win is not credited."""
    said = Said()
    said.game("bet", "b1", 100, "unknown")
    said.game("win", "w1", 900, round_reference="b1")
    assert {line["what"]: line["rule"] for line in said.lines()} == {"bet": "bet_unknown", "win": "step_before_open"}
    alone = Said()
    alone.game("win", "w1", 900, round_reference="b9")
    assert judged(alone) == ("hold", "win_without_bet")


def test_a_stake_whose_round_the_game_voided_since_is_given_back() -> None:
    """The restored ledger has the bet, the game does not count the round."""
    said = Said()
    said.game("bet", "old-bet", 100, "voided")
    assert judged(said) == ("refund", "stake_taken_for_nothing")


def test_a_bet_that_the_lost_ledger_took_and_the_game_was_told_no_is_a_persons() -> None:
    """Two who contradict each other: held."""
    said = Said()
    said.game("bet", "b1", 100, "refused")
    said.event("bet", "b1", 100, -100)
    assert judged(said) == ("hold", "bet_refused_but_posted")


def test_events_of_topics_are_enough_where_no_list_of_rounds_was_given() -> None:
    """Nobody was asked is not the same as nobody knows."""
    said = Said()
    said.event("bet", "b1", 100, -100)
    assert judged(said, "rounds") == ("replay", "bet_of_topic")
    assert judged(said) == ("hold", "bet_not_covered")
    said.game("bet", "b2", 100, when=50)
    assert {line["rule"] for line in said.lines()} == {"bet_not_at_game", "bet_acknowledged_only"}


@pytest.mark.parametrize(
    ("reference", "action", "rule"),
    [
        ("W-7", "replay", "payout_executed_only"),
        ("W-8", "hold", "payout_of_nobody"),
        ("W-9", "hold", "payout_after_end"),
        ("W-unknown", "hold", "payout_of_nobody"),
    ],
)
def test_a_payout_is_posted_only_where_the_ledger_shows_it_approved(reference: str, action: str, rule: str) -> None:
    """Approved: post `paid`. Requested, ended or unknown: a person asks first."""
    said = Said()
    said.provider("payout", reference, -400)
    assert judged(said) == (action, rule)


def test_a_payout_of_a_withdrawal_that_is_only_requested_waits() -> None:
    """The provider names the request itself, and nobody knows of an approval."""
    said = Said()
    said.ledger["ledger_withdrawals"][1]["payout_reference"] = "W-8"
    said.provider("payout", "W-8", -500)
    assert judged(said) == ("hold", "payout_before_approval")


def test_a_withdrawal_is_replayed_step_by_step() -> None:
    """Requested, approved and paid in the window: three lines in order, the payout known by the approval's key."""
    said = Said()
    said.event("withdrawal_requested", "q", 300, -300, 10, chain="20")
    said.event("withdrawal_approved", "a", 300, 0, 11, chain="20", reference="a", player=None, account=None)
    said.provider("payout", "a", -300, 12)
    lines = sorted(said.lines(), key=lambda line: line["position"])
    assert [(line["what"], line["action"], line["behind"]) for line in lines] == [
        ("withdrawal_requested", "replay", None),
        ("withdrawal_approved", "replay", "q"),
        ("withdrawal_paid", "replay", "a"),
    ]
    assert {line["player"] for line in lines} == {"1"}


def test_a_payout_that_the_topic_tells_of_and_no_file_shows_is_asked_about_or_waits() -> None:
    """Money that may not have left is not posted as if it had."""
    said = Said()
    said.event("withdrawal_paid", "p", 400, 0, chain="7", reference="W-7")
    assert judged(said) == ("hold", "payout_pending")
    said.provider("fee", "F1", -10, when=60)
    assert judged(said) == ("ask_provider", "payout_not_at_provider")


def test_a_payout_that_came_back_leaves_the_withdrawal_open() -> None:
    """Executed and undone, never posted: the approved withdrawal stands as it is."""
    said = Said()
    said.provider("payout", "W-7", -400)
    said.provider("reversal", "W-7-back", 400, original_reference="W-7")
    assert judged(said) == ("none", "undone")


def test_a_payout_that_left_twice_is_asked_about() -> None:
    """One withdrawal, two payouts."""
    said = Said()
    said.provider("payout", "W-7", -400, when=10)
    said.provider("payout", "W-7", -400, when=20)
    assert judged(said) == ("ask_provider", "payout_twice")


def test_a_release_of_money_that_has_been_paid_out_is_held() -> None:
    """The lost ledger cancelled, the provider paid: both lines wait for a person."""
    said = Said()
    said.event("withdrawal_cancelled", "c", 400, 400, chain="7")
    said.provider("payout", "W-7", -400)
    assert {line["what"]: line["action"] for line in said.lines()}["withdrawal_cancelled"] == "hold"


def test_a_step_without_the_one_before_is_held() -> None:
    """An approval of a withdrawal that neither the ledger nor a topic knows."""
    said = Said()
    said.event("withdrawal_approved", "a", 300, 0, chain="99", account=None)
    assert judged(said) == ("hold", "step_without_request")


def test_a_chargeback_that_no_ledger_knows_holds_the_account_and_what_would_leave_it() -> None:
    """The chargeback is a line, and the player's withdrawal waits; their bets go on."""
    said = Said()
    said.provider("chargeback", "C1", -900, original_reference="P-OLD")
    said.event("withdrawal_requested", "q", 300, -300, chain="20")
    said.game("bet", "b1", 100)
    assert {line["what"]: line["rule"] for line in said.lines()} == {
        "deposit_reversed": "chargeback",
        "withdrawal_requested": "withdrawal_of_risky_player",
        "bet": "bet_acknowledged_only",
    }


def test_a_deposit_that_was_taken_back_is_not_credited_and_one_that_the_ledger_took_back_is_done_again_in_order() -> (
    None
):
    """Refunded and never posted: hold both. Refunded and posted by the lost ledger: credit, then take back."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.event("deposit", "k1", 500, 500, reference="P1")
    said.provider("refund", "R1", -500, 20, original_reference="P1")
    assert {line["what"]: line["rule"] for line in said.lines()} == {
        "deposit": "deposit_given_back",
        "deposit_reversed": "refund_unposted",
    }
    said.event("deposit_reversed", "r1", 500, -500, 20.2, reference="R1", chain="P1")
    lines = sorted(said.lines(), key=lambda line: line["position"])
    assert [(line["what"], line["action"]) for line in lines] == [("deposit", "replay"), ("deposit_reversed", "replay")]


def test_a_bet_that_a_lost_deposit_paid_for_goes_behind_it() -> None:
    """By the clocks the bet came first; its replay would overdraw, so it waits for the deposit."""
    said = Said()
    said.ledger["ledger_accounts"][0]["balance_minor"] = 0
    said.game("bet", "b1", 400, when=10)
    said.game("win", "w1", 100, when=10.5, round_reference="b1")
    said.provider("payment", "P1", 500, 11)
    said.event("deposit", "k1", 500, 500, 11, reference="P1")
    lines = sorted(said.lines(), key=lambda line: line["position"])
    assert [(line["what"], line["action"]) for line in lines] == [
        ("deposit", "replay"), ("bet", "replay"), ("win", "replay"),
    ]  # fmt: skip
    assert lines[1]["behind"] == "k1"


def test_a_bet_that_nothing_on_the_list_pays_for_is_held_with_what_it_lacks() -> None:
    """The deposit behind it is asked about: the bet may not overdraw the player, nor may its win be credited alone."""
    said = Said()
    said.ledger["ledger_accounts"][0]["balance_minor"] = 150
    said.game("bet", "b1", 100, when=9)
    said.game("bet", "b2", 400, when=10)
    said.game("win", "w2", 700, when=11, round_reference="b2")
    said.game("bet", "b3", 50, when=12)
    lines = {line["idempotency_key"]: line for line in said.lines()}
    assert {key: line["rule"] for key, line in lines.items()} == {
        "b1": "bet_acknowledged_only",
        "b2": "would_overdraw",
        "w2": "step_before_open",
        "b3": "bet_acknowledged_only",
    }
    assert "lacks" in lines["b2"]["detail"]


def test_a_record_that_is_in_a_topic_twice_is_one_line() -> None:
    """At least once is how events are published."""
    said = Said()
    said.event("adjustment", "a1", 70, 70)
    said.event("adjustment", "a1", 70, 70)
    line = said.the_line()
    assert (line["action"], len(line["sources"])) == ("replay", 2)


def test_what_no_rule_knows_is_held() -> None:
    """A kind of event that nobody wrote a rule for."""
    said = Said()
    said.event("loyalty_points", "l1", 70, 0)
    assert judged(said) == ("hold", "undecided")


def test_every_row_that_was_read_is_on_a_line_or_counted_with_why_it_is_not() -> None:
    """Nothing is silent: rows read are rows on lines and rows handled."""
    said = Said()
    said.provider("payment", "P1", 500)
    said.provider("payment", "P1", 500, file="b.csv")
    said.provider("payment", "P-OLD", 900)
    said.provider("payment", "P-LONG-AGO", 900, when=-3600)
    said.provider("fee", "F1", -10)
    said.provider("batch", "B1", -10)
    said.provider("reversal", "X", -10, original_reference="nothing")
    said.game("bet", "old-bet", 100)
    said.game("bet", "b1", 100)
    said.event("bet", "b1", 100, -100)
    listed = said.listed()
    assert sum(listed.read.values()) == 10
    assert listed.handled == {"in_ledger": 2, "outside_window": 1, "not_players": 2}
    assert listed.on_lines == 5
    assert listed.lines.num_rows == 3


def test_a_list_of_another_order_of_rows_is_the_same_list() -> None:
    """What is on the list does not depend on how rows arrive."""
    said = Said()
    for number in range(40):
        said.game("bet", f"b{number}", 300, when=number)
        said.provider("payment", f"P{number}", 200, number + 0.5)
        said.event("deposit", f"k{number}", 200, 200, number + 0.5, reference=f"P{number}")
    first = said.listed().lines
    for rows in (said.provider_lines, said.rounds, said.events):
        rows.reverse()
    assert said.listed().lines.drop_columns("sources").equals(first.drop_columns("sources"))


def test_a_float_is_refused() -> None:
    """An amount that may have lost a minor unit never comes in."""
    payment = {**Said().ledger["ledger_payments"][0], "amount_minor": 1.5}
    with pytest.raises(PolicyError, match="amount_minor is double"):
        work_list({"ledger_payments": pa.Table.from_pylist([payment])}, WINDOW)


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    """The recovery point and the failure may have been swapped."""
    with pytest.raises(PolicyError, match="no time between"):
        Window(SINCE, SINCE - timedelta(seconds=1))


def test_every_rule_names_an_action_that_there_is_and_a_reason_and_no_two_have_one_name() -> None:
    """The rules are data: read as they are meant."""
    known = [*rules(), *consequences()]
    assert {rule.action for rule in known} == set(ACTIONS)
    assert len({rule.name for rule in known}) == len(known)
    assert all(rule.reason.endswith(".") and rule.confidence in {"high", "medium", "low"} for rule in known)


def test_a_row_that_says_nothing_of_what_it_is_about_is_never_left_out_silently() -> None:
    """No list at all, and how many rows there are: an event without a word, a provider's line without a kind."""
    said = Said()
    said.game("bet", "b1", 5)
    said.event(None, "k", 5, 5)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"worklist\.left_out: 1 of"):
        said.listed()
    said = Said()
    said.provider(None, "P-1", 5)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"worklist\.left_out: 1 of"):
        said.listed()
