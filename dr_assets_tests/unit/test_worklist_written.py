"""A work-list as files, its score, and what it reads from files: nothing an outsider writes gets beyond its cell."""

import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.recovery.worklist.amounts import written
from dr_assets.recovery.worklist.page import page
from dr_assets.recovery.worklist.rules import ACTIONS, consequences, rules
from dr_assets.recovery.worklist.score import CREDITS, score
from dr_assets.recovery.worklist.sources import events, rounds_file
from dr_assets.recovery.worklist.written import csv_of, json_of, write
from dr_assets_tests.unit.worklist_rows import Said, table

HOSTILE = '=HYPERLINK("http://x","a")<script>alert(1)</script>'
HEAD = "round_reference,idempotency_key,kind,player_id,currency,amount_minor,at,status\n"
DOCS = Path(__file__).parents[2] / "docs" / "work-list.md"


def hostile() -> Said:
    """One line whose reference was written by somebody unkind, and an amount beyond a float's."""
    said = Said()
    said.provider("payment", HOSTILE, 9_007_199_254_740_993)
    return said


def test_no_cell_of_the_csv_is_a_formula() -> None:
    """Whatever begins like a formula begins with an apostrophe; numbers stay numbers."""
    (row,) = csv.DictReader(io.StringIO(csv_of(hostile().listed()).decode()))
    assert row["reference"] == "'" + HOSTILE
    assert row["amount_minor"] == "9007199254740993"
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())


def test_the_page_holds_no_markup_but_its_own_and_fetches_nothing() -> None:
    """A script in a reference is text; there is no script, no link and no resource from anywhere."""
    html = page(hostile().listed(), "Work-list: <ledger>", "ab" * 32)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "Work-list: &lt;ledger&gt;" in html
    assert "90,071,992,547,409.93 EUR" in html
    assert not re.search(r"<script|<link|<img|<iframe|\bsrc=|\bhref=|url\(|@import", html)
    assert "default-src 'none'" in html


def test_json_has_amounts_as_text_and_the_same_list_the_same_bytes() -> None:
    """A reader that makes floats of numbers must not get to."""
    said = json.loads(json_of(hostile().listed(), "t"))
    assert said["lines"][0]["amount_minor"] == "9007199254740993"
    assert said["totals"][0]["amount_minor"] == "9007199254740993"
    assert json_of(hostile().listed(), "t") == json_of(hostile().listed(), "t")


def test_files_are_for_their_owner_and_never_overwritten(tmp_path: Path) -> None:
    """They name players and money; a second list goes elsewhere."""
    made = write(Said().listed(), tmp_path, "t")
    assert {path.stat().st_mode & 0o777 for path in (made.csv_path, made.json_path, made.page_path)} == {0o600}
    with pytest.raises(PolicyError, match="exists"):
        write(Said().listed(), tmp_path, "t")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (0, "EUR", "0.00"),
        (-5, "EUR", "-0.05"),
        (123456, "EUR", "1,234.56"),
        (1234, "JPY", "1,234"),
        (5, "KWD", "0.005"),
    ],
)
def test_amounts_are_written_as_people_read_them(amount: int, currency: str, text: str) -> None:
    """Each currency with its own number of digits."""
    assert written(amount, currency) == text


def test_holding_everything_scores_nothing_and_the_right_actions_one() -> None:
    """Whatever the truth is: all held is 0, all right is 1, harm is below."""
    truth = ["replay", "replay", "refund", "ask_provider", "none", "hold"]
    assert score([(right, "hold") for right in truth]).score == 0
    best = score([(right, right) for right in truth])
    assert (best.score, best.right, best.harmful) == (1, 6, 0)
    harm = score([("none", "replay"), ("replay", "hold")])
    assert (harm.score, harm.harmful) == (-1, 1)
    assert score([("replay", "replay"), ("replay", "ask_provider")]).score == 0.625
    with pytest.raises(PolicyError, match="no line had a better action"):
        score([("hold", "hold")])
    with pytest.raises(PolicyError, match="no such action"):
        score([("replay", "pray")])


