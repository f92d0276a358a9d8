"""What of a bucket's copies may be removed: what no kept recovery point needs and whose lock is over.

What belongs here: choosing. What stays out: removing, lists, words and approvals, which all kinds of stores share
(stores/postgres/expire.py).

A run is kept whose listing began within the retention, and the newest complete one before it, however old that is; and
whatever they build on or refer to. A manifest goes before its parts, and only if all of its parts that nobody else
needs can go with it, so that nothing is left that looks whole and isn't.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.bucket.position import BUCKET_COPY
from dr_assets.stores.bucket.runs import Run, chain_to, read_run, rows_of, stored_runs
from dr_assets.stores.postgres.expiry_plan import EXPIRY_RECORD, FACT, LEFT_PART, EnoughError, Planner
from dr_assets.stores.postgres.full_put import Stream
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST, Doomed
from dr_assets.vault.facts import SYSTEM_ID
from dr_assets.vault.format.keys import ObjectKey, fact_stream, part_stream, prefix_of
from dr_assets.vault.inventory import INVENTORY
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.storage.versions import Name

MANIFEST: Final = "manifest of a run outside the recovery window"
PART: Final = "part that no kept run refers to"
_REPEATED_FACTS: Final = (BUCKET_COPY, INVENTORY, EXPIRY)


class BucketPlanner(Planner):
    """As the database's planner; only what is kept differs."""

    def _choose(self) -> None:
        plan = self._plan
        found = (read_run(self._vault, stored) for stored in stored_runs(self._vault, self._dataset))
        runs = [run for run in found if run is not None]
        kept = self._kept_runs(runs)
        plan.kept = tuple(kept)
        plan.troubles += [f"{run.key} can't be read and is kept: {run.trouble}" for run in runs if run.trouble]
        held = {str(run.key) for run in kept}
        staying = self._runs([run for run in runs if str(run.key) not in held], kept)
        if all(run.manifest is not None for run in runs):  # else it may be the one that lists or refers to them
            self._left(runs, _needed((*kept, *staying)))
        self._old_facts()

    def _kept_runs(self, runs: Sequence[Run]) -> list[Run]:
        """Those of the window, what carries its begin, and all that they build on; all if nothing carries it."""
        begin = self._plan.window_begin
        by_name = {str(run.key): run for run in runs}
        kept = {str(run.key) for run in runs if run.manifest is None or run.manifest.listing_begin_at >= begin}
        for run in reversed([run for run in runs if str(run.key) not in kept]):
            kept.add(
                str(run.key)
            )  # also what is newer than the carrier and doesn't restore: nobody knows what it holds
            if self._is_sound(run):
                break
        for name in list(kept):
            kept |= {str(run.key) for run in _ancestors(by_name[name], by_name)}
        return [run for run in runs if str(run.key) in kept]

    def _is_sound(self, run: Run) -> bool:
        """Whether everything can be restored from it, as far as names, manifests and inventories tell; told once."""
        manifest = run.manifest
        if manifest is None or not (manifest.is_complete and manifest.is_whole_listing):
            return False
        if run.key in self._opened:
            return True
        try:
            chain = chain_to(self._vault, run)
            lacking = _needed(chain) - self._there(chain)
            for _ in rows_of(self._vault, chain):
                pass
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            self._doubts.append(f"{run.key} can't be restored from, so an older run is kept: {error.code}")
            return False
        if lacking:
            self._doubts.append(f"{run.key} lacks {len(lacking)} parts, so an older run is kept")
            return False
        self._opened.add(run.key)
        return True

    def _there(self, chain: Iterable[Run]) -> set[str]:
        streams = {key.stream for name in _needed(chain) if (key := ObjectKey.parse(name)) is not None}
        return {str(obj.key) for stream in sorted(streams) for obj in self._vault.objects(self._dataset, stream)}

    def _runs(self, gone: Sequence[Run], kept: Sequence[Run]) -> list[Run]:
        """Choose whole runs; those that have to stay for a lock, and keep what they need in turn."""
        by_name = {str(run.key): run for run in gone}
        staying: dict[str, Run] = {}
        while True:
            needed = _needed((*kept, *staying.values()))
            chosen = {name: self._of_run(run, needed) for name, run in by_name.items() if name not in staying}
            fixed = {name for name, rows in chosen.items() if rows is None}
            if not fixed:
                break
            for name in fixed:
                for run in (by_name[name], *_ancestors(by_name[name], by_name)):
                    staying[str(run.key)] = run
        rows = [row for of_run in chosen.values() for row in of_run or ()]
        self._plan.rows += [row for row in rows if row.stage == MANIFEST]
        self._plan.rows += [row for row in rows if row.stage == PART]
        if len(self._plan.rows) >= self._limit:
            raise EnoughError
        return list(staying.values())

    def _of_run(self, run: Run, needed: set[str]) -> list[Doomed] | None:
        """The manifest and its parts that nobody needs; None where a lock holds one of them."""
        manifest = run.manifest
        assert manifest is not None  # noqa: S101 - for the type checker: what can't be read is kept
        own = {part.key for part in manifest.parts} - needed
        names = [name for name in self._names(part_stream(manifest.snapshot_id)) if name.text in own]
        place = (name for name in self._vault.names(run.key.place, f"{run.key.place}{run.key.first:016X}"))
        first = [name for name in islice(place, 64) if name.text == str(run.key)]
        self._chosen -= {hash(name.text) for name in (*names, *first)}  # it may be asked for once more
        rows, manifests = self._unlocked(PART, names), self._unlocked(MANIFEST, first)
        return [*manifests, *rows] if len(rows) == len(names) and manifests else None

    def _left(self, runs: Iterable[Run], needed: set[str]) -> None:
        """Parts whose run is gone and that nobody refers to any more, and what interrupted runs have left."""
        listed = {part_stream(run.manifest.snapshot_id) for run in runs if run.manifest is not None}
        level = self._vault.store.list_level(prefix_of(self._vault.estate, self._dataset))
        for folder in level.folders:
            stream = folder.rstrip("/").rpartition("/")[2]
            if stream.startswith(part_stream("")) and stream not in listed:
                unneeded: Iterable[Name] = (name for name in self._names(stream) if name.text not in needed)
                self._take(LEFT_PART, unneeded, before=self._plan.window_begin)

    def _old_facts(self) -> None:
        """All but the newest of those that only repeat what newer ones say."""
        own = Stream(self._dataset, SYSTEM_ID, 0)
        for kind in _REPEATED_FACTS:
            self._take(FACT, list(self._names(fact_stream(kind), own))[:-1], before=self._plan.window_begin)
        self._take(EXPIRY_RECORD, self._names(EXPIRY_LIST, own), before=self._plan.window_begin)


def _needed(runs: Iterable[Run]) -> set[str]:
    """Every part that these runs list or refer to."""
    manifests = [run.manifest for run in runs if run.manifest is not None]
    return {part.key for one in manifests for part in one.parts} | {key for one in manifests for key in one.refers}


def _ancestors(run: Run, by_name: dict[str, Run]) -> list[Run]:
    found: list[Run] = []
    at: Run | None = run
    while at is not None and at.manifest is not None and at.manifest.parent is not None:
        at = by_name.get(at.manifest.parent.key)
        if at is None or at in found:
            break
        found.append(at)
    return found
