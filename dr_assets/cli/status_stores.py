"""Where topics and buckets stand, for `dr-assets status`: recovery point, lag, what is open, last restore test.

What belongs here: reading that off the vault, and its table. What stays out: databases (status.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from dr_assets.cli.times import iso
from dr_assets.estate.model import BucketDataset, Dataset, TopicsDataset
from dr_assets.stores.bucket.position import recovery_point
from dr_assets.stores.kafka.capture_facts import recreated, unsettled_gaps
from dr_assets.stores.kafka.position import stored_recovery_point
from dr_assets.stores.objective import StoredPoint, age_trouble
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """One dataset of topics or documents as its vault shows it; `open` is what a person has to settle or look at."""

    dataset: str
    kind: str
    vault: str
    recovery_point_at: str | None
    recovery_point_age_s: float | None
    rpo_s: float
    within_rpo: bool
    trouble: str | None
    holds: str
    open: list[str]
    locked_until: str | None
    restore_test_at: str | None
    restore_test: str | None


def store_status_of(vault: Vault, dataset: Dataset) -> StoreStatus:
    """Read where one dataset stands. Raises VaultError."""
    now = vault.clock()
    point: StoredPoint | None
    holds, opened = "nothing", []
    match dataset:
        case TopicsDataset():
            point = kafka = stored_recovery_point(vault, dataset)
            if kafka is not None:
                holds = f"{kafka.topics} topics, {kafka.partitions} partitions, {kafka.packs} packs"
            opened = open_of(vault, dataset)
        case BucketDataset():
            point = copied = recovery_point(vault, dataset.name)
            held = {} if copied is None else copied.fact.body.get("held")
            if isinstance(held, dict) and held:
                holds = f"{held.get('versions')} versions, {held.get('size_bytes')} bytes"
            if copied is not None and copied.fact.body.get("is_complete") is not True:
                opened = ["the newest comparison could not read everything"]
        case _:
            raise TypeError(dataset.kind)
    at = None if point is None else point.at
    trouble = age_trouble(dataset, point, now)
    tested = latest_fact(vault, dataset.name, "restore_test")
    return StoreStatus(
        dataset=dataset.name,
        kind=dataset.kind,
        vault=dataset.vault,
        recovery_point_at=iso(at),
        recovery_point_age_s=None if at is None else round((now - at).total_seconds(), 3),
        rpo_s=dataset.rpo.total_seconds(),
        within_rpo=trouble is None,
        trouble=trouble,
        holds=holds,
        open=opened,
        locked_until=iso(None if point is None else point.retain_until),
        restore_test_at=iso(tested.at) if tested else None,
        restore_test=None if tested is None else str(tested.body.get("outcome")),
    )


def open_of(vault: Vault, dataset: TopicsDataset) -> list[str]:
    """Gaps and topics made again that nobody has settled, in words."""
    gaps = [
        f"{gap.why} in {gap.topic}-{gap.partition} [{gap.begin}, {gap.end})"
        for _, gap in unsettled_gaps(vault, dataset.name)
    ]
    return gaps + [
        f"topic {fact.body.get('topic')} was deleted or made again" for fact in recreated(vault, dataset.name)
    ]


def store_table(rows: Sequence[StoreStatus]) -> Table:
    """For people."""
    table = Table(title="topics and buckets", title_justify="left")
    for column in ("dataset", "recovery point age", "RPO", "holds", "open", "restore test"):
        table.add_column(column, overflow="fold")
    for row in rows:
        age = "none stored" if row.recovery_point_age_s is None else f"{row.recovery_point_age_s:.1f} s"
        tested = f"{row.restore_test or 'never'} {_minute(row.restore_test_at)}".strip()
        colour = "green" if row.within_rpo else "red"
        opened = f"[red]{len(row.open)}[/]" if row.open else "-"
        table.add_row(row.dataset, f"[{colour}]{age}[/]", f"{row.rpo_s:.0f} s", escape(row.holds), opened, tested)
    return table


def _minute(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}Z"
