"""A primary, its standbys and what becomes of them: for the tests of promotions."""

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import psycopg

from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.vault.chain import resolve
from dr_assets.vault.facts import facts
from dr_assets.vault.verify import verify


class Cluster:
    """A primary and what becomes of it: standbys, promotions, one connection string for all."""

    def __init__(self, rig: ModuleType, stack: ExitStack, folder: Path, first: PostgresServer) -> None:
        self.rig, self.stack, self.folder = rig, stack, folder
        self.servers = [first]

    def standby(self, of: PostgresServer, **settings: Setting) -> PostgresServer:
        """A running standby that streams: what its primary commits from now on reaches it before an orderly stop."""
        server = PostgresServer.standby_of(of, self.folder / f"standby-{secrets.token_hex(3)}", settings=settings)
        self.stack.enter_context(server)
        server.start()
        self._until(lambda: self.execute(server, "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"))
        self.servers.append(server)
        return server

    def dsn(self) -> str:
        """Every server in one connection string."""
        first = self.servers[0]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"postgresql://postgres:{quote(str(first.password), safe='')}@{hosts}/postgres"

    def execute(self, server: PostgresServer, *statements: str) -> list[Any]:
        """The last statement's rows."""
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            rows: list[Any] = []
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def caught_up(self, primary: PostgresServer, standby: PostgresServer) -> None:
        """Until the standby has replayed everything."""
        (target,) = self.execute(primary, "SELECT pg_current_wal_flush_lsn()::text")[0]
        self._until(lambda: self.execute(standby, f"SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn")[0][0])

    def said(self, vault: Any, kind: str) -> list[dict[str, Any]]:
        """The facts of a kind."""
        return [fact.body for fact in facts(vault, "ledger", kind)]

    def switches(self, vault: Any) -> dict[int, int]:
        """Where each timeline was begun, by the facts."""
        return {
            fact["timeline"]: parse_lsn(fact["switch_lsn"]) for fact in self.said(vault, "timeline") if fact["parent"]
        }

    def assert_joined(self, vault: Any, dataset: Any, servers: dict[int, PostgresServer | None]) -> None:
        """Every chain is whole, begins and ends where it was switched, and holds its server's bytes if one is given."""
        began = self.switches(vault)
        system_id = self.said(vault, "timeline")[0]["system_id"]
        assert sorted(servers) == sorted({1, *began})
        for timeline, server in servers.items():
            objects = list(vault.objects(dataset.name, "wal", system_id=system_id, timeline=timeline))
            chain = resolve(objects, vault.header, objects[0].key.first)
            self.rig.check_links(vault, chain)
            assert not chain.holes
            end = began.get(timeline + 1, chain.end)
            assert chain.end >= end
            if timeline in began:
                assert chain.begin == began[timeline]
            wal = self.rig.vault_wal(vault, chain)[: end - chain.begin]
            assert server is None or wal == self.rig.server_wal(server.data_dir, timeline, chain.begin, end)
        assert verify(vault).ok

    def slots_on(self, capture: Any, *standbys: PostgresServer) -> None:
        """Until each standby has the capture's slot, no farther than what is stored."""
        for standby in standbys:
            self._until(partial(self._slot_of, capture, standby))
            kept_from = self._slot_of(capture, standby)[0][0]
            # The vault itself is asked: a slot that was moved just now may be ahead of the newest report.
            assert kept_from <= self.rig.chain_of(capture.vault, capture.dataset).end

    def _slot_of(self, capture: Any, standby: PostgresServer) -> list[Any]:
        assert capture.error is None
        asked = "SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s AND restart_lsn IS NOT NULL"
        with psycopg.connect(standby.dsn(), autocommit=True) as connection:
            return connection.execute(asked, (capture.dataset.slot,)).fetchall()

    def terminate(self, server: PostgresServer, application: str) -> None:
        """End the capture's stream as a broken network would."""
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = %s", (application,)
            )

    def wait_streaming(self, primary: PostgresServer) -> None:
        """Until a standby streams from this primary and holds everything."""
        self._wait(primary, "state = 'streaming' AND flush_lsn >= sent_lsn AND application_name NOT LIKE 'dr\\_%'")

    def wait_synchronous(self, primary: PostgresServer) -> None:
        """Until commits wait for somebody.

        Sessions show the setting before commits follow it: the checkpointer reads it then, or before a checkpoint.
        """
        self._wait(primary, "sync_state = 'sync'")
        self.execute(primary, "CHECKPOINT")

    def _wait(self, primary: PostgresServer, condition: str) -> None:
        asked = f"SELECT 1 FROM pg_stat_replication WHERE {condition}"  # noqa: S608 - the tests' own
        self._until(lambda: self.execute(primary, asked))

    def _until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 180
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)
