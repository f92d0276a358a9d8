"""Deadlines, ports and the pure parts of configuration."""

import socket

import pytest

from dr_assets.engines import ports
from dr_assets.engines.errors import EngineError
from dr_assets.engines.ports import HIGHEST, LOWEST, free_ports, is_free
from dr_assets.engines.postgres import quoted
from dr_assets.engines.waiting import wait_until


def test_waiting_ends_at_the_deadline() -> None:
    """What never happens raises an error that names it; what happened already returns at once."""
    wait_until(lambda: True, timeout_s=0, what="the sun rising")
    with pytest.raises(EngineError, match="the sun rising did not happen within 0"):
        wait_until(lambda: False, timeout_s=0, what="the sun rising")


def test_ports_are_distinct_and_out_of_the_way_of_connections() -> None:
    """Picked ports differ, are free, and lie below the range outgoing connections are given."""
    picked = free_ports(20)
    assert len(set(picked)) == 20
    assert all(LOWEST <= port < HIGHEST < 32_768 for port in picked)


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had one may be down for a moment, and comes back to it."""
    monkeypatch.setattr(ports, "LOWEST", HIGHEST - 200)
    monkeypatch.setattr(ports, "HIGHEST", HIGHEST)
    assert not set(free_ports(60)) & set(free_ports(60))


def test_a_bound_port_is_not_free() -> None:
    """A port that something listens on is never called free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


@pytest.mark.parametrize(
    ("value", "written"), [(True, "on"), (False, "off"), (8, "'8'"), ("it's", "'it''s'"), ("a\\b", r"'a\\b'")]
)
def test_settings_are_quoted(value: str | bool | int, written: str) -> None:
    """A setting's value reaches the server as it is, whatever characters it holds."""
    assert quoted(value) == written
