"""Every check means the same on both engines: the same relations, the same breaks, row by row."""

import random
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from dr_assets.estate.errors import SourceError
from dr_assets.reconciliation.checks import CheckResult, all_checks
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.dialect import once_for_spark, to_spark
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.engine.spark import spark_engine
from dr_assets.reconciliation.relations import HASHED, RELATIONS, Column
from dr_assets.reconciliation.run import judge

_AS_OF = datetime(2026, 1, 31, tzinfo=UTC)
_TYPES = {"id": pa.int64(), "text": pa.string(), "minor": pa.int64(), "flag": pa.bool_(), "bytes": pa.binary()}
_CONTRACT = Contract(
    name="random",
    queries={},
    chain_text="concat_ws('|', account_id, sequence, amount_minor)",
    digest_text="concat_ws('|', transfer_id, idempotency_key)",
)
# Texts with a meaning, so that the rules about them are reached.
_WORDS = {
    "currency": ["EUR", "USD", "SEK"],
    "direction": ["in", "out"],
    "kind": ["payment", "refund", "chargeback", "payout", "reversal", "fee", "transfer", "batch"],
    "resolution": ["posted", "voided"],
    "topic": ["ledger.bets", "ledger.wins"],
    "model": ["wallets", "limits"],
}
_STATES = {
    "payments": ["pending", "posted", "reversed"],
    "withdrawals": ["requested", "approved", "paid", "rejected", "cancelled"],
}


def _value(rng: random.Random, relation: str, column: Column) -> object:
    """A value of a small domain: rows meet one another, and every rule is broken by some of them."""
    if rng.random() < (0.3 if column.nullable else 0.02):
        return None
    if column.name.endswith("_us"):
        return int(_AS_OF.timestamp() * 1e6) - rng.choice([0, 5, 40_000, 10**6, 10**7]) * 10**6 - rng.randrange(10**6)
    words = _STATES.get(relation) if column.name == "state" else _WORDS.get(column.name)
    large = 2**62 if rng.random() < 0.05 else 0
    values: dict[str, object] = {
        "flag": rng.random() < 0.5,
        "bytes": bytes([rng.randrange(2)]),
        "id": rng.randrange(1, 20),
        "minor": rng.choice([rng.randrange(1, 8), rng.randrange(-300, 300), large]),
        "text": rng.choice(words or [str(number) for number in range(1, 20)]),
    }
    return values[column.kind]


def _relations(seed: int, rows: int) -> dict[str, pa.Table]:
    """Every relation there is, full of rows that no ledger would have."""
    rng = random.Random(seed)
    tables = {}
    for relation, columns in RELATIONS.items():
        schema = pa.schema([(column.name, _TYPES[column.kind]) for column in columns])
        given = [{column.name: _value(rng, relation, column) for column in columns} for _ in range(rows)]
        tables[relation] = pa.Table.from_pylist(given, schema=schema)
    for relation, column in HASHED.items():  # no engine may believe a source's own
        tables[relation] = tables[relation].append_column(f"{column}_hash", pa.array([1] * rows, pa.int64()))
    return tables


def _judged(engine: Engine, tables: dict[str, pa.Table]) -> dict[str, CheckResult]:
    rows = {relation: engine.load(relation, table) for relation, table in tables.items()}
    results = judge(engine, _CONTRACT, all_checks(), rows, _AS_OF, max_breaks=100_000)
    return {result.name: result for result in results}


# Spark compiles each query by default: for forty rows that takes longer than all else.
_SMALL = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
}


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1800)  # a Java runtime on a loaded machine
@pytest.mark.xdist_group("spark")
def test_every_check_gives_the_same_breaks_on_both_engines(tmp_path: Path) -> None:
    """Whole rows, counts, amounts, ages, worst accounts and what matched; no check stays silent, nor breaks nothing."""
    tables, none = _relations(20260131, 40), _relations(1, 0)
    with duckdb_engine(tmp_path, "512MB", 2) as engine:
        expected = _judged(engine, tables)
    with duckdb_engine(tmp_path, "512MB", 2) as engine:
        silent = _judged(engine, none)
    with spark_engine(tmp_path, settings=_SMALL) as engine:
        found, nothing = _judged(engine, tables), _judged(engine, none)
    assert set(found) == {check.name for check in all_checks()}
    for told, wanted in ((found, expected), (nothing, silent)):
        for name, result in wanted.items():
            assert told[name].breaks.to_pylist() == result.breaks.to_pylist(), name
            assert told[name].kinds == result.kinds, name
            assert told[name].worst == result.worst, name
            assert told[name].matched == result.matched, name
    assert [name for name, result in expected.items() if result.breaks_total == 0] == []
    assert [name for name, result in silent.items() if result.breaks_total] == []


@pytest.mark.parametrize(
    ("duckdb", "spark"),
    [
        ("SELECT sum(a) AS s FROM t", "SELECT SUM(CAST(a AS DECIMAL(38, 0))) AS s FROM t"),
        ("SELECT a::HUGEINT AS b FROM t", "SELECT CAST(a AS DECIMAL(38, 0)) AS b FROM t"),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a NULLS LAST"),
    ],
)
def test_where_the_same_words_mean_different_things_they_are_changed(duckdb: str, spark: str) -> None:
    """Sums and wide numbers stay exact beyond 64 bits, and a NULL is sorted last."""
    assert to_spark(duckdb) == spark


def test_what_is_said_to_be_materialized_is_computed_once_by_spark_too() -> None:
    """It is a statement of its own, with what it reads; the others read it by its name."""
    first, statement = once_for_spark(
        "WITH a AS (SELECT 1 AS x), b AS MATERIALIZED (SELECT x FROM a), c AS NOT MATERIALIZED (SELECT x FROM b)"
        " SELECT x FROM c"
    )
    assert first == {"b": "WITH a AS (SELECT 1 AS x) SELECT x FROM a"}
    assert statement == "WITH a AS (SELECT 1 AS x), c AS (SELECT x FROM b) SELECT x FROM c"


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1800)  # as above
@pytest.mark.xdist_group("spark")
def test_what_spark_cannot_compute_is_an_error_of_ours(tmp_path: Path) -> None:
    """As DuckDB's: no traceback of a Java runtime, no text of a row in the message; also of what is computed late."""
    for sql in ("SELECT CAST(name AS BIGINT) AS n FROM people", "SELECT 9223372036854775807 + id AS n FROM people"):
        with pytest.raises(SourceError) as caught:
            _computed(sql, tmp_path)
        assert caught.value.code == "reconciliation.engine"
        assert "Jane" not in str(caught.value)
        assert re.search(r"CAST_INVALID_INPUT|ARITHMETIC_OVERFLOW", caught.value.found)


def _computed(sql: str, folder: Path) -> None:
    with spark_engine(folder, settings=_SMALL) as engine:
        engine.load("people", pa.table({"name": ["Jane Doe"], "id": [1]}))
        engine.keep("numbers", sql)
        engine.rows("SELECT n FROM numbers")
