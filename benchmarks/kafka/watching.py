"""Watching, from outside, when records that were produced are locked in the vault.

What belongs here: seeing packs appear in the bucket, and the lag that follows. What stays out: producing, capturing.

A pack is in the listing once its put, which carries the lock, was taken; the capture reads it back after that, so what
it acknowledges is later by that: its own report's figure is in the row's note.
"""

import bisect
import threading
import time
from collections.abc import Sequence
from typing import Final, Self

from benchmarks.kafka.place import DATASET, Place
from dr_assets.stores.kafka.pack import open_pack
from dr_assets.vault.format.keys import PACKS, prefix_of

_EVERY_S: Final = 0.025


class PackWatch:
    """Lists a place's packs in a thread, from entering until leaving, and notes when each was first seen."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seen: dict[str, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        vault, store = self._place.vault(), self._place.store()
        prefix, last = prefix_of(vault.estate, DATASET, PACKS, None, None), ""
        while not self._done.wait(_EVERY_S):
            answer = store.client.list_objects_v2(Bucket=store.bucket, Prefix=prefix, StartAfter=last)
            now_s = time.monotonic()
            for found in answer.get("Contents", ()):
                # Puts go in parallel: one may appear after a later one, so only what is certain is skipped next time.
                self._seen.setdefault(found["Key"], now_s)
            ordered = sorted(self._seen)
            last = ordered[-50] if len(ordered) > 50 else ""  # noqa: PLR2004 - far more than are ever in flight

    def stored(self) -> list[tuple[int, float]]:
        """(offset behind the newest record, instant) for each pack of the one partition, both rising.

        An offset counts from when its pack and all packs before it were seen.
        """
        vault = self._place.vault()
        ends: list[tuple[int, float]] = []
        seen_s = 0.0
        for obj in vault.objects(DATASET, PACKS):
            seen_s = max(seen_s, self._seen.get(str(obj.key), float("inf")))
            ends += [(each.next, seen_s) for each in open_pack(vault, obj).index.slices]
        return sorted(ends)


def lags_s(made: Sequence[tuple[float, int]], stored: Sequence[tuple[int, float]]) -> list[float]:
    """For each record (made at, offset), how long until it was stored. Raises SystemExit if one never was."""
    ends = [end for end, _ in stored]
    lags = []
    for at_s, offset in made:
        found = bisect.bisect_right(ends, offset)
        if found == len(ends) or stored[found][1] == float("inf"):
            raise SystemExit(f"offset {offset} was produced and never seen in the vault")
        lags.append(stored[found][1] - at_s)
    return lags
