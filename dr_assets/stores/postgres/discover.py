"""Databases that our own credentials can see and no dataset declares.

What belongs here: looking and comparing. What stays out: the declarations themselves (estate/) and what to do about a
finding.

The WAL of a server covers all its databases, so such a database is restored along with its neighbours; but nobody has
said what its loss would cost, nobody reconciles it, and its owner doesn't know. That is the finding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.stores.postgres.dsn import describe_dsn, parse_dsn
from dr_assets.stores.postgres.session import Connection, connect, source_errors

_DATABASES = """
SELECT datname::text, pg_get_userbyid(datdba)::text, pg_database_size(oid)
FROM pg_database
WHERE NOT datistemplate AND datallowconn AND has_database_privilege(oid, 'CONNECT')
ORDER BY datname
"""
_USER_TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT LIKE 'pg\\_%'
      AND n.nspname NOT IN ('information_schema', 'dr_assets')
"""
# initdb makes it for tools to connect to; while it is empty there is nothing to declare.
_MAINTENANCE = "postgres"


@dataclass(frozen=True, slots=True)
class UndeclaredDatabase:
    """A database that no dataset's connection string names. `seen_by` is the dataset whose credentials see it."""

    server: str
    system_id: str
    database: str
    owner: str
    size_bytes: int
    seen_by: str


@dataclass(frozen=True, slots=True)
class _View:
    """One server as one dataset's credentials see it."""

    dataset: str
    server: str
    system_id: str
    declared: str
    databases: list[tuple[str, str, int]]


def undeclared_databases(estate: Estate, env: Mapping[str, str]) -> list[UndeclaredDatabase]:
    """Every such database once, ordered by server and name.

    Servers are told apart by their system identifier, so that two names of one server don't hide or double anything.
    Raises PolicyError (`source.dsn_unset`) when a dataset's DSN is not in `env`, SourceError when a server is away.
    """
    views = [_view(dataset, _dsn(dataset, env)) for dataset in estate.postgres().values()]
    declared = {(view.system_id, view.declared) for view in views}
    found = {
        (view.system_id, name): UndeclaredDatabase(view.server, view.system_id, name, owner, size, view.dataset)
        for view in reversed(views)
        for name, owner, size in view.databases
        if (view.system_id, name) not in declared
    }
    return sorted(found.values(), key=lambda database: (database.server, database.database))


def _dsn(dataset: PostgresDataset, env: Mapping[str, str]) -> str:
    dsn = env.get(dataset.dsn_env, "")
    if not dsn:
        raise PolicyError(
            "source.dsn_unset",
            f"{dataset.dsn_env}, the connection string of {dataset.name}, is not set",
            "set it: without it nobody can tell which databases are declared",
        )
    return dsn


def _view(dataset: PostgresDataset, dsn: str) -> _View:
    with source_errors(dsn), connect(dsn, application_name="dr-assets discover") as connection:
        row = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
        databases = [(str(name), str(owner), int(str(size))) for name, owner, size in connection.execute(_DATABASES)]
        declared = connection.info.dbname
        if declared != _MAINTENANCE and not _maintenance_is_used(dsn):
            databases = [database for database in databases if database[0] != _MAINTENANCE]
    server = describe_dsn(dsn).rpartition("/")[0].rpartition("@")[2]
    return _View(dataset.name, server, str(row[0] if row else ""), declared, databases)


def _maintenance_is_used(dsn: str) -> bool:
    """Whether somebody keeps tables in the database that is only meant to be connected to."""
    try:
        with connect(psycopg.conninfo.make_conninfo("", **parse_dsn(dsn) | {"dbname": _MAINTENANCE}),
                     application_name="dr-assets discover") as connection:  # fmt: skip
            return _count_tables(connection) > 0
    except psycopg.OperationalError:
        return True  # what can't be looked into is reported, not assumed empty


def _count_tables(connection: Connection) -> int:
    row = connection.execute(_USER_TABLES).fetchone()
    return int(str(row[0])) if row else 0
