"""Whether a source keeps the promise of zero loss: every acknowledged commit is in the vault.

What belongs here: judging synchronous_standby_names, the right to alter it, and the levels of synchronous_commit. What
stays out: everything that any dataset needs (preflight.py), the grammar (sync_names.py), changing anything.
"""

from collections.abc import Iterator
from typing import Final, Literal

from psycopg import sql

from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.session import Connection
from dr_assets.stores.postgres.sync_names import SyncNames, parse_sync_names
from dr_assets.stores.postgres.weak_commits import WeakCommit, sees_sessions, weak_commits

# code, severity, found, hint
Judgement = tuple[str, Literal["error", "warning", "advice"], str, str]

_SETTING = "SELECT setting, source FROM pg_settings WHERE name = 'synchronous_standby_names'"
_RIGHTS = """
SELECT has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM'),
       has_function_privilege('pg_reload_conf()', 'EXECUTE'),
       coalesce((SELECT setting FROM pg_settings WHERE name = 'allow_alter_system'), 'on')
"""
_IMPOSTORS: Final = """
SELECT count(*) FROM pg_stat_replication AS sender
WHERE lower(application_name) = lower(%s)
  AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s AND active_pid IS NOT NULL)
"""


def judge_zero_loss(connection: Connection, dataset: PostgresDataset, user: str) -> Iterator[Judgement]:
    """Every finding about zero loss, none for a dataset that isn't declared so. Raises psycopg.Error."""
    if dataset.zero_loss is None:
        yield from _left_behind(connection, dataset)
        return
    degrades = dataset.zero_loss.degrade_after is not None
    row = connection.execute(_SETTING).fetchone()
    names, source = parse_sync_names(str(row[0] if row else "")), str(row[1] if row else "")
    yield from _names(names, dataset.slot, degrades=degrades)
    if degrades:
        yield from _may_let_go(connection, user, source)
    yield from _impostors(connection, dataset.slot)
    yield from _weak(connection, user)


def _left_behind(connection: Connection, dataset: PostgresDataset) -> Iterator[Judgement]:
    row = connection.execute(_SETTING).fetchone()
    if parse_sync_names(str(row[0] if row else "")).has(dataset.slot):
        found = f"synchronous_standby_names asks for {dataset.slot}, and {dataset.name} is declared asynchronous"
        hint = "every commit waits for the vault: declare `durability: zero_loss`, or take the name out of the setting"
        yield "source.sync_undeclared", "warning", found, hint


def _names(names: SyncNames, slot: str, *, degrades: bool) -> Iterator[Judgement]:
    setting = f"synchronous_standby_names is '{names}'" if names.names else "synchronous_standby_names is empty"
    if names.has_anybody:
        found = f"{setting}: anybody who streams may confirm a commit, also a pg_receivewal that keeps nothing"
        yield "source.sync_anybody", "error", found, _set(SyncNames("FIRST", 1, (slot,)))
    elif len(names.names) > 0 and not names.requires_all:
        found = (
            f"{setting}: only {names.count} of {len(names.names)} must confirm, so others stand in for {slot} unseen"
        )
        everybody = names if names.has(slot) else SyncNames(names.method, 0, (*names.names, slot))
        hint = f"ask for all: {_set(SyncNames('FIRST', len(everybody.names), everybody.names))}"
        yield "source.sync_not_required", "error", found, hint
    elif not names.has(slot):
        found = f"{setting}: no commit waits for {slot}, the application_name of this dataset's capture"
        if degrades:
            hint = "nothing to do: a capture that has caught up adds the name; until then durability is degraded"
            yield "source.sync_not_asked", "warning", found, hint
        else:
            hint = f"{_set(names.with_name(slot))}, best while the capture runs: until it does, commits wait"
            yield "source.sync_not_asked", "error", found, hint


def _may_let_go(connection: Connection, user: str, source: str) -> Iterator[Judgement]:
    row = connection.execute(_RIGHTS).fetchone()
    may_alter, may_reload, allowed = row or (False, False, "on")
    role = sql.Identifier(user).as_string(None)
    if allowed != "on":
        found = "allow_alter_system is off: nobody can let commits go on when the vault is away"
        yield "source.sync_fixed", "error", found, "turn it on, or declare `on_capture_loss: block`"
    if source in ("command line", "environment variable"):
        found = f"synchronous_standby_names comes from the {source}, which goes before ALTER SYSTEM"
        yield "source.sync_fixed", "error", found, "take it out there, or declare `on_capture_loss: block`"
    if not may_alter:
        found = f"{user} may not alter synchronous_standby_names, so commits can't go on when the vault is away"
        hint = f"run as a superuser: GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO {role}"
        yield "source.sync_no_right", "error", found, hint
    if not may_reload:
        found = f"{user} may not make the server read its settings again"
        hint = f"run as a superuser: GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {role}"
        yield "source.sync_no_right", "error", found, hint


def _impostors(connection: Connection, slot: str) -> Iterator[Judgement]:
    row = connection.execute(_IMPOSTORS, (slot, slot)).fetchone()
    if row is not None and row != (0,):
        found = (
            f"another connection streams under the name {slot} without its slot: it may confirm commits in our place"
        )
        hint = "end it; pg_stat_replication shows its pid, user and address"
        yield "source.sync_impostor", "error", found, hint


def _weak(connection: Connection, user: str) -> Iterator[Judgement]:
    for weak in weak_commits(connection):
        yield "source.weak_commit", "warning", str(weak), _mend(weak)
    if not sees_sessions(connection):
        role = sql.Identifier(user).as_string(None)
        found = f"{user} does not see other roles' statements: a session that ran SET synchronous_commit stays unseen"
        hint = f"GRANT pg_read_all_stats TO {role} shows a session's last statement; older ones nobody can see"
        yield "source.unseen_sessions", "advice", found, hint


def _mend(weak: WeakCommit) -> str:
    if weak.statement is None:
        return "look at it: what must not be lost commits with synchronous_commit = on"
    return f"run: {weak.statement}"


def _set(names: SyncNames) -> str:
    return f"run: ALTER SYSTEM SET synchronous_standby_names = '{names}', then SELECT pg_reload_conf()"
