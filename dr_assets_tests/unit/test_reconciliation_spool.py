"""Where a relation's rows lie while they are judged."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.engine.spool import spool

_ROWS = 20_000
_SCHEMA = pa.schema(
    [("reference", pa.string()), ("currency", pa.string()), ("minor", pa.int64()), ("hash", pa.binary())]
)


def _batches(count: int) -> Iterator[pa.RecordBatch]:
    """So many batches of 1.3 MB, with NULLs, words beyond ASCII and numbers at the ends of 64 bits."""
    for number in range(count):
        at = range(number * _ROWS, (number + 1) * _ROWS)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([None if i % 7 == 0 else f"zahlung-ä-{i}" for i in at]),
                pa.array([None if i % 11 == 0 else "EUR" for i in at]),
                pa.array([2**63 - 1 - i if i % 2 else -(2**63) + i for i in at], pa.int64()),
                pa.array([i.to_bytes(16, "big") for i in at]),
            ],
            schema=_SCHEMA,
        )


def test_many_rows_lie_in_a_file_that_goes(tmp_path: Path) -> None:
    """A long stream is a file in the working folder, with every value as it was; afterwards nothing lies there."""
    expected = pa.Table.from_batches(list(_batches(20)))
    with duckdb_engine(tmp_path, "256MB", 2) as engine:
        assert engine.load("payments", pa.RecordBatchReader.from_batches(_SCHEMA, _batches(20))) == 20 * _ROWS
        assert [path.name for path in tmp_path.rglob("*.parquet")] == ["payments.parquet"]
        found = engine.rows("SELECT * EXCLUDE (reference_hash) FROM payments ORDER BY hash")
        assert found.cast(_SCHEMA).equals(expected)
    assert list(tmp_path.iterdir()) == []


def test_few_rows_lie_in_no_file(tmp_path: Path) -> None:
    """What fits beside the joins is never written to a disk."""
    with duckdb_engine(tmp_path, "256MB", 2) as engine:
        assert engine.load("payments", pa.RecordBatchReader.from_batches(_SCHEMA, _batches(1))) == _ROWS
        assert list(tmp_path.rglob("*.parquet")) == []
        assert engine.rows("SELECT count(*) AS n FROM payments").to_pylist() == [{"n": _ROWS}]


@pytest.mark.parametrize("name", ["reference_hash", "REFERENCE_Hash"])
@pytest.mark.parametrize("form", ["table", "file", "short stream", "long stream"])
def test_a_source_cannot_bring_its_own_hashes(form: str, name: str, tmp_path: Path) -> None:
    """What joins compare is computed here, NULL for NULL; a column of that name is not taken from anybody."""
    rows = pa.Table.from_batches(list(_batches(20 if form == "long stream" else 1)))
    rows = rows.append_column(name, pa.array([1] * len(rows), pa.uint64()))
    given: pa.Table | pa.RecordBatchReader | Path = rows
    if form == "file":
        given = tmp_path / "given.parquet"
        pq.write_table(rows, given)
    elif form != "table":
        given = rows.to_reader()
    with duckdb_engine(tmp_path, "256MB", 2) as engine:
        assert engine.load("provider_lines", given) == len(rows)
        told = """SELECT count(*) FILTER (WHERE reference IS NULL AND reference_hash IS NULL) AS none,
                         count(*) FILTER (WHERE reference_hash = hash(reference)) AS same FROM provider_lines"""
        ((none, same),) = (row.values() for row in engine.rows(told).to_pylist())
    assert none == rows.column("reference").null_count > 0
    assert none + same == len(rows)


def test_a_type_that_no_file_holds_is_loaded_all_the_same(tmp_path: Path) -> None:
    """An interval, which a contract's text may name, stays one."""
    one = pa.array([pa.MonthDayNano([1, 2, 3000])], pa.month_day_nano_interval())
    spans = one.take(pa.repeat(pa.scalar(0), 1_100_000))  # more than lies in memory of other types
    schema = pa.schema([("span", spans.type)])
    reader = pa.RecordBatchReader.from_batches(schema, [pa.RecordBatch.from_arrays([spans], schema=schema)])
    with duckdb_engine(tmp_path, "256MB", 2) as engine:
        assert engine.load("payments", reader) == len(spans)
        found = engine.rows("SELECT DISTINCT span = INTERVAL '1 month 2 days 3 microseconds' AS same FROM payments")
    assert found.column("same").to_pylist() == [True]


def test_a_folder_without_room_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A full disk is the working folder's trouble: which relation, and what to do."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(PolicyError, match="payments: No space left on device") as caught:
        spool(_batches(1), _SCHEMA, tmp_path / "payments.parquet")
    assert caught.value.code == "reconciliation.memory"
