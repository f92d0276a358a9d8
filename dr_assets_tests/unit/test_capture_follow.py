"""Which stream a capture goes on with, by what lies in the vault and what a server's history says."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.cli.context import patroni_of
from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.dsn import dsn_of_node, node_dsns, parse_dsn, primary_dsn
from dr_assets.stores.postgres.follow import ForkedError, find_stream, require_side, stream_at
from dr_assets.stores.postgres.history import History, parse_history
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.overlap import stored_tail
from dr_assets.stores.postgres.patroni import parse_urls
from dr_assets.stores.postgres.position import RecoveryPoint, _point
from dr_assets.stores.postgres.protocol import ServerRefusedError, SystemIdentity
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.stores.postgres.timeline import TIMELINE, known_histories, read_ancestor, record_timeline
from dr_assets.vault.facts import facts
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 13, tzinfo=UTC)
X1, X2, END = 0x3000, 0x5000, 1 << 40
HISTORY = f"1\t{format_lsn(X1)}\tno recovery target specified\n\n2\t{format_lsn(X2)}\tno recovery target specified\n"


def server(timeline: int = 3) -> SystemIdentity:
    """What the server says of itself."""
    return SystemIdentity("7700", timeline, END)


def put(vault: Vault, timeline: int, first: int, last: int, previous: str | None, at: datetime | None = None) -> str:
    """A piece of WAL; the digest of its header."""
    prepared = vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id="7700", timeline=timeline, first=first, last=last,
        begin_at=AT, end_at=AT, plaintext=bytes([timeline, first >> 8 & 0xFF]) * ((last - first) // 2),
        previous=previous, writer_epoch=timeline, extra={} if at is None else {RECOVERY_POINT_AT: format_time(at)},
    )  # fmt: skip
    vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
    return prepared.header.digest


def captured(vault: Vault, timeline: int, begin: int, stored: int, header: str | None = None) -> Anchor:
    """What a capture says when it starts."""
    anchor = Anchor("7700", timeline, begin, stored, header, None, timeline, AT)
    record_capture(vault, "ledger", "started", anchor)
    return anchor


def test_an_unfinished_timeline_is_gone_on_with_on_whatever_server() -> None:
    """The end of what is stored lies before the switch: the rest of the old timeline comes first, from the new one."""
    vault = throwaway_vault()
    put(vault, 1, 0x1000, 0x2000, None)
    captured(vault, 1, 0x1000, 0x1000)
    stream = find_stream(vault, "ledger", server(), parse_history(3, HISTORY))
    assert stream.end is not None
    assert (stream.identity.timeline, stream.identity.flushed_lsn, stream.end.end) == (1, X1, 0x2000)
    assert not stream.is_current


@pytest.mark.parametrize("beyond", [0, 0x800])
def test_a_finished_timeline_is_left_at_exactly_the_switch(beyond: int) -> None:
    """The next one begins there with nothing before it; dated and held by what is stored up to there and no farther."""
    vault = throwaway_vault()
    first = put(vault, 1, 0x1000, 0x2000, None, AT)
    put(vault, 1, 0x2000, X1 + beyond, first, LATER)
    captured(vault, 1, 0x1000, 0x1000)
    stream = find_stream(vault, "ledger", server(), parse_history(3, HISTORY))
    assert stream.end is not None
    assert (stream.identity.timeline, stream.identity.flushed_lsn, stream.is_current) == (2, X2, False)
    assert (stream.end.begin, stream.end.end, stream.end.header) == (X1, X1, None)
    assert stream.end.recovery_point_at == (AT if beyond else LATER)
    tail = stored_tail(vault, "ledger", stream.end)
    assert (tail.begin, tail.end) == (0x2000, X1)
    assert tail.data.endswith(bytes([1, 0x20]))


def test_the_newest_timeline_on_the_servers_way_is_gone_on_with() -> None:
    """A chain on the server's own timeline, or on the nearest ancestor; nothing at all for a server never captured."""
    vault, history = throwaway_vault(), parse_history(3, HISTORY)
    assert find_stream(vault, "ledger", server(), history).end is None
    put(vault, 1, 0x1000, X1, None)
    put(vault, 2, X1, X1 + 0x400, None)
    captured(vault, 1, 0x1000, 0x1000)
    stream = find_stream(vault, "ledger", server(), history)
    assert stream.end is not None
    assert (stream.identity.timeline, stream.end.end) == (2, X1 + 0x400)
    captured(vault, 3, X2, X2)
    stream = find_stream(vault, "ledger", server(), history)
    assert stream.end is not None
    assert (stream.identity.timeline, stream.end.end, stream.is_current) == (3, X2, True)


def test_a_side_that_was_left_is_refused() -> None:
    """A newer timeline of the same system is known: an old primary that came back is no source any more."""
    vault = throwaway_vault()
    captured(vault, 2, X1, X1)
    with pytest.raises(SourceError) as caught:
        require_side(vault, "ledger", server(1), History(1, (), ""))
    assert caught.value.code == "source.older_timeline"
    require_side(vault, "ledger", server(2), parse_history(2, HISTORY.splitlines()[0]))
    require_side(vault, "ledger", SystemIdentity("8800", 1, END), History(1, (), ""))


@pytest.mark.parametrize(
    ("timeline", "history"),
    [
        (3, f"1\t{format_lsn(X1)}\tx\n"),
        (2, f"1\t{format_lsn(X1 - 8)}\tx\n"),
        (3, f"1\t{format_lsn(X1 - 8)}\tx\n2\t{format_lsn(X2)}\tx\n"),
    ],
)
def test_a_side_that_never_was_ours_is_refused(timeline: int, history: str) -> None:
    """Not by way of our timeline; of the same number but begun elsewhere; by way of another one of that number."""
    vault = throwaway_vault()
    captured(vault, 2, X1, X1)
    record_timeline(vault, "ledger", "7700", parse_history(2, f"1\t{format_lsn(X1)}\tx\n"), AT)
    with pytest.raises(ForkedError):
        require_side(vault, "ledger", server(timeline), parse_history(timeline, history))


