"""Each planted break is found by the check that is there for it, with the right amount, and nothing else turns red."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dr_assets.reconciliation.checks import all_checks
from dr_assets_tests.reconciliation.books import Books, Victim
from dr_assets_tests.reconciliation.case import AREAS, Broken, Case
from dr_assets_tests.reconciliation.cases import CASES, page

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("planted")]

_FEWEST = 60
_PAGE = Path(__file__).parents[2] / "docs" / "reconciliation-cases.md"


def test_unharmed_the_books_add_up(books: Books) -> None:
    """Every check can be run, and none finds anything: whatever a case shows was planted."""
    results = books.judged()
    not_run = {one.name for one in all_checks()} - {one.name for one in results}
    assert all(name.startswith("balances/period") for name in not_run), (
        "the casino has no statement periods, that is all"
    )
    assert {one.name: one.breaks_by_reason for one in results if one.breaks_total} == {}
    assert {outcome.outcome for one in results for outcome in one.matched} >= {"matched", "open"}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.area}-{case.name}") for case in CASES])
def test_what_is_planted_is_found_and_called_by_its_name(books: Books, case: Case) -> None:
    """These breaks and no others, with the amount, the reference and the account of the one that was touched."""
    victim, results = books.planted(case)
    rows = [row for one in results for row in one.breaks.to_pylist()]
    expected: Counter[tuple[str, str]] = Counter()
    for broken in (case.found, *case.follows):
        expected[broken.check, broken.reason] += _count(broken, victim)
    assert Counter((row["check"], row["reason"]) for row in rows) == expected, rows
    for broken in (case.found, *case.follows):
        _assert_says(broken, victim, rows)


def _count(broken: Broken, victim: Victim) -> int:
    return broken.count if isinstance(broken.count, int) else int(victim[broken.count])


def _assert_says(broken: Broken, victim: Victim, rows: list[dict[str, Any]]) -> None:
    """One of the breaks of this name says of itself what the victim is."""
    named = {
        "amount_minor": broken.amount,
        "reference": broken.reference,
        "account": broken.account,
        "transfer": broken.transfer,
        "currency": broken.currency,
    }
    said = {name: _plain(victim[column]) for name, column in named.items() if column is not None}
    of_it = [row for row in rows if (row["check"], row["reason"]) == (broken.check, broken.reason)]
    assert said in [{name: _plain(row[name]) for name in said} for row in of_it], of_it


def _plain(value: object) -> str:
    return str(int(value)) if isinstance(value, int | Decimal) else str(value)


def test_there_are_enough_of_them_everywhere() -> None:
    """Sixty kinds by place at least, each of the eight with some, no two alike."""
    assert len(CASES) >= _FEWEST
    assert {case.area for case in CASES} == set(AREAS)
    assert len({(case.area, case.name) for case in CASES}) == len(CASES)
    kinds = {case.kind for case in CASES}
    assert kinds >= {
        "sign error", "off by one cent", "duplicate", "missing", "late", "wrong currency", "swapped accounts",
    }  # fmt: skip


def test_the_page_of_cases_is_what_the_cases_are() -> None:
    """docs/reconciliation-cases.md is printed, never written by hand."""
    assert _PAGE.read_text(encoding="utf-8") == page()
