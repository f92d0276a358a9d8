from pathlib import Path

import pytest

from dr_assets.casino.__main__ import main
from dr_assets.casino.workload import Workload
from dr_assets.estate.errors import PolicyError


def test_a_missing_connection_string_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the variable's name and a hint; no traceback."""
    monkeypatch.delenv("CASINO_TEST_DSN", raising=False)
    assert main(["--dsn-env", "CASINO_TEST_DSN", "--ack-dir", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "CASINO_TEST_DSN" in printed
    assert "HINT: " in printed


def test_an_unreachable_casino_is_the_sources_error_and_keeps_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3; the password in the connection string shows up nowhere."""
    monkeypatch.setenv("CASINO_TEST_DSN", "postgresql://u:s3cr3t@127.0.0.1:1/casino")
    assert main(["--dsn-env", "CASINO_TEST_DSN", "--ack-dir", str(tmp_path)]) == 3
    printed = capsys.readouterr().err
    assert "casino.unreachable" in printed
    assert "s3cr3t" not in printed


def test_an_unreadable_connection_string_is_refused_without_quoting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be parsed may be half a password: libpq quotes it, we withhold it."""
    monkeypatch.setenv("CASINO_TEST_DSN", "host=127.0.0.1 password=s3 cr3t")
    assert main(["--dsn-env", "CASINO_TEST_DSN", "--ack-dir", str(tmp_path)]) == 2
    assert "cr3t" not in capsys.readouterr().err


@pytest.mark.parametrize(("rate_per_s", "workers"), [(0.0, 8), (-1.0, 8), (400.0, 0)])
def test_a_workload_that_would_do_nothing_is_refused(tmp_path: Path, rate_per_s: float, workers: int) -> None:
    """No silent demo without traffic."""
    with pytest.raises(PolicyError, match=r"casino\.workload"):
        Workload("", tmp_path, rate_per_s, workers)
