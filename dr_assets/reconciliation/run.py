"""Reconciling: read one snapshot of a restored ledger through its contract, run every check, say what broke.

What belongs here: the order of things. What stays out: the steps themselves (extract.py, engine/, checks.py) and the
result (result.py).
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.checks import Check, CheckResult, Skipped, all_checks, run_check, why_skipped
from dr_assets.reconciliation.contract import Contract, load_contract
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.externals import Externals, compare_externals
from dr_assets.reconciliation.extract import Unmet, compare_with_source, load, reading, unmet_by_source
from dr_assets.reconciliation.relations import EXTERNAL, RELATIONS
from dr_assets.reconciliation.result import AREAS, Reconciliation
from dr_assets.reconciliation.shared import prepare, stand_in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

__all__ = ["Reconciliation", "check_contract", "judge", "reconcile"]


def reconcile(
    dsn: str,
    contract: str = "casino_ledger",
    *,
    externals: Externals | None = None,
    as_of: datetime | None = None,
    areas: Collection[str] | None = None,
    engine: AbstractContextManager[Engine] | None = None,
    workdir: Path | None = None,
    memory_limit: str = "512MB",
    threads: int = 2,
    max_breaks: int = 10_000,
) -> Reconciliation:
    """Run every check over one consistent snapshot of the ledger at `dsn`; read-only, a hot standby will do.

    `externals` are what outsiders know; a check that needs what neither contract nor externals give is skipped, with
    why. `as_of` is the moment that ages and spans are judged at: by default the newest that the ledger itself tells of,
    since a restored one is read long after it stood still; `areas` asks for some of
    the eight only. The default engine spills what does not fit `memory_limit` to a folder under `workdir` that is gone
    afterwards; `max_breaks` bounds the break rows kept per check (all are counted). Raises PolicyError for a contract
    or an external that is unknown, invalid or not fulfilled, and where nothing would look at what was asked for;
    SourceError for a database that cannot be read.
    """
    begin_at, begin_s = datetime.now(UTC), time.monotonic()
    agreed, brought = load_contract(contract), dict(externals or {})
    compare_externals(brought)
    to_run, not_run = _chosen(agreed, brought, areas)
    _require_asked(to_run, not_run, brought, areas)
    with engine or duckdb_engine(workdir, memory_limit, threads) as sets:
        with reading(dsn) as source:
            snapshot = source.snapshot
            compare_with_source(source.cursor, agreed)
            rows, extract_s = load(source, agreed, sets, to_run, brought, threads)
        moment = as_of or _newest(sets, agreed, rows, snapshot.at)
        results = judge(sets, agreed, to_run, rows, moment, max_breaks=max_breaks)
        name = sets.name
    return Reconciliation(
        contract=agreed.name,
        snapshot=snapshot,
        checks=results,
        not_run=not_run,
        rows=rows,
        begin_at=begin_at,
        end_at=datetime.now(UTC),
        extract_s=extract_s,
        duration_s=round(time.monotonic() - begin_s, 3),
        as_of=moment,
        engine=name,
        meanings=agreed.meanings,
    )


def _chosen(
    contract: Contract, externals: Externals, areas: Collection[str] | None
) -> tuple[list[Check], tuple[Skipped, ...]]:
    """What is to be run and what is not, with why."""
    twice = sorted(set(contract.queries) & set(externals))
    if twice:
        raise PolicyError(
            "reconciliation.external",
            f"{', '.join(twice)} is given by contract {contract.name} and by the caller",
            "leave it out of one of them: nobody could tell which is true",
        )
    unknown = sorted(set(areas or ()) - set(AREAS))
    if unknown:
        raise PolicyError(
            "reconciliation.area", f"there is no area {', '.join(unknown)}", f"there are {', '.join(AREAS)}"
        )
    given = frozenset(contract.queries) | frozenset(externals)
    asked = None if areas is None else frozenset(areas)
    to_run: list[Check] = []
    not_run: list[Skipped] = []
    for check in all_checks():
        why = why_skipped(check, given, contract.parts, asked)
        if why is None:
            to_run.append(check)
        else:
            not_run.append(Skipped(check.name, why))
    return to_run, tuple(not_run)


def _require_asked(
    to_run: list[Check], not_run: tuple[Skipped, ...], brought: Externals, areas: Collection[str] | None
) -> None:
    """Nothing that was asked for passes because nothing looked at it."""
    judging = [check for check in to_run if not check.is_of_values]
    # Where an area is about what others know, their side has to be there.
    others = {check.name for check in all_checks() if not check.is_of_values and set(check.reads) & set(EXTERNAL)}
    about_others = {name.partition("/")[0] for name in others}
    judged = {check.area for check in judging if check.area not in about_others or check.name in others}
    for area in sorted(set(areas or ()) - judged):
        why = sorted({one.why for one in not_run if one.name.startswith(f"{area}/")})
        raise PolicyError(
            "reconciliation.not_checked",
            f"no check of area {area} can be run: {'; '.join(why)}",
            "bring what is missing (docs/reconciliation.md), or don't ask for the area",
        )
    read = {relation for check in judging for relation in (*check.reads, *check.uses)}
    unread = sorted(set(brought) - read - {"partitions"})  # which is the records' own table of contents
    if unread and areas is None:
        raise PolicyError(
            "reconciliation.not_checked",
            f"{', '.join(unread)} is brought, and no check that can be run reads it",
            "give the relations that it is compared with in the contract (`dr-assets contract check` names them)",
        )


def judge(
    engine: Engine, contract: Contract, checks: list[Check], rows: dict[str, int], as_of: datetime, *, max_breaks: int
) -> tuple[CheckResult, ...]:
    """Run checks over relations that are loaded already; `rows` counts them. The last step of `reconcile`."""
    prepare(engine, contract, as_of, checks)
    stand_in(engine, checks, frozenset(rows))
    return tuple(run_check(engine, check, rows, max_breaks=max_breaks) for check in checks)


def _newest(engine: Engine, contract: Contract, rows: Mapping[str, int], at: datetime) -> datetime:
    """The newest moment in the contract's relations; never later than the snapshot, which is all there is without."""
    moments = [
        f"SELECT max({column.name}) AS at_us FROM {relation}"  # noqa: S608 - names of ours
        for relation in rows
        if relation in contract.queries
        for column in RELATIONS[relation]
        if column.name.endswith("_us")
    ]
    if not moments:
        return at
    newest_us = engine.rows(f"SELECT max(at_us) AS at_us FROM ({' UNION ALL '.join(moments)}) AS moments")  # noqa: S608 - as above
    (found,) = newest_us.column("at_us").to_pylist()
    at_us = (at - _EPOCH) // timedelta(microseconds=1)
    # Compared as numbers: what a damaged row says may be no date at all.
    return at if found is None or not 0 <= found < at_us else _EPOCH + timedelta(microseconds=found)


