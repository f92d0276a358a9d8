"""When the business relationship with whom ended: from a file, and from the live databases by their contracts.

What belongs here: reading both, by subject id. What stays out: what follows from it (vault/erasure/law.py).
"""

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path

import psycopg

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.reconciliation.contract import load_contract
from dr_assets.vault.erasure.law import Relationship
from dr_assets.vault.subjects.connect import declared_of
from dr_assets.vault.subjects.ids import SubjectIds

_HEAD = ["personal_id", "ended_at"]
_BATCH = 10_000


def relationships(
    estate: Estate, ids: SubjectIds, people: frozenset[str], env: Mapping[str, str]
) -> dict[str, Relationship]:
    """What is known of these people, by subject id: the latest end that anybody tells, and none where it lasts for one.

    Raises PolicyError `erasure.relationships`, SourceError `erasure.source_away`: who can't be asked might say that the
    relationship lasts.
    """
    found: dict[str, Relationship] = {}
    for personal_id, told in _told(estate, env):
        who = ids.of(personal_id)
        if who in people:
            found[who] = _stricter(found.get(who), told)
    return found


def _stricter(known: Relationship | None, told: Relationship) -> Relationship:
    if known is None or told.ended_at is None:
        return told
    if known.ended_at is None or known.ended_at >= told.ended_at:
        return known
    return told


def _told(estate: Estate, env: Mapping[str, str]) -> Iterator[tuple[str, Relationship]]:
    variable = declared_of(estate).relationships_env
    if variable is not None:
        yield from _of_file(variable, env)
    for dataset in estate.postgres().values():
        query = load_contract(dataset.restore_test.contract).relationships
        if query is not None:
            yield from _of_database(dataset, query, env)


def _of_file(variable: str, env: Mapping[str, str]) -> Iterator[tuple[str, Relationship]]:
    """CSV with the head `personal_id,ended_at`; an empty end means that the relationship lasts."""
    path = env.get(variable, "")
    try:
        with Path(path).expanduser().open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if next(rows, None) != _HEAD:
                raise _bad(variable, f"does not begin with {','.join(_HEAD)}")
            for number, row in enumerate(rows, start=2):
                if len(row) != len(_HEAD):
                    raise _bad(variable, f"line {number} has {len(row)} fields")
                yield row[0], Relationship(_moment(row[1], variable, number), f"file {Path(path).name}")
    except OSError as error:
        raise _bad(variable, f"can't be read: {error.strerror}") from None


def _moment(text: str, variable: str, number: int) -> datetime | None:
    if not text.strip():
        return None
    try:
        return _aware(datetime.fromisoformat(text.strip()))
    except ValueError:
        raise _bad(variable, f"line {number}: no date") from None


def _of_database(dataset: PostgresDataset, query: str, env: Mapping[str, str]) -> Iterator[tuple[str, Relationship]]:
    dsn = env.get(dataset.dsn_env, "")
    if not dsn:
        raise SourceError(
            "erasure.source_away",
            f"{dataset.dsn_env} is not set, so {dataset.name} can't be asked when whose relationship ended",
            f"export {dataset.dsn_env}, or take `relationships` out of its contract",
        )
    try:
        with psycopg.connect(dsn) as session, session.cursor(name="relationships") as cursor:
            cursor.itersize = _BATCH
            cursor.execute(query.encode())
            for row in cursor:
                personal_id, ended_at = row
                yield str(personal_id), Relationship(_of_value(ended_at, dataset), f"dataset {dataset.name}")
    except psycopg.Error as error:
        raise SourceError(
            "erasure.source_away",
            f"{dataset.name} does not say when whose relationship ended: SQLSTATE {error.sqlstate or 'unknown'}",
            "a relationship that lasts keeps the person's data, so nobody is erased before it can be asked",
        ) from None


def _of_value(value: object, dataset: PostgresDataset) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return _aware(value)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise PolicyError(
        "erasure.relationships",
        f"the contract of {dataset.name} yields no time for the end of a relationship",
        "SELECT player_id::text, closed_at FROM …: a text and a timestamptz or date",
    )


def _aware(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _bad(variable: str, why: str) -> PolicyError:
    return PolicyError(
        "erasure.relationships", f"the file that {variable} names {why}", "a CSV file: personal_id,ended_at"
    )
