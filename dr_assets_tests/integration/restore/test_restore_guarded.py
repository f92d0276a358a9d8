from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.target import Target

if TYPE_CHECKING:
    from conftest import History, Source

pytestmark = pytest.mark.integration

# Says in the server's log as whom it ran; a log is all that a read-only session can write.
TRAP = """
CREATE FUNCTION {name} RETURNS {returns} LANGUAGE plpgsql AS $$
BEGIN RAISE LOG 'TRAP as % super %', current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
RETURN {value}; END $$
"""


def traps(restored: Restored) -> list[str]:
    """Whom the source's functions ran as, on the restored server."""
    lines = restored.server.log_path.read_text().splitlines()
    return [line.partition("TRAP as ")[2] for line in lines if "LOG:  TRAP as " in line]


def shop_of(source: "Source") -> str:
    """A database of an ordinary owner, with functions that shadow what our sessions ask; its owner's DSN."""
    source.sql("CREATE ROLE mallory LOGIN PASSWORD 'm'")
    source.sql("CREATE DATABASE shop OWNER mallory")
    dsn = source.server.dsn("shop", user="mallory").replace(str(source.server.password), "m")
    with psycopg.connect(dsn, autocommit=True) as shop:
        shop.execute("CREATE SCHEMA evil")
        shop.execute(TRAP.format(name="evil.to_regclass(text)", returns="regclass", value="pg_catalog.to_regclass($1)"))
        shop.execute(TRAP.format(name="evil.trap(bigint)", returns="bigint", value="$1"))
        shop.execute("CREATE TABLE orders AS SELECT generate_series(1, 100)::bigint AS id")
        shop.execute("CREATE VIEW listed AS SELECT evil.trap(id) AS id FROM orders")
    return dsn


def restored_shop(source: "Source", recover: Callable[..., Restored]) -> Restored:
    """The whole source, with `shop` as the database that holds the ledger, and settings that nobody wishes for."""
    source.begin_stream()
    take_snapshot(source.vault, source.dataset, source.server.dsn("shop"))
    with psycopg.connect(source.dsn, autocommit=True) as session:
        session.execute("ALTER DATABASE shop SET statement_timeout = '20ms'")
        for name in ("shop", "postgres"):
            session.execute(f"ALTER DATABASE {name} SET search_path = evil, pg_catalog")
            session.execute(f"ALTER DATABASE {name} SET role = 'pg_monitor'")
    source.feed()
    return recover(source)


@pytest.mark.parametrize("major", [15, 17, 18])
def test_nothing_of_the_source_s_runs_in_a_superuser_s_session(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored], major: int
) -> None:
    """Neither a search path of its own nor a view in the heartbeat's place: ours is asked with pg_catalog alone."""
    source = make_source(major)
    dsn = shop_of(source)
    for name, returns in (("pg_is_in_recovery()", "boolean"), ("pg_promote(boolean, integer)", "boolean")):
        arguments = "true, 60" if "promote" in name else ""
        value = f"pg_catalog.{name.partition('(')[0]}({arguments})"
        source.sql("CREATE SCHEMA IF NOT EXISTS evil")
        source.sql(TRAP.format(name=f"evil.{name}", returns=returns, value=value))
    with psycopg.connect(dsn, autocommit=True) as shop:
        shop.execute("CREATE SCHEMA dr_assets")
        shop.execute(
            "CREATE VIEW dr_assets.heartbeat AS SELECT 'house'::text AS estate, 'ledger'::text AS dataset,"
            " evil.trap(1) AS seq, now() AS at, '1'::text AS system_id, 1::bigint AS epoch, 'x'::text AS signer_id,"
            " ''::bytea AS signature"
        )
    restored = restored_shop(source, recover)
    assert traps(restored) == []
    assert restored.recovered_at is None
    assert any("heartbeat.not_ours" in note for note in restored.notes)


@pytest.mark.parametrize("major", [15, 17, 18])
def test_the_reader_sees_every_row_and_is_nobody(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored], major: int
) -> None:
    """Row policies, revoked rights and time limits of the source's don't stop it; what it runs has no rights."""
    source = make_source(major)
    with psycopg.connect(shop_of(source), autocommit=True) as shop:
        shop.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
        shop.execute("ALTER TABLE orders FORCE ROW LEVEL SECURITY")
        shop.execute("CREATE SCHEMA closed")
        shop.execute("ALTER TABLE orders SET SCHEMA closed")
        shop.execute("REVOKE CONNECT ON DATABASE shop FROM PUBLIC")
    restored = restored_shop(source, recover)
    with psycopg.connect(restored.reader_dsn(), autocommit=True) as session:
        assert session.execute("SELECT current_setting('search_path')").fetchone() == ("pg_catalog",)
        assert session.execute("SELECT count(*), pg_sleep(0.2)::text FROM closed.orders").fetchone() == (100, "")
        # A view's functions run with the rights of whoever looks; the view's owner may not look behind the policy.
        session.execute("SELECT evil.trap(1)")
        session.execute("SET default_transaction_read_only = off")
        for forbidden in ("SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "CREATE ROLE another"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("DELETE FROM closed.orders")
    assert set(traps(restored)) == {f"{restored.reader} super f"}
    with psycopg.connect(restored.dsn("postgres"), autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM pg_roles WHERE rolname ~ '^dr_assets_reader'").fetchone() == (1,)


def attempt(plan: RestorePlan, source: "Source", into: Path, **options: Any) -> None:
    """A restore that must not come to its end."""
    with restore(plan, source.vault, into, **options):
        pass


@pytest.mark.parametrize("options", [{"level": "standard"}, {"keep_cluster": True}])
def test_a_server_that_did_not_stop_is_not_called_damaged(
    history: "History", engine_dir: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Killed for its slowness, it needs recovery: pg_checksums refuses such a cluster, whose data may be perfect."""
    stop = PostgresServer.stop

    def killed(self: PostgresServer, mode: Any = "fast", **limits: Any) -> None:
        if mode == "fast":
            self.kill()
        else:
            stop(self, mode, **limits)

    monkeypatch.setattr(PostgresServer, "stop", killed)
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    with pytest.raises(VaultError) as caught:
        attempt(plan, history.source, engine_dir / "into", **options)
    assert caught.value.code == "restore.not_stopped"


@pytest.mark.parametrize("options", [{"level": "standard"}, {"keep_cluster": True}])
def test_a_restore_is_given_all_the_time_it_needs_to_stop(
    history: "History", engine_dir: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """What has to be written is written before the clock runs, and the clock runs for an hour."""
    stop, seen = PostgresServer.stop, []

    def watched(self: PostgresServer, mode: Any = "fast", *, timeout_s: float = 60.0) -> None:
        if mode == "fast":
            seen.append((timeout_s, parse_lsn(self.pg_controldata()["Latest checkpoint location"])))
        stop(self, mode, timeout_s=timeout_s)

    monkeypatch.setattr(PostgresServer, "stop", watched)
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    with restore(plan, history.source.vault, engine_dir / "into", **options) as restored:
        with psycopg.connect(restored.dsn(), autocommit=True) as session:
            session.execute("CREATE TABLE written AS SELECT generate_series(1, 1000)")
            row = session.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        written = parse_lsn(str(row[0] if row else ""))
    assert [timeout_s >= 3600 for timeout_s, _ in seen] == [True]
    if "keep_cluster" in options:
        assert seen[-1][1] >= written
