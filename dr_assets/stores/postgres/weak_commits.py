"""Commits that don't wait for the vault although the dataset is declared zero loss: who makes them.

What belongs here: finding `synchronous_commit` at every level that PostgreSQL shows to others. What stays out: what
follows from it (preflight_sync.py, sync_guard.py).

What can't be seen: a value that a running session has SET for itself, and one that a client sends with its connection
(PGOPTIONS). Only the statement it ran last shows, and only to itself, a superuser or pg_read_all_stats; so a session
found here is a sign, and none found is no proof.
"""

from dataclasses import dataclass

from psycopg import sql

from dr_assets.stores.postgres.session import Connection

# remote_write waits as well: the capture reports as written only what the vault holds.
WEAK = ("off", "local")
_SERVER = "SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'"
_BY_ROLE = """
SELECT coalesce(role.rolname::text, ''), coalesce(base.datname::text, ''), split_part(config, '=', 2)
FROM pg_db_role_setting AS setting
CROSS JOIN LATERAL unnest(setconfig) AS config
LEFT JOIN pg_roles AS role ON role.oid = setting.setrole
LEFT JOIN pg_database AS base ON base.oid = setting.setdatabase
WHERE split_part(config, '=', 1) = 'synchronous_commit'
ORDER BY 1, 2
"""
_FUNCTIONS = """
SELECT oid::regprocedure::text FROM pg_proc
WHERE prosrc ~* 'synchronous_commit' AND pronamespace <> 'pg_catalog'::regnamespace ORDER BY 1 LIMIT 50
"""
_SESSIONS = """
SELECT pid, coalesce(usename::text, '?'), coalesce(datname::text, '?'), coalesce(application_name, '')
FROM pg_stat_activity
WHERE query ~* '(set|set_config).*synchronous_commit' AND query ~* '(off|local|false|no)'
  AND pid <> pg_backend_pid() AND application_name NOT LIKE 'dr-assets%%' AND backend_type = 'client backend'
ORDER BY pid LIMIT 50
"""
_AT_SERVER = "ALTER SYSTEM SET synchronous_commit = 'on', then SELECT pg_reload_conf()"
_SEES_ALL = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER')"


@dataclass(frozen=True, slots=True)
class WeakCommit:
    """Somebody whose commits are acknowledged before the vault has them, or may be. `certain` is a setting found.

    `statement` changes it, None where somebody must look first.
    """

    who: str
    value: str = ""
    certain: bool = False
    statement: str | None = None

    def __str__(self) -> str:
        if self.certain:
            return f"synchronous_commit is {self.value} for {self.who}: its commits don't wait for the vault"
        return f"{self.who} mentions synchronous_commit: its commits may not wait for the vault"


def weak_commits(connection: Connection) -> list[WeakCommit]:
    """What PostgreSQL lets one see, most certain first. Raises psycopg.Error.

    The server's level is read as this session's default, so settings of our own role and database cover it.
    """
    found: list[WeakCommit] = []
    row = connection.execute(_SERVER).fetchone()
    if row is not None and _is_weak(str(row[0])):
        found.append(WeakCommit("the server", str(row[0]), certain=True, statement=_AT_SERVER))
    for role, database, value in connection.execute(_BY_ROLE):
        if _is_weak(str(value)):
            found.append(_by_role(str(role), str(database), str(value)))
    for (function,) in connection.execute(_FUNCTIONS):
        found.append(WeakCommit(f"function {function}"))
    for pid, role, database, name in connection.execute(_SESSIONS):
        found.append(
            WeakCommit(f"session {pid} of role {role} in database {database} ({name or 'no application_name'})")
        )
    return found


def sees_sessions(connection: Connection) -> bool:
    """Whether other roles' last statements show. Raises psycopg.Error."""
    return connection.execute(_SEES_ALL).fetchone() == (True,)


def _by_role(role: str, database: str, value: str) -> WeakCommit:
    at_role = (
        sql.SQL("ROLE {}").format(sql.Identifier(role))
        if role
        else sql.SQL("DATABASE {}").format(sql.Identifier(database))
    )
    within = sql.SQL(" IN DATABASE {}").format(sql.Identifier(database)) if role and database else sql.SQL("")
    statement = sql.SQL("ALTER {}{} SET synchronous_commit = 'on'").format(at_role, within).as_string(None)
    who = " in ".join(part for part in (role and f"role {role}", database and f"database {database}") if part)
    return WeakCommit(who or "every role", value, certain=True, statement=statement)


def _is_weak(value: str) -> bool:
    return value.strip("'\" ").lower() in (*WEAK, "false", "no", "0", "of")
