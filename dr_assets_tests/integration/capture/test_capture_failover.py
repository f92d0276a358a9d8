"""Promotions under a capture, on real servers: followed without a gap, or refused and on record."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres import source_stream
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.vault.chain import resolve
from dr_assets.vault.facts import facts
from dr_assets.vault.verify import verify

pytestmark = pytest.mark.integration


class Cluster:
    """A primary and what becomes of it: standbys, promotions, one connection string for all."""

    def __init__(self, stack: ExitStack, folder: Path, first: PostgresServer) -> None:
        self.stack, self.folder = stack, folder
        self.servers = [first]

    def standby(self, of: PostgresServer) -> PostgresServer:
        """A running standby."""
        server = PostgresServer.standby_of(of, self.folder / f"standby-{secrets.token_hex(3)}")
        self.stack.enter_context(server)
        server.start()
        self.servers.append(server)
        return server

    def dsn(self) -> str:
        """Every server in one connection string."""
        first = self.servers[0]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"postgresql://postgres:{quote(str(first.password), safe='')}@{hosts}/postgres"


@pytest.fixture
def cluster(postgres_server: Any, engine_dir: Path) -> Iterator[Cluster]:
    """A primary without standbys."""
    with ExitStack() as stack:
        yield Cluster(stack, engine_dir, postgres_server(settings={"fsync": False, "wal_keep_size": "64MB"}))


def execute(server: PostgresServer, *statements: str) -> list[Any]:
    """The last statement's rows."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        rows: list[Any] = []
        for statement in statements:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        return rows


def caught_up(primary: PostgresServer, standby: PostgresServer) -> None:
    """Until the standby has replayed everything."""
    (target,) = execute(primary, "SELECT pg_current_wal_flush_lsn()::text")[0]
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        while connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (target,)).fetchone() != (True,):
            pass


def said(vault: Any, kind: str) -> list[dict[str, Any]]:
    """The facts of a kind."""
    return [fact.body for fact in facts(vault, "ledger", kind)]


def switches(vault: Any) -> dict[int, int]:
    """Where each timeline was begun, by the facts."""
    return {fact["timeline"]: parse_lsn(fact["switch_lsn"]) for fact in said(vault, "timeline") if fact["parent"]}


def assert_joined(rig: ModuleType, vault: Any, dataset: Any, servers: dict[int, PostgresServer]) -> None:
    """Every timeline's chain is whole, holds its server's bytes, and begins and ends where it was switched."""
    began = switches(vault)
    system_id = said(vault, "timeline")[0]["system_id"]
    assert sorted(servers) == sorted({1, *began})
    for timeline, server in servers.items():
        objects = list(vault.objects(dataset.name, "wal", system_id=system_id, timeline=timeline))
        chain = resolve(objects, vault.header, objects[0].key.first)
        rig.check_links(vault, chain)
        assert not chain.holes
        end = began.get(timeline + 1, chain.end)
        assert chain.end >= end
        if timeline in began:
            assert chain.begin == began[timeline]
        wal = rig.vault_wal(vault, chain)[: end - chain.begin]
        assert wal == rig.server_wal(server.data_dir, timeline, chain.begin, end)
    assert verify(vault).ok


def test_a_switch_over_is_followed_without_a_gap(
    rig: ModuleType, cluster: Cluster, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old primary stops although we stream from it, the new one is gone on from at once, the old one may follow."""
    old = cluster.servers[0]
    new = cluster.standby(old)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 200))
        old.stop()
        new.promote()
        report = capture.wait(lambda said: said.timeline == 2, "timeline 2")
        capture.wait_stored(rig.write_rows(new.dsn(), 200))
        old.follow(new)
        old.start()
        report = capture.wait_stored(rig.write_rows(new.dsn(), 200))
        dated = report.recovery_point_at
        assert dated is not None
        capture.wait(lambda said: said.recovery_point_at > dated, "a heartbeat from the new primary")
    assert_joined(rig, vault, dataset, {1: new, 2: new})
    assert said(vault, "gap") == []
    assert said(vault, "diverged") == []