@dataclass(frozen=True)
class Fulfilment:
    """How a database stands to a contract: everything that it lacks, and the checks that could be run, and could not.

    `to_run` counts, by area; externals are brought when it is reconciled, so what needs them is among `not_run`.
    """

    contract: Contract
    unmet: tuple[Unmet, ...]
    to_run: dict[str, int]
    not_run: tuple[Skipped, ...]


def fulfilment(dsn: str, contract: str) -> Fulfilment:
    """Compare a database with a contract without reading its rows.

    Raises PolicyError for a contract that is unknown or invalid, SourceError for a database that can't be read.
    """
    agreed = load_contract(contract)
    with ExitStack() as opened:

        def anew() -> dbapi.Cursor:
            return opened.enter_context(reading(dsn)).cursor

        unmet, schemas = unmet_by_source(anew(), agreed, anew)
    if not unmet:
        unmet = _unmet_texts(agreed, schemas)
    to_run, not_run = _chosen(agreed, {}, None)
    return Fulfilment(agreed, tuple(unmet), dict(Counter(check.area for check in to_run)), not_run)


def _unmet_texts(contract: Contract, schemas: Mapping[str, pa.Schema]) -> list[Unmet]:
    """The contract's expressions, tried over relations without a row."""
    with duckdb_engine(None, "64MB", 1) as engine:
        for relation, schema in schemas.items():
            engine.load(relation, schema.empty_table())
        try:
            prepare(engine, contract, datetime.now(UTC))
        except PolicyError as error:
            return [Unmet("postings, transfers", error.found)]
    return []


def check_contract(dsn: str, contract: str) -> None:
    """Say early whether a database fulfils a contract, without reading its rows. Raises like `reconcile`."""
    agreed = load_contract(contract)
    with reading(dsn) as source:
        compare_with_source(source.cursor, agreed)
