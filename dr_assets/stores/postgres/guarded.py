"""Our own sessions with a restored server: as its superuser for what only that may do, as a reader for its data.

What belongs here: the settings of such sessions, the reader's and the eraser's role, stopping cleanly. What stays out:
what is asked in them, replay (recovery.py), checks (checks.py).

A restored database brings its source's settings for sessions (`ALTER DATABASE … SET`) and its source's views, functions
and casts, which run with the rights of whoever looks at them. A superuser's session may start programs on this host,
so ours takes no setting of the source's and looks at no data. What is to be read is read by a role of its own, made
after the promotion under a name that nobody could know before, which may read everything and change nothing.

Not held off: the source's own superuser. His SECURITY DEFINER functions run with his rights, and here he is as much a
superuser as there. A sandbox runs as an unprivileged user of the operating system for that.
"""

import secrets
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError

READER_PREFIX: Final = "dr_assets_reader"
ERASER_PREFIX: Final = "dr_assets_eraser"
# Writing out a large cache takes long; nothing that was restored is thrown away for it.
STOP_TIMEOUT_S: Final = 3600.0
# For settings that only newer versions know.
_SINCE_17: Final = 17
_SETTINGS: Final = {
    "search_path": "pg_catalog",
    # A library may lie in the restored directory itself, where its name is known.
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "role": "none",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_STANDBY_READER: Final = {
    "role": "pg_read_all_data",
    "row_security": "off",
    "restrict_nonsystem_relation_kind": "view,foreign-table",
}
# The minor versions that brought that restriction to majors that were there before it.
_GUARDED_SINCE: Final = {14: (14, 13), 15: (15, 8), 16: (16, 4)}
_SETTINGS_SINCE_17: Final = {"event_triggers": "off", "transaction_timeout": "0"}


def superuser_dsn(server: PostgresServer, dbname: str = "postgres") -> str:
    """A session of the bootstrap superuser that takes none of the source's settings: `options` outrank them all."""
    settings = {**_settings(server), "default_transaction_read_only": "off"}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return f"{server.dsn(dbname)}&options={urllib.parse.quote(options)}"


def standby_reader_dsn(server: PostgresServer, dbname: str) -> str | None:
    """A session for reading the data of a server that still recovers, where no role can be made; None if none is safe.

    The superuser's, in the shoes of `pg_read_all_data`. A function of the source's could step out of them, so the
    session expands no view and reads no foreign table: what is left is tables. A policy that would hide rows is an
    error, and never a shorter answer.
    """
    if server.programs.version < _GUARDED_SINCE.get(server.programs.major, (server.programs.major, 0)):
        return None
    settings = {**_settings(server), **_STANDBY_READER}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return f"{server.dsn(dbname)}&options={urllib.parse.quote(options)}"


def new_reader_name() -> str:
    """A role's name that the source cannot have taken or given settings to."""
    return f"{READER_PREFIX}_{secrets.token_hex(8)}"


def create_reader(server: PostgresServer, reader: str, dbname: str) -> bool:
    """Make the role on a promoted server: it may read every table of `dbname`, whole, and write nothing.

    BYPASSRLS, because policies would hide rows from the reconciliation. Its settings outrank a database's. Returns
    whether there is such a database.
    """
    return _create_role(server, reader, dbname, writes=False)


def drop_reader(server: PostgresServer, reader: str, dbname: str) -> None:
    """Take the role away again: a cluster that is kept has nothing of ours in it."""
    _drop_role(server, reader, dbname)


def new_eraser_name() -> str:
    """As `new_reader_name`, for `eraser`."""
    return f"{ERASER_PREFIX}_{secrets.token_hex(8)}"


@contextmanager
def eraser(server: PostgresServer, role: str, dbname: str) -> Iterator[bool]:
    """For as long as the block, a role that may read and change every row of `dbname` and nothing else.

    What a row's change sets off (triggers, casts) runs with these rights and not a superuser's. Gives whether there is
    such a database.
    """
    there = _create_role(server, role, dbname, writes=True)
    try:
        yield there
    finally:
        _drop_role(server, role, dbname)


def _create_role(server: PostgresServer, name: str, dbname: str, *, writes: bool) -> bool:
    role = sql.Identifier(name)
    rights = "pg_read_all_data, pg_write_all_data" if writes else "pg_read_all_data"
    made = sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER BYPASSRLS INHERIT IN ROLE " + rights)
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        session.execute(made.format(role))
        read_only = "off" if writes else "on"
        session.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = " + read_only).format(role))
        for setting in _settings(server):
            # Not a literal: an empty one becomes a list of one empty name.
            session.execute(sql.SQL("ALTER ROLE {} SET {} FROM CURRENT").format(role, sql.Identifier(setting)))
        for right in ("CONNECT", "TEMPORARY") if writes else ("CONNECT",):
            may = session.execute(
                "SELECT has_database_privilege(%s, oid, %s) FROM pg_database WHERE datname = %s", (name, right, dbname)
            ).fetchone()
            if may == (False,):
                grant = sql.SQL("GRANT " + right + " ON DATABASE {} TO {}")
                session.execute(grant.format(sql.Identifier(dbname), role))
    return may is not None


def _drop_role(server: PostgresServer, name: str, dbname: str) -> None:
    role = sql.Identifier(name)
    granted = "SELECT 1 FROM pg_database, aclexplode(datacl) WHERE datname = %s AND grantee = %s::regrole"
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        if session.execute(granted, (dbname, name)).fetchone():
            session.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(sql.Identifier(dbname), role))
        session.execute(sql.SQL("DROP ROLE {}").format(role))


def stop_cleanly(server: PostgresServer) -> None:
    """Stop with everything on disk. Raises VaultError (`restore.not_stopped`).

    The checkpoint comes first, while nobody counts the time: the shutdown's own has little left to write.
    """
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        session.execute("CHECKPOINT")
    server.stop("fast", timeout_s=STOP_TIMEOUT_S)
    state = server.pg_controldata().get("Database cluster state")
    if state != "shut down":
        raise VaultError(
            "restore.not_stopped",
            f"the recovered cluster did not stop cleanly, its state is {state!r}; that says nothing about its data",
            "try again, on a faster disk if need be; the vault is as it was",
        )


def _settings(server: PostgresServer) -> dict[str, str]:
    return _SETTINGS | (_SETTINGS_SINCE_17 if server.programs.major >= _SINCE_17 else {})
