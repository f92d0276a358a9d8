import secrets
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.engines.waiting import wait_until
from dr_assets.estate.model import ZeroLoss
from dr_assets.stores.postgres.preflight import preflight

pytestmark = pytest.mark.integration

BLOCK, DEGRADE = ZeroLoss(None), ZeroLoss(timedelta(seconds=10))


def execute(dsn: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        for statement in statements:
            connection.execute(statement)


def shows(connection: psycopg.Connection[Any], names: str) -> bool:
    """Whether a session sees that commits wait for these."""
    return connection.execute("SHOW synchronous_standby_names").fetchone() == (names,)


def nobody_else(dsn: str) -> bool:
    """Whether the sessions that were closed are gone, too: a server shows their last statements until then."""
    others = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(others).fetchone() is None


def codes(dsn: str, dataset: Any, severity: str) -> list[str]:
    """What is found about zero loss."""
    found = [finding for finding in preflight(dsn, dataset) if finding.severity == severity]
    return [finding.code for finding in found if ".sync_" in finding.code or finding.code == "source.weak_commit"]


def test_the_setting_must_make_every_commit_wait_for_the_capture(rig: ModuleType, postgres_server: Any) -> None:
    """Refused: nobody asked, anybody may confirm, others stand in. Fine: ours alone, or all of a list with it."""
    server = postgres_server(settings={"fsync": False})
    dsn = server.dsn()
    dataset = replace(rig.make_dataset(slot="dr_ledger"), zero_loss=BLOCK)
    wanted = {
        "": ["source.sync_not_asked"],
        "*": ["source.sync_anybody"],
        "dr_ledger, *": ["source.sync_anybody"],
        "standby1": ["source.sync_not_asked"],
        "standby1, dr_ledger": ["source.sync_not_required"],
        "ANY 1 (standby1, dr_ledger)": ["source.sync_not_required"],
        "DR_LEDGER": [],
        'FIRST 2 ("standby1", dr_ledger)': [],
        "ANY 2 (dr_ledger, standby1)": [],
    }  # fmt: skip
    for names, expected in wanted.items():
        execute(dsn, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
        with psycopg.connect(dsn, autocommit=True) as connection:
            wait_until(partial(shows, connection, names), timeout_s=180, what="the reload")
        assert codes(dsn, dataset, "error") == expected, names
    assert codes(dsn, replace(dataset, zero_loss=None), "warning") == ["source.sync_undeclared"]


def test_who_may_let_commits_go_on_is_checked_and_the_grants_are_named(rig: ModuleType, postgres_17: Any) -> None:
    """A role without the rights gets the two statements; having run exactly those, nothing is left to say."""
    name, password = f"role_{secrets.token_hex(4)}", secrets.token_hex(8)
    execute(postgres_17.dsn(), f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{password}'")
    execute(postgres_17.dsn(), f"GRANT CREATE ON DATABASE postgres TO {name}")
    dsn = f"postgresql://{name}:{password}@127.0.0.1:{postgres_17.port}/postgres"
    dataset = replace(rig.make_dataset(), zero_loss=DEGRADE)
    try:
        findings = [finding for finding in preflight(dsn, dataset) if finding.code == "source.sync_no_right"]
        assert len(findings) == 2
        statements = [finding.hint.removeprefix("run as a superuser: ") for finding in findings]
        execute(postgres_17.dsn(), *statements)
        assert codes(dsn, dataset, "error") == []
        assert codes(dsn, dataset, "warning") == ["source.sync_not_asked"]
        assert codes(dsn, replace(dataset, zero_loss=BLOCK), "error") == ["source.sync_not_asked"]
    finally:
        execute(postgres_17.dsn(), f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_commits_that_do_not_wait_are_found_and_named(rig: ModuleType, fresh_database: Any) -> None:
    """At the level of role, database, role in database; in a function's text; in a session's last statement."""
    dsn = fresh_database()
    database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    role, other = f"role_{secrets.token_hex(4)}", f"role_{secrets.token_hex(4)}"
    dataset = replace(rig.make_dataset(), zero_loss=BLOCK)
    execute(
        dsn,
        f"CREATE ROLE {role}",
        f"CREATE ROLE {other}",
        f"ALTER ROLE {role} SET synchronous_commit = off",
        f"ALTER ROLE {other} IN DATABASE {database} SET synchronous_commit = 'local'",
        f"ALTER ROLE {other} SET synchronous_commit = remote_write",
        "CREATE FUNCTION hasty() RETURNS void LANGUAGE sql AS 'SET LOCAL synchronous_commit = off'",
    )
    try:
        wait_until(lambda: nobody_else(dsn), timeout_s=180, what="an end of the closed sessions")
        with psycopg.connect(dsn, autocommit=True, application_name="importer") as session:
            session.execute("SET synchronous_commit TO off")
            found = [finding for finding in preflight(dsn, dataset) if finding.code == "source.weak_commit"]
        said = "\n".join(str(finding) for finding in found)
        assert f"off for role {role}:" in said
        assert f"local for role {other} in database {database}:" in said
        assert f'ALTER ROLE "{other}" IN DATABASE "{database}" SET synchronous_commit' in said
        assert "function hasty()" in said
        assert "(importer)" in said
        assert len(found) == 4
    finally:
        execute(dsn, f"ALTER ROLE {other} IN DATABASE {database} RESET ALL", f"DROP ROLE {role}", f"DROP ROLE {other}")
