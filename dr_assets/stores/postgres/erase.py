"""Erasure replay: whoever was erased is erased again from a restored database, before anybody may use it.

What belongs here: matching the database's people with the erasure list, running the contract's statements, proving that
nothing is left. What stays out: the statements (reconciliation/contracts/), the list (vault/subjects/erased.py), and
when it has to happen (restore.py).

A backup is older than some erasures, and can't be changed. The database knows its people by their own identifiers, the
list by subject ids; only this host has the key that leads from the one to the other, and nothing of it is kept.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.guarded import eraser, superuser_dsn
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.subjects.ids import SubjectIds

_BATCH: Final = 10_000
_TABLE: Final = "CREATE TEMPORARY TABLE erased_people (personal_id text PRIMARY KEY, subject_id text NOT NULL)"
_TOUCHED: Final = (
    "SELECT schemaname, relname FROM pg_stat_xact_user_tables WHERE n_tup_upd + n_tup_del > 0"
    " AND schemaname NOT LIKE 'pg\\_%' ORDER BY 1, 2"
)


@dataclass(frozen=True, slots=True)
class EraseRules:
    """SQL of the contract. `people` yields a text, the identifier of each person that the database knows.

    `statements` erase those in `pg_temp.erased_people (personal_id, subject_id)`; `proof` yields a row for whatever is
    left of them, so none. All three are empty where the contract says that there is no personal data.
    """

    people: str
    statements: str
    proof: str

    @property
    def nobody(self) -> bool:
        """Whether the database holds nobody's data."""
        return not self.people


@dataclass(frozen=True, slots=True)
class Erasures:
    """What a restore has to apply: the list, the key that leads to it, and the rules; None where none are declared."""

    listed: ErasureList
    ids: SubjectIds | None
    rules: EraseRules | None

    def require_applicable(self, dataset: str) -> None:
        """Raise PolicyError `erasure.no_rules`, `erasure.no_id_key`: before anything is fetched."""
        if not self.listed.people:
            return
        if self.rules is None:
            raise PolicyError(
                "erasure.no_rules",
                f"{len(self.listed)} people are erased, and the contract of {dataset} doesn't say how to erase anybody",
                "declare `erase:` in its contract.yaml, or `erase: none` if it holds nobody's data (docs/erasure.md)",
            )
        if self.ids is None and not self.rules.nobody:
            raise PolicyError(
                "erasure.no_id_key",
                f"{len(self.listed)} people are erased, and without the key of subject ids nobody knows who they are",
                "bring it from its copy or the escrow (`subject_id_key`) and name it as the estate declares",
            )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was done: of `erasures` on the list those of `subject_ids` were known to the database.

    `done` is what the server said of each statement, `tables` are those in which rows were changed or removed.
    """

    erasures: int
    subject_ids: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    duration_s: float = 0.0

    @property
    def found(self) -> int:
        """How many of the erased the database knew."""
        return len(self.subject_ids)


def replay_erasures(server: PostgresServer, role: str, dbname: str, erasures: Erasures) -> Replayed:
    """Erase everybody on the list from `dbname` of a promoted server, in one transaction, and prove it.

    `role` is the name of a role that is made for it and dropped afterwards (`guarded.new_eraser_name`).

    Raises PolicyError `erasure.no_rules`, `erasure.no_id_key`, `erasure.bad_rules`, `erasure.failed`,
    `erasure.incomplete`; nothing that the server says is repeated but its code, since it may show whom it is about.
    """
    begin_s, rules, ids = time.monotonic(), erasures.rules, erasures.ids
    erasures.require_applicable(dbname)
    if not erasures.listed.people or rules is None or rules.nobody or ids is None:
        return Replayed(len(erasures.listed))
    with eraser(server, role, dbname) as has_database:
        if not has_database:
            return Replayed(len(erasures.listed))
        try:
            with psycopg.connect(server.dsn(dbname, user=role)) as session:
                found, done, tables = _erase(session, rules, ids, erasures.listed)
            _vacuum(server, dbname, tables)
        except psycopg.Error as error:
            raise _failed(error) from None
    names = tuple(f"{schema}.{table}" for schema, table in tables)
    return Replayed(len(erasures.listed), found, done, names, time.monotonic() - begin_s)


Session = psycopg.Connection[tuple[object, ...]]


def _erase(
    session: Session, rules: EraseRules, ids: SubjectIds, listed: ErasureList
) -> tuple[tuple[str, ...], tuple[str, ...], list[tuple[str, str]]]:
    session.execute(_TABLE)
    matched = list(_matched(session, rules, ids, listed))
    with session.cursor() as cursor, cursor.copy("COPY pg_temp.erased_people FROM STDIN") as copy:
        for row in matched:
            copy.write_row(row)
    done = tuple(_run(session, rules.statements))
    with session.cursor() as cursor:
        left = len(cursor.execute(rules.proof.encode()).fetchmany(_BATCH))
        if left:
            raise PolicyError(
                "erasure.incomplete",
                f"after the contract's statements its proof still finds {left} rows of people who are erased",
                "mend `statements` or `proof` of the contract; nothing of this restore is kept",
            )
        tables = [(str(schema), str(table)) for schema, table in cursor.execute(_TOUCHED).fetchall()]
    return tuple(subject_id for _, subject_id in matched), done, tables


def _matched(session: Session, rules: EraseRules, ids: SubjectIds, listed: ErasureList) -> Iterator[tuple[str, str]]:
    """Everybody in the database who is on the list, each once; no more than a batch of people is held."""
    seen: set[str] = set()
    with session.cursor(name="people") as cursor:
        cursor.itersize = _BATCH
        cursor.execute(rules.people.encode())
        for row in cursor:
            if len(row) != 1 or not isinstance(row[0], str):
                raise PolicyError(
                    "erasure.bad_rules",
                    "the contract's query for people yields something else than one column of text without NULL",
                    "cast it: SELECT player_id::text FROM …",
                )
            subject_id = ids.of(row[0])
            if subject_id in listed.people and row[0] not in seen:
                seen.add(row[0])
                yield row[0], subject_id


def _run(session: Session, statements: str) -> Iterator[str]:
    """Each statement's command tag, `DELETE 3`."""
    with session.cursor() as cursor:
        cursor.execute(statements.encode())
        while True:
            yield str(cursor.statusmessage)
            if not cursor.nextset():
                return


def _vacuum(server: PostgresServer, dbname: str, tables: list[tuple[str, str]]) -> None:
    """Free what the erased rows lay in, so that no later copy of the files carries them along as dead rows."""
    with psycopg.connect(superuser_dsn(server, dbname), autocommit=True) as session:
        for schema, table in tables:
            session.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(schema, table)))


def _failed(error: psycopg.Error) -> PolicyError:
    where = error.diag.table_name or error.diag.constraint_name
    return PolicyError(
        "erasure.failed",
        f"erasing people from the restored database failed: SQLSTATE {error.sqlstate or 'unknown'}"
        + (f", at {where}" if where else ""),
        "run the contract's statements by hand against a sandbox; nothing of this restore is kept",
    )
