import secrets
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.preflight import PreflightFinding, preflight, require_ready

pytestmark = pytest.mark.integration


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _codes(findings: list[PreflightFinding], *severities: str) -> set[str]:
    return {finding.code for finding in findings if not severities or finding.severity in severities}


def _as(dsn: str, user: str, password: str) -> str:
    parts = urlsplit(dsn)
    return f"postgresql://{user}:{password}@{parts.hostname}:{parts.port}{parts.path}"


@pytest.fixture
def role(postgres_17: Any, fresh_database: Any) -> Iterator[tuple[str, str]]:
    """The DSN of a new database as a plain login role, and as superuser."""
    dsn = fresh_database()
    name, password = f"role_{secrets.token_hex(4)}", secrets.token_hex(8)
    _execute(postgres_17.dsn(), f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    yield _as(dsn, name, password), dsn
    _execute(dsn, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_good_source_has_no_errors_on_every_version(
    rig: ModuleType, session_postgres: Any, fresh_database: Any, major: int
) -> None:
    """What can be protected is not refused; what will bite one day is told with its consequence."""
    session_postgres(major)
    dsn = fresh_database(major)
    findings = preflight(dsn, rig.make_dataset())
    assert _codes(findings, "error") == set()
    assert "source.slot_limit" in _codes(findings, "warning")
    limit = next(finding for finding in findings if finding.code == "source.slot_limit")
    assert "fills this server's disk" in limit.found
    assert "ALTER SYSTEM SET max_slot_wal_keep_size" in limit.hint
    require_ready(findings, dsn)


def test_what_a_role_lacks_is_named_with_the_statement_that_grants_it(
    rig: ModuleType, postgres_17: Any, memory_vault: Any, slots: Any, role: tuple[str, str]
) -> None:
    """No REPLICATION, no right to the heartbeat's schema: after exactly the statements named, a capture runs."""
    own, superuser = role
    dataset = rig.make_dataset()
    slots(postgres_17, dataset.slot)
    findings = preflight(own, dataset)
    assert {"source.no_replication_right", "source.no_heartbeat_right", "source.no_replication"} == _codes(
        findings, "error"
    )
    with pytest.raises(SourceError, match=r"source\.not_ready"):
        require_ready(findings, own)
    for finding in findings:
        if finding.code in {"source.no_replication_right", "source.no_heartbeat_right"}:
            _execute(superuser, finding.hint.removeprefix("run as a superuser: "))
    assert _codes(preflight(own, dataset), "error") == set()
    assert all(str(urlsplit(own).password) not in str(finding) for finding in findings)
    with rig.CaptureThread(memory_vault(dataset), dataset, own) as capture:
        capture.wait(lambda report: report.recovery_point_at and report.slot, "a heartbeat and the slot's state")


def test_settings_that_forbid_protection_are_named_with_what_to_set(rig: ModuleType, postgres_server: Any) -> None:
    """wal_level minimal and no senders: two errors, both with ALTER SYSTEM and a restart."""
    server = postgres_server(
        settings={"wal_level": "minimal", "max_wal_senders": 0, "fsync": False, "full_page_writes": False}
    )
    findings = preflight(server.dsn(), rig.make_dataset())
    assert {"source.wal_level", "source.no_wal_sender", "source.no_replication"} == _codes(findings, "error")
    assert {"source.fsync", "source.full_page_writes"} <= _codes(findings, "warning")
    assert "source.commit_timestamp" in _codes(findings, "advice")
    level = next(finding for finding in findings if finding.code == "source.wal_level")
    assert "ALTER SYSTEM SET wal_level = 'replica'" in level.hint
    assert "restart" in level.hint


def test_a_pg_hba_without_a_replication_line_is_found_by_trying(rig: ModuleType, postgres_server: Any) -> None:
    """The rights are there, the line is not: refused with the line to add, which then works."""
    server = postgres_server(settings={"fsync": False})
    hba = server.run_dir / "pg_hba.conf"
    rules = hba.read_text()
    hba.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    _execute(server.dsn(), "SELECT pg_reload_conf()")
    findings = _until(lambda: preflight(server.dsn(), rig.make_dataset()), "source.no_replication")
    assert "host replication" in next(f.hint for f in findings if f.code == "source.no_replication")
    hba.write_text(rules)
    _execute(server.dsn(), "SELECT pg_reload_conf()")
    _until(lambda: preflight(server.dsn(), rig.make_dataset()), None)


def test_a_managed_service_is_recognised_and_refused_with_a_clear_word(rig: ModuleType, postgres_server: Any) -> None:
    """A service's roles and a refused replication connection together: named, and where to turn instead."""
    server = postgres_server(settings={"fsync": False})
    _execute(server.dsn(), "CREATE ROLE rdsadmin")
    assert "source.managed" not in _codes(preflight(server.dsn(), rig.make_dataset()))
    (server.run_dir / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    _execute(server.dsn(), "SELECT pg_reload_conf()")
    findings = _until(lambda: preflight(server.dsn(), rig.make_dataset()), "source.managed")
    managed = next(finding for finding in findings if finding.code == "source.managed")
    assert managed.severity == "error"
    assert "Amazon RDS" in managed.found


def test_a_slot_of_the_wrong_kind_and_a_full_table_of_slots(rig: ModuleType, postgres_server: Any) -> None:
    """Our slot's name taken by a logical slot, or no slot left: each is an error of its own."""
    server = postgres_server(settings={"fsync": False, "wal_level": "logical", "max_replication_slots": 1})
    dataset = rig.make_dataset()
    _execute(server.dsn(), f"SELECT pg_create_logical_replication_slot('{dataset.slot}', 'pgoutput')")
    assert _codes(preflight(server.dsn(), dataset), "error") == {"source.slot_kind"}
    assert _codes(preflight(server.dsn(), rig.make_dataset()), "error") == {"source.no_slot"}


def test_plaintext_over_a_network_is_an_error_before_anything_is_sent(rig: ModuleType) -> None:
    """The address is never connected to."""
    findings = preflight("postgresql://u:p@192.0.2.1/x", rig.make_dataset())
    assert _codes(findings) == {"source.no_tls"}


@pytest.mark.parametrize("broken", ["postgresql://postgres:topsecret@127.0.0.1:1/x", "wrong password"])
def test_a_source_that_cannot_be_asked_is_one_error_without_secrets(
    rig: ModuleType, postgres_17: Any, broken: str
) -> None:
    """Nobody there, or a wrong password: SourceError, and the password is nowhere in it."""
    dsn = _as(postgres_17.dsn(), "postgres", "topsecret") if broken == "wrong password" else broken
    with pytest.raises(SourceError) as refused:
        preflight(dsn, rig.make_dataset())
    assert refused.value.code == "source.unreachable"
    assert "topsecret" not in str(refused.value)
    assert refused.value.__suppress_context__


def _until(look: Any, code: str | None) -> list[PreflightFinding]:
    """A reload takes a moment to reach new connections."""
    deadline = time.monotonic() + 180
    while True:
        findings: list[PreflightFinding] = look()
        errors = _codes(findings, "error")
        if (code is None and not errors) or code in errors:
            return findings
        assert time.monotonic() < deadline, findings
        time.sleep(0.02)
