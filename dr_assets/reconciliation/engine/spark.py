"""Spark: for a ledger that outgrows one machine. It needs the extra `spark` and a Java runtime, and only when used.

What belongs here: the port over a Spark session. What stays out: the statements, and the cluster: whoever has one opens
the session against it and names a `workdir` that its executors can read.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.reconciliation.engine.dialect import once_for_spark, to_spark
from dr_assets.reconciliation.engine.port import no_query, not_computed
from dr_assets.reconciliation.engine.spool import spool
from dr_assets.reconciliation.externals import Source, paths_of
from dr_assets.reconciliation.relations import HASHED

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SMALL_BYTES: Final = 1 << 20
_CONDITION: Final = re.compile(r"\[[A-Z][A-Z0-9_.]+\][^\n]*")


class Spark:
    """The port over one session. Streams become Parquet files in a folder first: Spark reads those in parallel."""

    name: Final = "spark"

    def __init__(self, session: "SparkSession", folder: Path) -> None:
        self._session = session
        self._folder = folder
        self._kept: dict[str, Any] = {}

    def load(self, relation: str, source: Source) -> int:
        """A view over Parquet files, or over a table that is small enough to be handed over as it is."""
        if isinstance(source, pa.Table) and source.nbytes < _SMALL_BYTES:
            _with_hash(self._session.createDataFrame(source), relation).createOrReplaceTempView(relation)
            return int(source.num_rows)
        if isinstance(source, pa.RecordBatchReader | pa.Table):
            path = self._folder / f"{relation}.parquet"
            reader = source.to_reader() if isinstance(source, pa.Table) else source
            spool(reader, reader.schema, path, "zstd")
            paths = [path]
        else:
            paths = paths_of(source) or []
        frame = self._session.read.parquet(*(str(path) for path in paths))
        _with_hash(frame, relation).createOrReplaceTempView(relation)
        return frame.count()

    def define(self, view: str, sql: str) -> None:
        """A view of this session."""
        from pyspark.errors import PySparkException  # noqa: PLC0415 - an extra

        try:
            self._session.sql(to_spark(sql)).createOrReplaceTempView(view)
        except PySparkException as error:
            raise no_query(view, error) from None

    def keep(self, relation: str, sql: str) -> None:
        """A frame that is computed once, by the first who reads it; so is what the statement says MATERIALIZED of."""
        first, statement = once_for_spark(sql)
        for name, query in (first | {relation: statement}).items():
            if name in self._kept:
                self._kept.pop(name).unpersist()
            frame = self._session.sql(query).persist()
            frame.createOrReplaceTempView(name)
            self._kept[name] = frame

    def rows(self, sql: str) -> pa.Table:
        """The rows, collected as Arrow."""
        return self._session.sql(to_spark(sql)).toArrow()


def _with_hash(frame: Any, relation: str) -> Any:
    """A relation with the hash that its joins compare, which a source cannot bring itself."""
    hashed = HASHED.get(relation)
    if hashed not in frame.columns:
        return frame
    whole = frame.drop(f"{hashed}_hash")
    return whole.selectExpr("*", f"CASE WHEN {hashed} IS NOT NULL THEN xxhash64({hashed}) END AS {hashed}_hash")


@contextmanager
def spark_engine(
    workdir: Path | None,
    *,
    session: "SparkSession | None" = None,
    memory: str = "1g",
    threads: int = 2,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Spark]:
    """An engine over a session of the caller's, or over one of its own in this machine that ends with it.

    What is extracted lies in a folder under `workdir` meanwhile; `settings` are Spark's, for a session of its own.
    Raises PolicyError (`reconciliation.spark`) where Spark isn't installed; what Spark itself raises becomes
    SourceError (`reconciliation.engine`), or PolicyError (`reconciliation.memory`), as DuckDB's does.
    """
    with tempfile.TemporaryDirectory(prefix="reconcile-", dir=workdir) as folder, _in_our_words():
        if session is not None:
            yield Spark(session, Path(folder))
            return
        own = _local_session(folder, memory, threads, settings or {})
        try:
            yield Spark(own, Path(folder))
        finally:
            own.stop()


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"pyspark", "py4j"}:
            raise
        raise _told(error) from None


def _told(error: Exception) -> DrError:
    """Only the sentence that begins with Spark's own condition: all else may hold a row."""
    said = str(error)
    if "OutOfMemoryError" in said:
        return PolicyError(
            "reconciliation.memory",
            "the ledger's checks do not fit the memory of Spark's driver or executors",
            "raise `memory`, or the cluster's own settings",
        )
    condition = _CONDITION.search(said)
    said = condition[0] if condition else "it names no condition"
    return not_computed("Spark", error, said, "Spark's own log says which")


def _local_session(folder: str, memory: str, threads: int, further: Mapping[str, str]) -> "SparkSession":
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra
    except ImportError:
        raise PolicyError(
            "reconciliation.spark", "Spark is not installed", "install the extra: dr_assets[spark], and a Java runtime"
        ) from None
    settings: dict[str, str] = {
        "spark.driver.memory": memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        # What looks small to the planner, compressed and filtered, may not fit into memory as the one copy it would be.
        "spark.sql.autoBroadcastJoinThreshold": "-1",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": folder,
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.sql.shuffle.partitions": str(threads),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",  # an overflow is an error, as in DuckDB
        **further,
    }
    builder = SparkSession.builder.master(f"local[{threads}]").appName("dr_assets reconciliation")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
