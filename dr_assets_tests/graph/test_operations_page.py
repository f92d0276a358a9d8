"""The page for the person at 3 a.m. knows every alarm that can wake one."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dr_assets.components.protected_postgres import ProtectedPostgres
from dr_assets.estate.model import PostgresDataset, ZeroLoss

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
RAISED = re.compile(r'(?:PolicyError|SourceError|VaultError|EngineError)\(\s*"([a-z]+)\.[a-z_]+"')
# What only the demo, its workload and developers ever see.
NOT_AT_NIGHT = {"demo", "casino"}


def test_every_check_of_a_dataset_is_in_the_table_of_alarms(ledger: PostgresDataset) -> None:
    """A check that can turn red and that the page doesn't name leaves the reader alone with it."""
    everything = replace(ledger, zero_loss=ZeroLoss(timedelta(seconds=10)))
    definitions = ProtectedPostgres(everything).build_defs(None)  # type: ignore[arg-type]  # the context isn't read
    names = {key.name for check in definitions.asset_checks or () for key in check.check_keys}
    assert len(names) > 8
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert not [name for name in names if not any(f"`{name}`" in row.split("|")[1] for row in rows)]


def test_every_family_of_error_codes_is_explained() -> None:
    """Whatever the first word of a code in the log is, the page says who acts."""
    sources = [path.read_text() for path in (ROOT / "dr_assets").rglob("*.py")]
    families = {family for text in sources for family in RAISED.findall(text)} - NOT_AT_NIGHT
    assert len(families) > 8
    assert not [family for family in sorted(families) if f"`{family}." not in PAGE]
