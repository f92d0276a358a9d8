"""Whether the vault holds what the source's listing shows now: row for row, counts and bytes.

What belongs here: that comparison, over a listing of its own. What stays out: copying what lacks (copy.py).
"""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dr_assets.stores.bucket.index import Index
from dr_assets.stores.bucket.listing import listing
from dr_assets.stores.bucket.manifest import Tally
from dr_assets.stores.bucket.position import recovery_point
from dr_assets.stores.bucket.runs import chain_to, microseconds, newest_run, rows_of
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place
from dr_assets.vault.format.canonical import Json, format_time


@dataclass(frozen=True, slots=True)
class Completeness:
    """`missing` rows were last modified before the recovery point and are not stored; `newer` ones came after it.

    `gone` are stored and no longer listed: removed since.
    """

    point_at: datetime | None
    listed: Tally
    held: Tally
    missing: int
    newer: int
    gone: int

    @property
    def ok(self) -> bool:
        """Whether everything that has to be stored is."""
        return self.point_at is not None and not self.missing

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "point_at": None if self.point_at is None else format_time(self.point_at),
            "listed": self.listed.to_json(),
            "held": self.held.to_json(),
            "missing": self.missing,
            "newer": self.newer,
            "gone": self.gone,
        }


def check_complete(site: Site, place: Place) -> Completeness:
    """List the source and hold it to the newest inventory, on disk. Raises SourceError, VaultError."""
    point = recovery_point(site.vault, site.name)
    at = None if point is None else point.at
    with tempfile.TemporaryDirectory(prefix="dr-complete-") as folder, Index(Path(folder) / "rows.sqlite") as index:
        run = newest_run(site.vault, site.name, site.system_id)
        for rows in () if run is None else rows_of(site.vault, chain_to(site.vault, run)):
            index.learn(rows)
        index.drop_gone()
        held = index.tally()
        index.begin_listing()
        for page in listing(place):
            index.list_rows(page, site.names)
        now_us = microseconds(site.vault.clock())
        lacking = index.listed_all(scope=None, gone_at=now_us)
        missing = index.lacking_before(0 if at is None else microseconds(at))
        return Completeness(at, index.listing_tally(), held, missing, lacking - missing, index.changes(now_us)[1])
