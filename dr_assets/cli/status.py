"""`dr-assets status`: each dataset's stored recovery point, its recovery window, its backlog and its last proofs."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.cli.status_proven import ProvenStatus, proven_status_of, proven_table, proven_troubles
from dr_assets.cli.status_stores import store_status_of, store_table
from dr_assets.cli.times import iso
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.backlog import backlogs
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.objective import rpo_trouble, stream_of
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.stores.postgres.recovery_window import BaseBackup, Window, base_backups, recovery_windows
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault

BROKEN = 1
COLOURS = ("green", "yellow", "red")


@dataclass(frozen=True)
class WindowStatus:
    """The instants of one timeline that can be restored to, from its oldest usable base backup to its WAL's end."""

    system_id: str
    timeline: int
    oldest_at: str
    newest_at: str | None
    end_lsn: str
    base_backups: int
    first_base_backup: str
    last_base_backup: str


@dataclass(frozen=True)
class DatasetStatus:
    """One dataset as its vault shows it. Ages in seconds, moments as ISO 8601; None where there is nothing yet.

    `windows` are what can be restored to. `backlog_*` is about micro-segments that wait for their full segment, red at
    half of their lock. `next_expiry_at` is when the oldest base backup may go: it has left the retention, and its lock
    is over. `trouble` is why the RPO is not met, None when it is: `within_rpo` says what the check `rpo` says.
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
    windows: list[WindowStatus]
    backlog_micros: int
    backlog_age_s: float
    backlog_colour: str
    next_expiry_at: str | None
    proven: ProvenStatus | None = None


def status(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Show where every dataset stands, read from the vault itself; exit 1 when one is beyond its RPO."""
    estate = estate_of(defs)
    rows = [
        status_of(vault_of(estate, dataset.vault, signing=False), dataset) for dataset in estate.postgres().values()
    ]
    others = [
        store_status_of(vault_of(estate, dataset.vault, signing=False), dataset)
        for dataset in (*estate.topics().values(), *estate.buckets().values())
    ]
    if as_json:
        printed = [{"kind": "postgres"} | asdict(row) for row in rows]
        typer.echo(json.dumps(printed + [asdict(other) for other in others], indent=2))
    else:
        Console().print(_table(rows))
        Console().print(_window_table(rows))
        proven = [(row.dataset, row.stored_lsn, row.proven) for row in rows if row.proven is not None]
        if proven:
            Console().print(proven_table(proven))
        for row in rows:
            for told in ([row.trouble] if row.trouble else []) + (proven_troubles(row.proven) if row.proven else []):
                typer.echo(f"{row.dataset}: {told}")
        if others:
            Console().print(store_table(others))
        for other in others:
            for told in ([other.trouble] if other.trouble else []) + other.open:
                typer.echo(f"{other.dataset}: {told}")
    if not all([row.within_rpo for row in rows] + [other.within_rpo for other in others]):
        raise typer.Exit(BROKEN)


def status_of(vault: Vault, dataset: PostgresDataset) -> DatasetStatus:
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
    bases, waiting = base_backups(vault, dataset.name), backlogs(vault, dataset.name)
    return DatasetStatus(
        dataset=dataset.name,
        vault=dataset.vault,
        recovery_point_at=iso(at),
        recovery_point_age_s=None if age_s is None else round(age_s, 3),
        rpo_s=dataset.rpo.total_seconds(),
        within_rpo=trouble is None,
        trouble=trouble,
        stored_lsn=format_lsn(point.lsn) if point else None,
        timeline=point.timeline if point else None,
        locked_until=iso(point.retain_until) if point else None,
        snapshot_at=iso(snapshot.at) if snapshot else None,
        restore_test_at=iso(tested.at) if tested else None,
        restore_test=_outcome(tested),
        reconciliation=_outcome(reconciled),
        windows=[_window_status(window) for window in recovery_windows(vault, dataset.name, bases)],
        backlog_micros=sum(backlog.micros for backlog in waiting),
        backlog_age_s=max((backlog.age(now).total_seconds() for backlog in waiting), default=0.0),
        backlog_colour=max((backlog.colour(now) for backlog in waiting), key=COLOURS.index, default="green"),
        next_expiry_at=iso(_next_expiry(vault, dataset, bases)),
        proven=proven_status_of(vault, dataset, now),
    )


def _window_status(window: Window) -> WindowStatus:
    return WindowStatus(
        window.system_id, window.timeline, window.oldest_at.isoformat(), iso(window.newest_at),
        format_lsn(window.end_lsn), window.base_backups, window.first, window.last,
    )  # fmt: skip


def _next_expiry(vault: Vault, dataset: PostgresDataset, bases: list[BaseBackup]) -> datetime | None:
    """The oldest base backup goes once the one after it is older than the retention too, and its lock is over."""
    if len(bases) < 2:  # noqa: PLR2004 - the last one stays, however old
        return None
    head = vault.store.head(str(bases[0].key), bases[0].obj.version_id or None)
    leaves_at = bases[1].end_at + timedelta(days=dataset.retention.days)
    return leaves_at if head is None or head.lock is None else max(leaves_at, head.lock.retain_until)


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


def _window_table(rows: list[DatasetStatus]) -> Table:
    table = Table(title="recovery windows", title_justify="left")
    for column in ("dataset", "timeline", "from", "to", "base backups", "waiting for roll-up", "next expiry"):
        table.add_column(column, overflow="fold")
    for row in rows:
        waits = f"[{row.backlog_colour}]{row.backlog_micros} for {row.backlog_age_s:.0f} s[/]"
        for window in row.windows:
            to = _minute(window.newest_at) if window.newest_at else window.end_lsn
            cells = (str(window.timeline), _minute(window.oldest_at), to, str(window.base_backups))
            table.add_row(row.dataset, *cells, waits, _minute(row.next_expiry_at))
        if not row.windows:
            table.add_row(row.dataset, "-", "nothing can be restored", "-", "0", waits, "-")
    return table


def _minute(moment: str | None) -> str:
    return "-" if moment is None else moment[:16].replace("T", " ") + "Z"
