"""Following the vault: what was stored since, in order, into a sandbox's WAL.

What belongs here: finding the pieces that go on from where the sandbox's WAL ends, cheaply where names leave no choice,
by the rules of a restore where they do. What stays out: writing (in_place.py), what happens when nothing leads on
(prover.py).

Most looks list what lies behind the last position and find one piece that begins there. Now and then, and whenever that
doesn't lead on, the whole way is asked for as a restore would: timelines, full segments in place of micro-segments,
forks, holes. So whatever would keep a restore from the end of the WAL is an error here as well.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.proving.prover.in_place import InPlaceWal
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.clip import require_whole
from dr_assets.stores.postgres.course import Course, find_course
from dr_assets.stores.postgres.fetch import opened_in_order, opened_wal
from dr_assets.stores.postgres.history import Leg
from dr_assets.stores.postgres.lineage import Way, find_way, require_current
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import stored_along
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault

LOOK_EVERY_S: Final = 15.0
# Puts run side by side: a piece may be there before the one that it follows.
_HOLE_PATIENCE_S: Final = 3.0
# What is written before anybody is told how far the replay is: behind by hours, it still says so every second or two.
_AT_ONCE_PIECES: Final = 64
_AT_ONCE_BYTES: Final = 32 << 20


class Follower:
    """Brings one sandbox's WAL to the vault's end. Not for several threads at once.

    `is_behind` while the last pull left something that it had seen: there is no need to wait for more.
    """

    def __init__(
        self,
        vault: Vault,
        manifest: BaseManifest,
        wal: InPlaceWal,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.look_every_s = LOOK_EVERY_S
        self.is_behind = False
        self._vault = vault
        self._manifest = manifest
        self._wal = wal
        self._monotonic = monotonic
        self._looked_s = float("-inf")
        self._hole_since_s: float | None = None
        self._is_looking = False  # a look found more than it wrote
        self._end: int | None = None  # where the source has left the timeline that is followed

    def pull(self) -> int:
        """Write what is stored and leads on, not all of it at once if that is much; how many bytes that was.

        Raises VaultError: STORE_AWAY's codes while the store is away, `restore.hole`, `wal.chain_broken`,
        `wal.diverged`, `wal.damaged`, `wal.abandoned` and what opening a damaged piece raises; PolicyError when the
        source lives on elsewhere (`restore.newer_timeline` and the like), `prover.tablespace_created`.
        """
        now_s, written = self._monotonic(), 0
        due = now_s - self._looked_s >= self.look_every_s
        pieces, has_more = self._next()
        self.is_behind = len(pieces) == _AT_ONCE_PIECES
        if pieces and self._end is None:
            self._hole_since_s = None
            try:
                written = self._written(pieces)
            except VaultError as error:
                if error.code in STORE_AWAY:
                    raise
                # Perhaps another piece leads on, or a full segment holds what is damaged here: the long look tells.
            else:
                if not due:  # a source that never rests must not keep off the long look
                    return written
        elif has_more:
            self._hole_since_s = self._hole_since_s or now_s
        gaping = self._hole_since_s is not None and now_s - self._hole_since_s >= _HOLE_PATIENCE_S
        if not (due or gaping or pieces or self._is_looking):
            return 0
        self._looked_s, self._hole_since_s = now_s, None
        return written + self._look()

    def _next(self) -> tuple[list[StoredObject], bool]:
        """The pieces that continue one another from here by name alone, and whether there is anything else."""
        position = self._wal.position
        listed = list(
            islice(
                self._vault.objects(
                    self._manifest.dataset, WAL, system_id=self._manifest.system_id, timeline=self._wal.timeline,
                    start_after_position=position,
                ),
                _AT_ONCE_PIECES,
            )
        )  # fmt: skip
        found: list[StoredObject] = []
        at = position
        while len(here := [obj for obj in listed if obj.key.first == at]) == 1:
            found += here
            at = here[0].key.last
        return found, len(listed) > len(found)

    def _written(self, pieces: Sequence[StoredObject]) -> int:
        now = _at_once(pieces)
        self.is_behind = self.is_behind or len(now) < len(pieces)
        return sum(self._wal.write(piece) for piece in opened_in_order(self._vault, now))

    def _look(self) -> int:
        """The whole way on, by a restore's rules; what is wrong with its end matters once its begin is written."""
        vault, manifest, wal = self._vault, self._manifest, self._wal
        way = find_way(vault, manifest.dataset, manifest)
        legs, begin = self._legs(way)
        # Before the listing, so that what it speaks of must be in that.
        anchor = latest_anchor(vault, manifest.dataset)
        course = find_course(vault, manifest.dataset, manifest.system_id, legs, begin)
        written = 0
        ahead = self._ahead(course)
        now = _at_once(ahead)
        for piece in opened_wal(vault, now):
            if piece.header.timeline != wal.timeline:
                wal.switch(piece.header.timeline, way.histories[piece.header.timeline].text)
            written += wal.write(piece, end=course.ends.get(piece.header.timeline))
        self._end = next((leg.end for leg in way.legs if leg.timeline == wal.timeline), None)
        self._is_looking = self.is_behind = len(now) < len(ahead)
        if self._is_looking:
            return written
        if course.broken is not None:
            raise course.broken
        require_whole(vault, course.chain, stored_along(anchor, manifest, way))
        require_current(manifest, course.chain, anchor, way)
        return written

    def _legs(self, way: Way) -> tuple[tuple[Leg, ...], int]:
        """The timelines still to be gone along, and from where on they are asked for.

        One byte before the end of what is written, so that the piece which ends there is seen too: of two that do, only
        the one that leads on is the source's.
        """
        position = self._wal.position
        index = next((at for at, leg in enumerate(way.legs) if leg.timeline == self._wal.timeline), None)
        own = None if index is None else way.legs[index]
        if own is None or index is None or (own.end is not None and position > own.end):
            where = "" if own is None or own.end is None else f" at {format_lsn(own.end)}"
            raise VaultError(
                "wal.abandoned",
                f"the source has left timeline {self._wal.timeline}{where}, and the sandbox has replayed that timeline "
                f"up to {format_lsn(position)}",
                "nothing is lost: the prover begins anew from the newest base backup and follows the newer timeline",
            )
        if own.end is not None and position == own.end and way.legs[index + 1 :]:
            return way.legs[index + 1 :], position
        return way.legs[index:], position - 1

    def _ahead(self, course: Course) -> list[StoredObject]:
        position, timeline = self._wal.position, self._wal.timeline
        return [obj for obj in course.chain.segments if obj.key.timeline != timeline or obj.key.last >= position]


def _at_once(pieces: Sequence[StoredObject]) -> Sequence[StoredObject]:
    """The first of them, one at least."""
    count = size_bytes = 0
    for piece in pieces[:_AT_ONCE_PIECES]:
        size_bytes += piece.key.last - piece.key.first
        if count and size_bytes > _AT_ONCE_BYTES:
            break
        count += 1
    return pieces[:count]
