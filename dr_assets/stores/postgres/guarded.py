"""Our own sessions with a restored server: as its superuser for what only that may do, as a reader for its data.

What belongs here: the settings of such sessions, the reader's role, stopping cleanly. What stays out: what is asked in
them, replay (recovery.py), checks (checks.py).

A restored database brings its source's settings for sessions (`ALTER DATABASE … SET`) and its source's views, functions
and casts, which run with the rights of whoever looks at them. A superuser's session may start programs on this host,
so ours takes no setting of the source's and looks at no data. What is to be read is read by a role of its own, made
after the promotion under a name that nobody could know before, which may read everything and change nothing.

Not held off: the source's own superuser. His SECURITY DEFINER functions run with his rights, and here he is as much a
superuser as there. A sandbox runs as an unprivileged user of the operating system for that.
"""

import secrets
import urllib.parse
from typing import Final

import psycopg
from psycopg import sql

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError

READER_PREFIX: Final = "dr_assets_reader"
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
_SETTINGS_SINCE_17: Final = {"event_triggers": "off", "transaction_timeout": "0"}


def superuser_dsn(server: PostgresServer, dbname: str = "postgres") -> str:
    """A session of the bootstrap superuser that takes none of the source's settings: `options` outrank them all."""
    settings = {**_settings(server), "default_transaction_read_only": "off"}
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
    role = sql.Identifier(reader)
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        session.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER BYPASSRLS INHERIT IN ROLE pg_read_all_data").format(role)
        )
        session.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(role))
        for name in _settings(server):
            # Not a literal: an empty one becomes a list of one empty name.
            session.execute(sql.SQL("ALTER ROLE {} SET {} FROM CURRENT").format(role, sql.Identifier(name)))
        may_connect = session.execute(
            "SELECT has_database_privilege(%s, oid, 'CONNECT') FROM pg_database WHERE datname = %s", (reader, dbname)
        ).fetchone()
        if may_connect == (False,):
            session.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(dbname), role))
    return may_connect is not None


def drop_reader(server: PostgresServer, reader: str, dbname: str) -> None:
    """Take the role away again: a cluster that is kept has nothing of ours in it."""
    role = sql.Identifier(reader)
    granted = "SELECT 1 FROM pg_database, aclexplode(datacl) WHERE datname = %s AND grantee = %s::regrole"
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        if session.execute(granted, (dbname, reader)).fetchone():
            session.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(sql.Identifier(dbname), role))
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
