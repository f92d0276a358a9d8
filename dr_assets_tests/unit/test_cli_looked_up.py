"""What options name and the environment lacks, or nobody reads: refused before anything is opened, in one way."""

import pytest
from typer.testing import CliRunner

from dr_assets.cli.app import app
from dr_assets.estate.errors import PolicyError

WORK_LIST = (
    "work-list", "--since", "2026-03-01T00:00:00Z", "--until", "2026-03-01T01:00:00Z", "--dsn-env", "NO_SUCH_DSN",
    "--out", "nowhere",
)  # fmt: skip
RECONCILE = ("reconcile", "--dsn-env", "NO_SUCH_DSN", "--contract", "casino_ledger")


def refused(*args: str) -> PolicyError:
    """What the verb says."""
    done = CliRunner().invoke(app, [*args], env={"NO_SUCH_DSN": None})
    assert isinstance(done.exception, PolicyError), done.output
    return done.exception


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((*RECONCILE, "--provider-files", "acme:csv=./a", "--mapping", "amce=m.yaml"), "acme"),
        ((*RECONCILE, "--provider-files", "acme:csv=./a", "--mapping", "acme"), "acme"),
        ((*RECONCILE, "--mapping", "acme=m.yaml"), "--provider-files"),
        ((*WORK_LIST, "--provider-files", "stripe=./a", "--provider-mapping", "adyen=m.yaml"), "stripe"),
        ((*WORK_LIST, "--provider-mapping", "stripe=m.yaml"), "--provider-files"),
        ((*WORK_LIST, "--provider-files", "csv=./a", "--provider-mapping", "csv=a", "--provider-mapping", "csv=b"), ""),
    ],
)
def test_a_mapping_that_nobody_would_read_is_refused(args: tuple[str, ...], named: str) -> None:
    """A name that no files have is a mistake: it says which there are, before anything is opened."""
    error = refused(*args)
    assert error.code == "cli.mapping"
    assert named in error.hint


@pytest.mark.parametrize(
    "args",
    [
        RECONCILE,
        WORK_LIST,
        ("contract", "check", "casino_ledger", "--dsn-env", "NO_SUCH_DSN"),
        ("outbox", "plan", "ledger", "--ledger-env", "NO_SUCH_DSN", "--into", "127.0.0.1:1", "--plaintext"),
    ],
)
def test_a_connection_string_that_is_not_set_is_told_in_one_way(args: tuple[str, ...]) -> None:
    """Whatever verb looks for it: one code, the variable's name, and nothing waits for a server first."""
    error = refused(*args)
    assert error.code == "cli.dsn_missing"
    assert "NO_SUCH_DSN is not set" in error.found