def test_a_timeline_is_put_on_record_once() -> None:
    """Parent, switch and text as the server gave it; again only when the same number means another history."""
    vault, history = throwaway_vault(), parse_history(3, HISTORY)
    for _ in range(2):
        record_timeline(vault, "ledger", "7700", History(1, (), ""), AT)
        record_timeline(vault, "ledger", "7700", history, AT)
    bodies = [fact.body for fact in facts(vault, "ledger", TIMELINE)]
    assert [(body["timeline"], body["parent"], body["switch_lsn"]) for body in bodies] == [
        (1, None, None),
        (3, 2, format_lsn(X2)),
    ]
    assert known_histories(vault, "ledger", "7700")[3] == history
    assert record_timeline(vault, "ledger", "7700", parse_history(3, f"1\t{format_lsn(X1)}\tx\n"), AT) is not None


def test_an_ancestors_history_is_part_of_the_servers() -> None:
    """A server that no longer has the file of a timeline on its way still tells what it said."""

    class Forgetful:
        def timeline_history(self, timeline: int) -> str:
            raise ServerRefusedError("58P01", f"could not open file for timeline {timeline}")

    connection: Any = Forgetful()
    history = parse_history(3, HISTORY)
    assert read_ancestor(connection, history, 2).switches == ((1, X1),)
    assert read_ancestor(connection, history, 1).switches == ()
    assert read_ancestor(connection, history, 3) is history


def test_a_position_lies_on_one_timeline_of_a_way() -> None:
    """The switch itself belongs to the newer one."""
    history = parse_history(3, HISTORY)
    found = [stream_at(server(), history, position).timeline for position in (0, X1 - 1, X1, X2 - 1, X2, END)]
    assert found == [1, 1, 2, 2, 3, 3]


def test_right_behind_a_switch_the_recovery_point_is_the_switch() -> None:
    """Nothing of the new timeline is stored yet: the piece that holds the switch stands in, and dates nothing later."""
    vault = throwaway_vault()
    put(vault, 1, 0x1000, X1 + 0x800, None, LATER)
    (piece,) = vault.objects("ledger", "wal", system_id="7700", timeline=1)
    point = _point(vault, piece, Anchor("7700", 2, X1, X1, None, str(piece.key), 2, AT))
    assert isinstance(point, RecoveryPoint)
    assert (point.lsn, point.timeline, point.at) == (X1, 2, AT)


def test_each_server_of_a_connection_string_can_be_gone_to() -> None:
    """Hosts with their ports and addresses; what chooses between them goes, everything else stays."""
    several = "postgresql://u:p%40ss@db1:5433,db2/app?sslmode=verify-full&target_session_attrs=read-write"
    nodes = [parse_dsn(node) for node in node_dsns(several)]
    assert [(node["host"], node.get("port")) for node in nodes] == [("db1", "5433"), ("db2", None)]
    assert all(node["password"] == "p@ss" and node["sslmode"] == "verify-full" for node in nodes)
    assert not any("target_session_attrs" in node for node in nodes)
    one_port = [parse_dsn(node) for node in node_dsns("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=5440 user=u")]
    assert [(node["hostaddr"], node["port"]) for node in one_port] == [("10.0.0.1", "5440"), ("10.0.0.2", "5440")]
    assert node_dsns("host=a user=u") == ["host=a user=u"]
    moved = parse_dsn(dsn_of_node(several, "db9", 6000))
    assert (moved["host"], moved["port"], moved["user"]) == ("db9", "6000", "u")


def test_a_session_passes_over_standbys_by_itself() -> None:
    """Of several hosts libpq would take the first that answers; what the operator asked for is kept."""
    assert parse_dsn(primary_dsn("host=a,b user=u"))["target_session_attrs"] == "primary"
    assert parse_dsn(primary_dsn("host=a,b target_session_attrs=read-write"))["target_session_attrs"] == "read-write"
    assert primary_dsn("host=a user=u") == "host=a user=u"


@pytest.mark.parametrize(
    "text",
    ["", " , ", "http://db1.example.com:8008", "https://user:secret@db1:8008", "db1:8008", "https://db1:8008,ftp://x"],
)
def test_endpoints_in_plaintext_or_with_credentials_are_refused(text: str) -> None:
    """Nothing beyond loopback is asked without TLS, and no message repeats what may be a password."""
    with pytest.raises(PolicyError) as caught:
        parse_urls(text)
    assert "secret" not in str(caught.value)


def test_endpoints_are_base_urls() -> None:
    """With or without a slash at the end, on loopback also without TLS."""
    assert parse_urls("https://db1:8008/, http://127.0.0.1:8008") == ("https://db1:8008", "http://127.0.0.1:8008")


def test_a_declared_patroni_that_the_environment_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would say who leads, and the operator thinks that somebody does; without a declaration there is none."""
    monkeypatch.delenv("PATRONI_URLS", raising=False)
    declared: Any = SimpleNamespace(name="ledger", patroni_env="PATRONI_URLS")
    with pytest.raises(PolicyError) as caught:
        patroni_of(declared)
    assert caught.value.code == "cli.patroni_missing"
    monkeypatch.setenv("PATRONI_URLS", "https://db1:8008,https://db2:8008")
    assert patroni_of(declared) == ("https://db1:8008", "https://db2:8008")
    declared.patroni_env = None
    assert patroni_of(declared) == ()
