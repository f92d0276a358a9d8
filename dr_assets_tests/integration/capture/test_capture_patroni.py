"""Patroni's word on who leads, from a stub that answers as its REST endpoint does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import pytest

from dr_assets.cli.sync_guard import locate_primary
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.waiting import wait_until
from dr_assets.stores.postgres.dsn import node_dsns
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.patroni import PatroniSilentError, find_members, leader
from dr_assets.stores.postgres.preflight import preflight
from dr_assets.stores.postgres.protocol import ConnectionLostError

pytestmark = pytest.mark.integration


class Patroni:
    """Answers GET /cluster; `leads` is changed by the test, as a cluster manager would."""

    def __init__(self) -> None:
        self.servers: list[PostgresServer] = []
        self.leads: PostgresServer | None = None
        self.timeline = 1
        self.status = 200
        self.asked = 0
        self.location: str | None = None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked += 1
                self.send_response(stub.status if self.path == "/cluster" else 404)
                if stub.location is not None:
                    self.send_header("Location", stub.location)
                self.end_headers()
                self.wfile.write(json.dumps(stub.answer()).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self) -> dict[str, object]:
        """As Patroni writes it."""
        members = [
            {
                "name": server.name, "host": "127.0.0.1", "port": server.port, "state": "running", "lag": 0,
                "role": "leader" if server is self.leads else "replica", "timeline": self.timeline, "api_url": self.url,
            }
            for server in self.servers
        ]  # fmt: skip
        return {"members": [*members, {"name": "coming", "role": "uninitialized", "state": "creating replica"}]}

    def close(self) -> None:
        """No more answers."""
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def patroni() -> Iterator[Patroni]:
    """A stub without servers."""
    stub = Patroni()
    yield stub
    stub.close()


def test_patroni_decides_who_is_followed(rig: ModuleType, cluster: Any, memory_vault: Any, patroni: Patroni) -> None:
    """The connection string names one server only; the others, their slots and the next primary come from Patroni.

    While Patroni still names the old one, a promoted server is not gone to; then it is, without a gap.
    """
    old = cluster.servers[0]
    new = cluster.standby(old)
    patroni.servers, patroni.leads = [old, new], old
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, old.dsn(), patroni=[patroni.url]) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 100))
        cluster.slots_on(capture, new)
        old.stop()
        new.promote()
        written = rig.write_rows(new.dsn(), 100)
        capture.wait(lambda report: report.trouble and report.state == "reconnecting", "a source that is away")
        asked = patroni.asked
        capture.wait(lambda _: patroni.asked > asked + 4, "several attempts")
        assert capture.report.timeline == 1
        assert capture.report.stored_lsn < written
        patroni.leads, patroni.timeline = new, 2
        capture.wait(lambda report: report.timeline == 2, "timeline 2")
        capture.wait_stored(rig.write_rows(new.dsn(), 100))
    cluster.assert_joined(vault, dataset, {1: new, 2: new})
    assert cluster.said(vault, "gap") == []


def test_of_two_answers_the_one_with_the_newer_leader_is_believed(cluster: Any, patroni: Patroni) -> None:
    """A member that was cut off tells of the cluster as it was."""
    server, stale = cluster.servers[0], Patroni()
    try:
        stale.servers = patroni.servers = [server, cluster.standby(server)]
        stale.leads, patroni.leads, patroni.timeline = server, patroni.servers[1], 2
        for urls in ([stale.url, patroni.url], [patroni.url, stale.url], ["http://127.0.0.1:9", patroni.url]):
            chosen = leader(find_members(urls))
            assert chosen is not None
            assert chosen.port == patroni.servers[1].port
    finally:
        stale.close()


def test_without_a_leader_nobody_is_gone_to(cluster: Any, patroni: Patroni) -> None:
    """Patroni knows the servers and says that none leads: that is waited out, whatever the servers say themselves."""
    patroni.servers = [cluster.servers[0]]
    with pytest.raises(ConnectionLostError, match="no leader"):
        Nodes(cluster.dsn(), [patroni.url]).open_primary(application_name="test", connect_timeout_s=30)


def test_while_patroni_is_silent_every_known_server_is_asked(cluster: Any, patroni: Patroni) -> None:
    """A cluster manager that is away is no reason to capture nothing; its last word on the members still counts."""
    first = cluster.servers[0]
    standby = cluster.standby(first)
    patroni.servers, patroni.leads = [first, standby], first
    nodes = Nodes(first.dsn(), [patroni.url])
    nodes.open_primary(application_name="test", connect_timeout_s=30).close()
    patroni.status = 503
    first.stop()
    standby.promote()
    with nodes.open_primary(application_name="test", connect_timeout_s=30) as connection:
        assert str(standby.port) in connection.dsn
    assert nodes.trouble is not None
    assert "503" in nodes.trouble


def test_a_redirect_is_not_followed(patroni: Patroni) -> None:
    """It could lead out of TLS, to whoever likes to name our primary."""
    other = Patroni()
    try:
        patroni.status, patroni.location = 307, f"{other.url}/cluster"
        with pytest.raises(PatroniSilentError, match="307"):
            find_members([patroni.url])
    finally:
        other.close()


def test_the_newest_of_two_primaries_is_chosen(cluster: Any) -> None:
    """After a split the old primary may be asked first and answer first; a standby is passed over."""
    old = cluster.servers[0]
    new, third = cluster.standby(old), cluster.standby(old)
    new.promote()
    nodes = zip(cluster.servers, node_dsns(cluster.dsn()), strict=True)
    assert all(str(server.port) in dsn for server, dsn in nodes)
    with Nodes(cluster.dsn()).open_primary(application_name="test", connect_timeout_s=30) as connection:
        assert str(new.port) in connection.dsn
    new.stop()
    old.stop()
    with pytest.raises(ConnectionLostError, match="a standby"):
        Nodes(cluster.dsn()).open_primary(application_name="test", connect_timeout_s=30)
    third.stop()


def test_preflight_and_the_guard_go_to_whom_patroni_names(rig: ModuleType, cluster: Any, patroni: Patroni) -> None:
    """The connection string names the old primary alone, which is gone; both find the promoted one, and say so again.

    The settings that preflight judges are the new primary's.
    """
    old = cluster.servers[0]
    new = cluster.standby(old)
    patroni.servers, patroni.leads = [old, new], old
    nodes = Nodes(old.dsn(), [patroni.url])
    assert f"{old.port}" in locate_primary(nodes)
    old.stop()
    new.promote()
    cluster.execute(new, "ALTER SYSTEM SET max_slot_wal_keep_size = '77MB'", "SELECT pg_reload_conf()")
    wait_until(  # by a new session, as preflight asks
        lambda: cluster.execute(new, "SHOW max_slot_wal_keep_size") == [("77MB",)], timeout_s=180, what="the reload"
    )
    patroni.leads, patroni.timeline = new, 2
    assert f"{new.port}" in locate_primary(nodes)
    said = [str(finding) for finding in preflight(old.dsn(), rig.make_dataset(), [patroni.url])]
    assert any("77" in finding for finding in said), said