def test_no_action_earns_more_than_the_right_one_and_holding_is_worth_nothing_elsewhere() -> None:
    """The table of credits cannot be played: hold gets its credit only where hold is right."""
    assert set(CREDITS) == set(ACTIONS)
    for right, earned in CREDITS.items():
        assert max(earned.values()) == earned[right] == 1
        assert earned["hold"] == (1 if right == "hold" else 0)


def test_rounds_are_read_as_they_are(tmp_path: Path) -> None:
    """Amounts are whole, times have a zone, an empty reference is none."""
    path = tmp_path / "rounds.csv"
    path.write_text(
        HEAD
        + "b1,w1,win,7,EUR,900,2026-11-22T12:00:10.000001+00:00,acknowledged\n"
        + ",b2,bet,7,EUR,5,2026-11-22T12:00:11Z,unknown\n"
    )
    assert rounds_file(path).to_pylist() == [
        {"round_reference": "b1", "idempotency_key": "w1", "kind": "win", "player": "7", "currency": "EUR",
         "amount_minor": 900, "at_us": 1795348810000001, "status": "acknowledged"},
        {"round_reference": None, "idempotency_key": "b2", "kind": "bet", "player": "7", "currency": "EUR",
         "amount_minor": 5, "at_us": 1795348811000000, "status": "unknown"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("b1,b1,bet,7,EUR,9.5,2026-11-22T12:00:10Z,acknowledged", "amount_minor 9.5"),
        ("b1,b1,bet,7,EUR,9,2026-11-22T12:00:10,acknowledged", "no time zone"),
        ("b1,b1,bet,7,EUR,9,2026-11-22T12:00:10Z,perhaps", "status perhaps"),
        ("b1,b1,,7,EUR,9,2026-11-22T12:00:10Z,acknowledged", "kind"),
        ("b1,b1,bet,7,EUR,,2026-11-22T12:00:10Z,acknowledged", "amount_minor"),
        ("b1,b1,bet,7,EUR,9,,acknowledged", "time"),
        ("b1,b1,bet,7,EUR,9,2026-11-22T12:00:10Z,", "status"),
        ("b1,b1,loan,7,EUR,9,2026-11-22T12:00:10Z,acknowledged", "kind loan"),
        ("b1,b1,bet,7,EUR,9,yesterday Z,acknowledged", "yesterday"),
        ("b1,b1,bet", "is no list of rounds"),
    ],
)
def test_a_list_of_rounds_that_cannot_be_read_whole_is_refused(tmp_path: Path, line: str, found: str) -> None:
    """Half a list would lose bets silently."""
    path = tmp_path / "rounds.csv"
    path.write_text(f"{HEAD}{line}\n")
    with pytest.raises(SourceError, match=found):
        rounds_file(path)


def test_events_are_read_as_the_contract_says() -> None:
    """A deposit with a bonus: what was paid in, what the player got, whose, of what; and a blanked record."""
    ledger = {name: table(name, rows) for name, rows in Said().ledger.items()}
    payload = {"key": "k1", "request": "deposit|1|EUR|500|100|P1", "accounts": [11, 900, 901],
               "amounts_minor": [600, -500, -100], "reference": "P1"}  # fmt: skip
    row = {"topic": "ledger.deposit", "partition": 0, "record_offset": 7, "idempotency_key": "k1", "timestamp_us": 5,
           "message_key": "1", "payload": json.dumps(payload), "dead_letter": False}  # fmt: skip
    blank = {**row, "record_offset": 8, "idempotency_key": None, "payload": None}
    found = events(pa.Table.from_pylist([row, blank]), ledger, "casino_ledger").to_pylist()
    assert found[0] == {
        "topic": "ledger.deposit", "place": "0/7", "what": "deposit", "idempotency_key": "k1", "player": "1",
        "account": "11",
        "currency": "EUR", "amount_minor": 500, "cash_minor": 600, "reference": "P1", "chain": None,
        "at_us": 5, "says": True,
    }  # fmt: skip
    assert (found[1]["says"], found[1]["idempotency_key"], found[1]["player"]) == (False, None, "1")


def test_the_docs_have_every_rule_with_its_action() -> None:
    """docs/work-list.md shows the table that rules.yaml is."""
    text = DOCS.read_text()
    for rule in (*rules(), *consequences()):
        assert f"| `{rule.name}` | {rule.action} |" in text, rule.name
        assert rule.reason in text
