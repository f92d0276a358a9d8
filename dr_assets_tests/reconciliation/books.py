"""Relations in an engine, once; a case is planted in a transaction, judged, and rolled back.

What belongs here: planting and judging. What stays out: where the relations come from (lived.py), what is planted.

A check is a function of the relations that it names, so a case runs those that name a relation which it changed: the
others would say what they say of the clean books.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import duckdb

from dr_assets.reconciliation.checks import Check, CheckResult, all_checks, run_check, why_skipped
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.engine.duckdb import DuckDb
from dr_assets.reconciliation.relations import HASHED
from dr_assets.reconciliation.shared import prepare, stand_in
from dr_assets_tests.reconciliation.case import Case
from dr_assets_tests.reconciliation.lived import TOLERANCES, Lived

_CHANGED = re.compile(r"^(?:UPDATE|INSERT INTO|DELETE FROM)\s+(\w+)")
_NAMED = re.compile(r"\$(\w+)")
# What is old enough to be explained; what is not is on its way.
_OLD = "CREATE MACRO old(us) AS us < (SELECT as_of_us - in_flight_us FROM settings)"

Victim = Mapping[str, Any]


class _Keeping(DuckDb):
    """Remembers how what is shared by checks was computed, to compute it again from changed relations."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        super().__init__(database)
        self.kept: dict[str, str] = {}

    def keep(self, relation: str, sql: str) -> None:
        """As the engine does."""
        self.kept[relation] = sql
        super().keep(relation, sql)


class Books:
    """All relations of a casino that has lived, ready to be judged again and again."""

    def __init__(self, database: duckdb.DuckDBPyConnection, lived: Lived) -> None:
        self._database, self._engine = database, _Keeping(database)
        contract = replace(load_contract("casino_ledger"), tolerances=TOLERANCES)
        given = frozenset(lived.relations)
        self._checks = [one for one in all_checks() if why_skipped(one, given, contract.parts, None) is None]
        self._rows = {name: self._engine.load(name, table) for name, table in lived.relations.items()}
        prepare(self._engine, contract, lived.as_of, self._checks)
        self._shared = dict(self._engine.kept)
        stand_in(self._engine, self._checks, given)
        database.execute(_OLD)

    def judged(self) -> list[CheckResult]:
        """What every check says."""
        return [self._run(check) for check in self._checks]

    def planted(self, case: Case) -> tuple[Victim, list[CheckResult]]:
        """The victim, and what the checks that can tell say once the case is planted."""
        self._database.execute("BEGIN")
        try:
            victim = self._victim(case)
            for statement in case.plant:
                self._database.execute(statement, _of(victim, statement))
            changed = {found[1] for statement in case.plant if (found := _CHANGED.match(statement))}
            for relation in changed & set(HASHED):  # as the engine loads what is changed before it
                told = "UPDATE {0} SET {1}_hash = CASE WHEN {1} IS NOT NULL THEN hash({1}) END"
                self._database.execute(told.format(relation, HASHED[relation]))
            if "postings" in changed:
                for relation, sql in self._shared.items():
                    self._engine.keep(relation, sql)
            return victim, [self._run(check) for check in self._checks if changed & {*check.reads, *check.uses}]
        finally:
            self._database.execute("ROLLBACK")

    def _victim(self, case: Case) -> Victim:
        rows = self._database.sql(case.pick).to_arrow_table().to_pylist()
        assert rows, f"{case.name}: there is nothing to plant it in"
        return dict(rows[0])

    def _run(self, check: Check) -> CheckResult:
        return run_check(self._engine, check, self._rows, max_breaks=1000)


def _of(victim: Victim, statement: str) -> dict[str, Any]:
    return {name: victim[name] for name in _NAMED.findall(statement)}


@contextmanager
def open_books(lived: Lived) -> Iterator[Books]:
    """The books of a casino, in memory."""
    with duckdb.connect(config={"threads": 1}) as database:
        yield Books(database, lived)
