"""What settled_agree leaves out of its sums: found as if every reference were added up, and whatever hashes say."""

import random
from pathlib import Path
from typing import Final

import pytest

from dr_assets.reconciliation.checks import Check, CheckResult, all_checks, run_check
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.shared import stand_in
from dr_assets_tests.unit.settlement_rows import World, days_ago
from dr_assets_tests.unit.test_payment_checks import PLANTED, clean

_CHECK: Final = next(check for check in all_checks() if check.name == "payments/settled_agree")
_BUCKETED: Final = "SEMI JOIN crowded ON crowded.bucket = minor % 16381"
_LEFT_OUT: Final = "HAVING count(*) <> 2 OR sum(line) <> 1"


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
    found, whole = _found(world, _CHECK, tmp_path), _found(world, _changed((_BUCKETED, ""), (_LEFT_OUT, "")), tmp_path)
    assert found.breaks.to_pylist() == whole.breaks.to_pylist()
    assert found.matched == whole.matched
    assert found.breaks_total > 0


@pytest.mark.parametrize("name", PLANTED)
def test_no_break_hides_behind_a_hash(name: str, tmp_path: Path) -> None:
    """Were every reference of one hash, as somebody might craft them, the breaks would be the same."""
    plant, _ = PLANTED[name]
    world = plant(clean())
    crafted = _changed(("hash(reference)", "CAST(7 AS UBIGINT)"))
    found, same = _found(world, _CHECK, tmp_path), _found(world, crafted, tmp_path)
    assert same.breaks.to_pylist() == found.breaks.to_pylist()
    assert same.matched == found.matched


def test_no_break_hides_in_a_bucket(tmp_path: Path) -> None:
    """All amounts in one bucket: what is there twice is found, and what is there once isn't called so."""
    world = clean()
    for number in range(50):
        world.payment(f"one-{number}", 900).line(f"one-{number}", 900)
    world.line("one-7", 900)
    world.payment("one-8", 900)
    breaks = _found(world, _changed(("% 16381", "% 1")), tmp_path).breaks.to_pylist()
    assert sorted((row["reason"], row["reference"]) for row in breaks) == [
        ("posted_twice", "one-8"),
        ("settled_twice", "one-7"),
    ]


def test_two_references_of_one_hash_do_not_pass_for_one(tmp_path: Path) -> None:
    """A payment that no file has and a line that nobody posted, alike but for crafted references: both break."""
    world = clean().payment("X", 900).line("Y", 900)
    crafted = _changed(("hash(reference)", "hash(CASE WHEN reference = 'Y' THEN 'X' ELSE reference END)"))
    breaks = _found(world, crafted, tmp_path).breaks.to_pylist()
    assert sorted((row["reason"], row["reference"]) for row in breaks) == [
        ("missing_at_provider", "X"),
        ("payment_not_posted", "Y"),
    ]
