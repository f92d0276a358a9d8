"""What settled_agree leaves out of its sums: found as if every reference were added up, and whatever hashes say."""

import random
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

from dr_assets.reconciliation.checks import Check, CheckResult, all_checks, run_check
from dr_assets.reconciliation.engine.duckdb import DuckDb, duckdb_engine
from dr_assets.reconciliation.shared import stand_in
from dr_assets_tests.unit.settlement_rows import World, days_ago
from dr_assets_tests.unit.test_payment_checks import PLANTED, clean

_CHECK: Final = next(check for check in all_checks() if check.name == "payments/settled_agree")
_TWICE: Final = " GROUP BY reference_hash HAVING count(*) > 1"
_LEFT_OUT: Final = tuple(
    (f"SEMI JOIN {twice} ON {twice}.bucket = minor % 16381\n   {_TWICE}", "")
    for twice in ("lines_twice", "payments_twice")
)


def _changed(*pairs: tuple[str, str]) -> Check:
    """The check with other words in the query that it keeps."""
    sql = _CHECK.kept_sql
    assert sql is not None
    for old, new in pairs:
        assert old in sql
        sql = sql.replace(old, new)
    return Check(_CHECK.name, _CHECK.sql, _CHECK.reads, None, _CHECK.uses, _CHECK.amber, _CHECK.matched_sql, sql)


def _found(world: World, check: Check, folder: Path) -> CheckResult:
    with duckdb_engine(folder, "512MB", 1) as engine:
        counts = world.load(engine)
        stand_in(engine, [check], frozenset(counts))
        return run_check(engine, check, counts, max_breaks=1000)


def _random_world(seed: int) -> World:
    """Few references, amounts and currencies: rows of one reference meet in every number, alike or not."""
    rng = random.Random(seed)
    world = World()
    for _ in range(60):
        reference, currency = f"r{rng.randrange(30)}", rng.choice(("EUR", "EUR", "EUR", "USD"))
        amount, at_us = rng.choice((5, 5, 5, 7)), days_ago(rng.choice((10, 10, 10, 20)))
        if rng.random() < 0.5:
            world.payment(reference, amount, currency=currency, created_us=at_us)
        else:
            world.line(reference, amount, currency=currency, booked_us=at_us)
    return world


@pytest.mark.parametrize("seed", range(12))
def test_what_is_left_out_of_the_sums_is_what_agrees(seed: int, tmp_path: Path) -> None:
    """References that a join tells are beyond doubt break nothing when all of them are added up instead."""
    world = _random_world(seed)
    found, whole = _found(world, _CHECK, tmp_path), _found(world, _changed(*_LEFT_OUT), tmp_path)
    assert found.breaks.to_pylist() == whole.breaks.to_pylist()
    assert found.matched == whole.matched
    assert found.breaks_total > 0


@pytest.mark.parametrize("name", PLANTED)
def test_no_planted_break_is_left_out_of_the_sums(name: str, tmp_path: Path) -> None:
    """Every kind of break is what it is when all references are added up."""
    plant, _ = PLANTED[name]
    world = plant(clean())
    found, whole = _found(world, _CHECK, tmp_path), _found(world, _changed(*_LEFT_OUT), tmp_path)
    assert whole.breaks.to_pylist() == found.breaks.to_pylist()
    assert whole.matched == found.matched


@pytest.mark.parametrize("twice", ["lines", "payments", "lines and payments"])
def test_no_break_hides_in_a_bucket(twice: str, tmp_path: Path) -> None:
    """All amounts in one bucket: what is there twice is found, on either side; what is there once isn't."""
    world = World()
    for number in range(50):
        world.payment(f"one-{number}", 900).line(f"one-{number}", 900)
    expected = []
    if "payments" in twice:
        world.payment("one-8", 900)
        expected.append(("posted_twice", "one-8"))
    if "lines" in twice:
        world.line("one-7", 900)
        expected.append(("settled_twice", "one-7"))
    breaks = _found(world, _changed(("% 16381", "% 1")), tmp_path).breaks.to_pylist()
    assert sorted((row["reason"], row["reference"]) for row in breaks) == expected


def test_references_are_told_apart_that_differ_in_nothing_else(tmp_path: Path) -> None:
    """One payment and one line alike but for their references both break."""
    breaks = _found(clean().payment("X", 900).line("Y", 900), _CHECK, tmp_path).breaks.to_pylist()
    assert sorted((row["reason"], row["reference"]) for row in breaks) == [
        ("missing_at_provider", "X"),
        ("payment_not_posted", "Y"),
    ]


def _found_by(hashing: str, world: World, folder: Path) -> CheckResult:
    """With another hash of a text than DuckDB's own."""
    with duckdb.connect() as database:
        database.execute(f"CREATE MACRO hash(text) AS {hashing}")
        engine = DuckDb(database, folder)
        counts = world.load(engine)
        stand_in(engine, [_CHECK], frozenset(counts))
        return run_check(engine, _CHECK, counts, max_breaks=1000)


@pytest.mark.parametrize("hashing", ["1", "ascii(reverse(text)) % 3"])
@pytest.mark.parametrize("seed", range(6))
def test_references_that_share_a_hash_are_told_apart(hashing: str, seed: int, tmp_path: Path) -> None:
    """With hashes that many references share every break is what it is with good ones, and what matched is, too."""
    rng, world = random.Random(seed), World()
    for number in range(30):
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            world.payment(
                f"r{number}", 100 * number + rng.choice((1, 1, 1, 2)), created_us=days_ago(rng.randrange(9, 20))
            )
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            world.line(f"r{number}", 100 * number + rng.choice((1, 1, 1, 2)))
    world.line("follows", -100, "refund", original_reference="r3")
    found, good = _found_by(hashing, world, tmp_path), _found(world, _CHECK, tmp_path)
    assert found.breaks.to_pylist() == good.breaks.to_pylist()
    assert found.matched == good.matched
    assert good.breaks_total > 5


@pytest.mark.parametrize(
    "other",
    [{"amount_minor": 901}, {"currency": "USD"}, {"created_us": days_ago(25)}, {"state": "reversed"}],
    ids=lambda other: next(iter(other)),
)
def test_only_what_agrees_in_all_else_can_stand_for_another(other: dict[str, Any], tmp_path: Path) -> None:
    """A line and a payment whose references share a hash pass if they agree in everything (0185); else both break."""

    def told(hashing: str, payment: dict[str, Any]) -> list[tuple[str, str]]:
        world = World().payment("X", payment.pop("amount_minor", 900), **payment).line("Y", 900)
        return sorted(
            (row["reason"], row["reference"]) for row in _found_by(hashing, world, tmp_path).breaks.to_pylist()
        )

    assert told("1", {}) == []
    assert told("1", dict(other)) == told("ascii(text)", dict(other)) != []


def test_lines_without_reference_are_payments_that_nobody_posted(tmp_path: Path) -> None:
    """A reference that is NULL is none: its lines and payments meet nobody, and are added up together."""
    world = clean().line("none", 900).line("none", 50).payment("none", 400)
    for row in (*world.rows["provider_lines"], *world.rows["payments"]):
        row["reference"] = None if row["reference"] == "none" else row["reference"]
    found, whole = _found(world, _CHECK, tmp_path), _found(world, _changed(*_LEFT_OUT), tmp_path)
    assert found.breaks.to_pylist() == whole.breaks.to_pylist()
    assert [(row["reason"], row["reference"], int(row["amount_minor"])) for row in found.breaks.to_pylist()] == [
        ("amount_differs", None, 550)
    ]
