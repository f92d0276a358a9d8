"""What others named or wrote, in tables for people: shown as it is, and nothing but shown."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from dr_assets.cli import hold
from dr_assets.cli.verifying import show
from dr_assets.vault.retention.holds import Hold
from dr_assets.vault.verify.report import Finding, VerifyReport

EVIL = "casino/[/b]/[conceal]odd\x1b[2K\x1b[1A"
PLAIN = r"casino/[/b]/[conceal]odd\x1b[2K\x1b[1A"


@pytest.fixture
def console() -> Console:
    """A wide one that writes into memory, with markup as by default."""
    return Console(file=io.StringIO(), width=300)


def written(console: Console) -> str:
    """All of it."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_no_objects_name_ends_or_hides_a_verification(console: Console) -> None:
    """Whoever may put names objects: one that looks like markup, or wipes lines, is a finding like any other."""
    show(VerifyReport((Finding("foreign", EVIL, None, EVIL),), 1, 1, 1, 0.1), console)
    assert written(console).count(PLAIN) == 2
    assert "\x1b" not in written(console)


def test_a_holds_reason_is_shown_as_it_was_written(console: Console) -> None:
    """A case number in brackets must not make the list of holds unreadable."""
    placed = Hold("ab", "ledger", EVIL, "ann", datetime(2026, 3, 1, tzinfo=UTC))
    console.print(hold._table("ledger", [(placed, False)]))
    assert PLAIN in written(console)
