"""Of `dr-assets status`: what is stored, replayed and reconciled of each dataset, side by side.

What belongs here: the values and their table. What stays out: the rules (proving/prover/judged.py).
"""

from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from dr_assets.cli.times import iso
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.prover.judged import reconciled_trouble, replayed_trouble
from dr_assets.proving.prover.points import latest_proven
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.vault.vault import Vault


@dataclass(frozen=True)
class ProvenStatus:
    """What a prover sealed last, at `published_at`; ages in seconds, as of that moment.

    A `trouble` is why the point can't be counted on, None if it can.
    """

    published_at: str
    state: str
    replayed_at: str | None
    replayed_age_s: float | None
    replayed_lsn: str | None
    replayed_trouble: str | None
    reconciled_at: str | None
    reconciled_age_s: float | None
    reconciled_lsn: str | None
    reconciled_trouble: str | None
    deep_pass_at: str | None
    restarted_at: str | None


def proven_status_of(vault: Vault, dataset: PostgresDataset, now: datetime) -> ProvenStatus | None:
    """Read it; None where none is declared, or none ever said anything. Raises VaultError."""
    proven = None if dataset.prove is None else latest_proven(vault, dataset.name)
    if proven is None:
        return None
    replayed, reconciled = proven.replayed, proven.reconciled
    return ProvenStatus(
        published_at=proven.now.isoformat(),
        state=proven.state,
        replayed_at=iso(replayed.at) if replayed else None,
        replayed_age_s=replayed.age_s(proven.now) if replayed else None,
        replayed_lsn=format_lsn(replayed.lsn) if replayed else None,
        replayed_trouble=replayed_trouble(dataset, proven, now),
        reconciled_at=iso(reconciled.at) if reconciled else None,
        reconciled_age_s=reconciled.age_s(proven.now) if reconciled else None,
        reconciled_lsn=format_lsn(reconciled.lsn) if reconciled else None,
        reconciled_trouble=reconciled_trouble(dataset, proven, now),
        deep_pass_at=iso(proven.deep.end_at) if proven.deep else None,
        restarted_at=iso(proven.restarted_at),
    )


def proven_table(rows: list[tuple[str, str | None, ProvenStatus]]) -> Table:
    """Stored, replayed and reconciled; `rows` are dataset, stored position and what was proven."""
    table = Table(title="proven by the resident prover", title_justify="left")
    for column in ("dataset", "stored to", "replayed", "reconciled", "last deep pass", "begun anew", "published"):
        table.add_column(column, overflow="fold")
    for name, stored, row in rows:
        table.add_row(
            name,
            stored or "-",
            _point(row.replayed_lsn, row.replayed_age_s, row.replayed_trouble),
            _point(row.reconciled_lsn, row.reconciled_age_s, row.reconciled_trouble),
            _minute(row.deep_pass_at),
            _minute(row.restarted_at),
            _minute(row.published_at),
        )
    return table


def proven_troubles(row: ProvenStatus) -> list[str]:
    """In words, each once."""
    return list(dict.fromkeys(each for each in (row.replayed_trouble, row.reconciled_trouble) if each))


def _point(lsn: str | None, age_s: float | None, trouble: str | None) -> str:
    told = "nothing yet" if lsn is None else f"{lsn}, {'undated' if age_s is None else f'{age_s:.1f} s old'}"
    return f"[{'red' if trouble else 'green'}]{told}[/]"


def _minute(moment: str | None) -> str:
    return "-" if moment is None else moment[:16].replace("T", " ") + "Z"
