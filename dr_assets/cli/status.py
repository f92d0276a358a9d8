"""`dr-assets status`: each dataset's stored recovery point, its age, its lock and its last restore test."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.estate.model import Dataset
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.objective import rpo_trouble, stream_of
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault

BROKEN = 1


@dataclass(frozen=True)
class DatasetStatus:
    """One dataset as its vault shows it. Ages in seconds, moments as ISO 8601; None where there is nothing yet.

    `trouble` is why the RPO is not met, None when it is: `within_rpo` says the same as the check `rpo` in Dagster.
    """

    dataset: str
    vault: str
    recovery_point_at: str | None
    recovery_point_age_s: float | None
    rpo_s: float
    within_rpo: bool
    trouble: str | None
    stored_lsn: str | None
    timeline: int | None
    locked_until: str | None
    snapshot_at: str | None
    restore_test_at: str | None
    restore_test: str | None
    reconciliation: str | None


def status(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Show where every dataset stands, read from the vault itself; exit 1 when one is beyond its RPO."""
    estate = estate_of(defs)
    rows = [status_of(vault_of(estate, dataset.vault, signing=False), dataset) for dataset in estate.datasets.values()]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console().print(_table(rows))
        for row in rows:
            if row.trouble:
                typer.echo(f"{row.dataset}: {row.trouble}")
    if not all(row.within_rpo for row in rows):
        raise typer.Exit(BROKEN)


def status_of(vault: Vault, dataset: Dataset) -> DatasetStatus:
    """Read where one dataset stands. Raises VaultError."""
    now = vault.clock()
    point = stored_recovery_point(vault, dataset)
    at = point.at if point else None
    age_s = (now - at).total_seconds() if at else None
    snapshot = latest_fact(vault, dataset.name, "snapshot")
    left = {} if point is None else left_on_the_way(vault, dataset.name, stream_of(point), snapshot)
    trouble = rpo_trouble(dataset, point, snapshot, left, now)
    tested = latest_fact(vault, dataset.name, "restore_test")
    reconciled = latest_fact(vault, dataset.name, "reconciliation")
    return DatasetStatus(
        dataset=dataset.name,
        vault=dataset.vault,
        recovery_point_at=_iso(at),
        recovery_point_age_s=None if age_s is None else round(age_s, 3),
        rpo_s=dataset.rpo.total_seconds(),
        within_rpo=trouble is None,
        trouble=trouble,
        stored_lsn=format_lsn(point.lsn) if point else None,
        timeline=point.timeline if point else None,
        locked_until=_iso(point.retain_until) if point else None,
        snapshot_at=_iso(snapshot.at) if snapshot else None,
        restore_test_at=_iso(tested.at) if tested else None,
        restore_test=_outcome(tested),
        reconciliation=_outcome(reconciled),
    )


def _outcome(fact: Fact | None) -> str | None:
    if fact is None:
        return None
    body: dict[str, Any] = fact.body
    return str(body.get("outcome", "passed" if body.get("ok") else "failed"))


def _table(rows: list[DatasetStatus]) -> Table:
    table = Table()
    for column in ("dataset", "recovery point age", "RPO", "stored to", "locked until", "snapshot", "restore test"):
        table.add_column(column, overflow="fold")
    for row in rows:
        age = "none stored" if row.recovery_point_age_s is None else f"{row.recovery_point_age_s:.1f} s"
        table.add_row(
            row.dataset,
            f"[{'green' if row.within_rpo else 'red'}]{age}[/]",
            f"{row.rpo_s:.0f} s",
            row.stored_lsn or "-",
            _minute(row.locked_until),
            _minute(row.snapshot_at),
            f"{row.restore_test or 'never'} {_minute(row.restore_test_at) if row.restore_test_at else ''}".strip(),
        )
    return table


def _minute(moment: str | None) -> str:
    return "-" if moment is None else moment[:16].replace("T", " ") + "Z"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
