"""`python -m benchmarks.bucket_million`: a listing of a million versions, made up, against all that is real behind it.

Nobody here can store a million objects in the time there is. So the listing is made up and no document is read; the
index, the comparison, the inventory in the vault, the rebuilding of a lost index and a restore's plan are what runs.
"""

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.bucket_rig import Rig, peak_bytes
from dr_assets.stores.bucket import copy as copying
from dr_assets.stores.bucket.ground import begin_run
from dr_assets.stores.bucket.index import Index
from dr_assets.stores.bucket.inventory import Row, Spot
from dr_assets.stores.bucket.listing import Listed
from dr_assets.stores.bucket.packing import Packer
from dr_assets.stores.bucket.plan import Wanted, plan_restore
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place
from dr_assets.vault.subjects.erased import read_list

T0: Final = datetime(2026, 1, 1, tzinfo=UTC)
PAGE: Final = 1000


def made_up(count: int) -> Iterator[list[Listed]]:
    """Twenty documents a person."""
    for begin in range(0, count, PAGE):
        yield [
            Listed(f"kyc/p{number // 20:06d}/{number:07d}.pdf", f"v{number:024x}", "", T0, 5000, is_marker=False)
            for number in range(begin, min(count, begin + PAGE))
        ]


def learn(site: Site, count: int) -> None:
    """As if an interrupted run had copied everything: its rows are in the index, their part is in the vault."""
    lock = site.vault.locks.lock(site.name, "full", site.vault.clock())
    with Index(site.folder / f"{site.name}.copy.sqlite") as index:
        place = begin_run(site, index, site.vault.clock(), lock)
        with Packer(site.vault, place) as packer:
            packer.add(b"x" * 5000)
            (stored,) = packer.stored(all_of_them=True)
        index.note_parts([(stored.part, 5000, place.snapshot_id)])
        ids = site.whose.ids
        for rows in made_up(count):
            index.learn(
                (
                    Row(
                        site.names.name_id(one.name), one.version_id, int(T0.timestamp()) * 1_000_000, "version",
                        ids.of(one.name.split("/")[1]) if ids else None, one.size_bytes,
                        site.names.digest(one.version_id.rjust(64, "0"), "x"), site.names.folder_ids(one.name),
                        Spot(stored.part.key, 0, 5000),
                    )
                    for one in rows
                ),
                fresh=True,
            )  # fmt: skip


def main() -> None:
    """Each step with its time; the peak is the whole process's."""
    asked: dict[str, Any] = json.load(sys.stdin)
    rig, count = Rig(**asked["rig"]), int(asked["count"])
    site = rig.site()
    said: dict[str, Any] = {"rows": count}

    def listed(place: Place) -> Iterator[list[Listed]]:
        del place
        return made_up(count)

    setattr(copying, "listing", listed)  # noqa: B010 - the one thing that is made up
    learn(site, count)
    place = rig.bucket(rig.source_bucket)
    for name in ("full_s", "unchanged_s"):
        begin_s = time.monotonic()
        result = copying.copy(site, place)
        said[name] = time.monotonic() - begin_s
        said.setdefault("inventory_stored_bytes", result.stored_bytes)
        said["held"] = result.held.to_json()
    for path in Path(site.folder).glob("*.sqlite*"):
        said["index_bytes"] = said.get("index_bytes", 0) + path.stat().st_size
        path.unlink()
    begin_s = time.monotonic()
    copying.copy(site, place)
    said["unchanged_with_lost_index_s"] = time.monotonic() - begin_s
    one = None if site.whose.ids is None else site.whose.ids.of("p000007")
    for name, wanted in (("plan_all_s", Wanted()), ("plan_person_s", Wanted(person=one))):
        begin_s = time.monotonic()
        plan = plan_restore(site, wanted, read_list(site.vault))
        said[name] = time.monotonic() - begin_s
        said[name.replace("_s", "_rows")] = plan.picked_tally.versions
        plan.picked.remove()
    print(json.dumps(said | {"peak_bytes": peak_bytes()}))  # noqa: T201


main()
