"""Restoring a bucket: every document out of its part, opened with its person's key, put, read back, counted.

What belongs here: the order, many at a time, going on after a kill, what is left out. What stays out: choosing
(plan.py), requests to the target (target.py).

Versions of a name go in order: first every name's oldest, then every name's next. Who is erased is left out, counted
and never opened, whatever keys are at hand; and who is erased while the restore is under way, at its end.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.stores.bucket.document import Head
from dr_assets.stores.bucket.listing import listing
from dr_assets.stores.bucket.manifest import Tally
from dr_assets.stores.bucket.opening import Document, Documents
from dr_assets.stores.bucket.picked import DONE, ERASED, LEFT_OUT, Pick
from dr_assets.stores.bucket.plan import RestorePlan
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place
from dr_assets.stores.bucket.target import Target, Throttle
from dr_assets.vault.subjects.erased import ErasureList

WORKERS: Final = 12
_BATCH: Final = 256  # rows whose outcome may be unknown after a kill
_LARGE_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is."""

    done: int
    total: int
    done_bytes: int


@dataclass(slots=True)
class Restored:
    """What came back, over all attempts. `target` is what a listing of the target then showed.

    `left_out` are names outside a prefix that ends within a name, and markers whose names nobody knows any more.
    `erased_people` are subject ids; `erased_meanwhile` those of them who were erased after the restore had begun, whose
    documents were removed again.
    """

    plan: RestorePlan
    restored: Tally
    erased: Tally
    erased_people: tuple[str, ...]
    erased_meanwhile: tuple[str, ...]
    left_out: int
    target: Tally
    duration_s: float
    put_bytes: int

    @property
    def mb_s(self) -> float:
        """Of documents, in units of 10^6 bytes, in this attempt."""
        return self.put_bytes / self.duration_s / 1e6 if self.duration_s else 0.0


def restore(
    plan: RestorePlan,
    site: Site,
    into: Place,
    *,
    overwrite: bool = False,
    bytes_a_s: float | None = None,
    erasures_now: Callable[[], ErasureList] | None = None,
    progress: Callable[[RestoreProgress], None] | None = None,
    workers: int = WORKERS,
) -> Restored:
    """Carry the plan out into a bucket that is empty (below the wanted prefix), unless told to `overwrite`.

    May be killed anywhere and run again with the same plan. `erasures_now` reads the erasure list once more at the end.
    Raises PolicyError `restore.not_empty`, `restore.no_versions`; SourceError `restore.not_equal`,
    `restore.not_reconciled`, `bucket.unreachable`; VaultError for whatever is missing, damaged or disagrees.
    """
    begin_s = time.monotonic()
    target = Target(into, Throttle(bytes_a_s))
    with site.alone("restore"), plan.picked as picked:
        is_begun = picked.meta("begun") == plan.identity
        all_versions = plan.wanted.versions == "all"
        target.require_ready(plan.wanted.prefix, all_versions=all_versions, overwrite=overwrite or is_begun)
        picked.set_meta("overwrite", picked.meta("overwrite") or str(int(overwrite and not target.is_empty())))
        picked.set_meta("begun", plan.identity)
        work = _Restore(plan, site, target, progress or (lambda _: None), workers)
        work.run()
        meanwhile = work.forget_erased(plan.erasures if erasures_now is None else erasures_now())
        restored = Restored(
            plan=plan,
            restored=picked.tally(DONE),
            erased=picked.tally(ERASED),
            erased_people=tuple(picked.erased_people()),
            erased_meanwhile=meanwhile,
            left_out=sum(_rows(picked.tally(LEFT_OUT))),
            target=target.tally(plan.wanted.prefix),
            duration_s=time.monotonic() - begin_s,
            put_bytes=work.put_bytes,
        )
        _require_reconciled(restored, picked.current(), is_alone=picked.meta("overwrite") == "0")
        picked.remove()
    return restored


def _rows(tally: Tally) -> tuple[int, int]:
    return tally.versions, tally.markers


def _require_reconciled(restored: Restored, current: Tally, *, is_alone: bool) -> None:
    """Every row has an outcome, and the target's own listing shows as many objects and bytes as were put."""
    plan, done = restored.plan, restored.restored
    rows = sum(_rows(plan.picked_tally)) - sum(_rows(done)) - sum(_rows(restored.erased)) - restored.left_out
    shown = restored.target
    differs = is_alone and (shown.versions, shown.size_bytes) != (current.versions, current.size_bytes)
    if rows or differs:
        raise SourceError(
            "restore.not_reconciled",
            f"{current.versions} current objects of {current.size_bytes} bytes were put, the target's listing shows "
            f"{shown.versions} of {shown.size_bytes}; {rows} versions have no outcome",
            "something else writes into the target, or it loses what it takes: restore into an empty bucket of its own",
        )


@dataclass(slots=True)
class _Restore:
    """One restore under way."""

    plan: RestorePlan
    site: Site
    target: Target
    tell: Callable[[RestoreProgress], None]
    workers: int
    put_bytes: int = 0
    _done: int = 0
    _documents: Documents = field(init=False)
    _abandoned: threading.Event = field(default_factory=threading.Event)
    _large: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_LARGE_AT_ONCE))

    def __post_init__(self) -> None:
        self._documents = Documents(self.site, self._abandoned)

    def run(self) -> None:
        """Every rank in turn, every part of it once."""
        picked = self.plan.picked
        total = sum(_rows(picked.tally()))
        self._done = sum(_rows(picked.tally(DONE, LEFT_OUT, ERASED)))
        with (
            ThreadPoolExecutor(self.workers, thread_name_prefix="put") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="open") as opener,
        ):
            try:
                for rank in range(picked.ranks()):
                    self._leave_out(picked.without_part(rank))
                    for picks, data in self._opened(opener, rank):
                        self._put_all(pool, picks, data, total)
            except BaseException:
                self._abandoned.set()
                raise

    def forget_erased(self, erasures: ErasureList) -> tuple[str, ...]:
        """Who was erased meanwhile: what this restore brought back of theirs is removed again, by any attempt of it.

        Their names are found in the target's own listing: without their key nothing else tells them.
        """
        picked = self.plan.picked
        picked.erase(who for who in picked.people() if who in erasures.people)
        brought = picked.brought_of_erased()
        if not brought:
            return ()
        names, place, gone = self.site.names, self.target.place, set[str]()
        for rows in listing(Place(place.client, place.bucket, self.plan.wanted.prefix)):
            for row in rows:
                theirs = [put.subject_id for put in brought.get(names.name_id(row.name), ()) if put.is_it(row)]
                if theirs:
                    self.target.remove(row.name, row.version_id)
                    gone.update(theirs)
        picked.removed(put.ord for puts in brought.values() for put in puts)
        return tuple(sorted(gone))

    def _leave_out(self, picks: Sequence[Pick]) -> None:
        self.plan.picked.end((one.ord, LEFT_OUT, "") for one in picks)
        self._done += len(picks)

    def _opened(self, opener: ThreadPoolExecutor, rank: int) -> Iterator[tuple[list[Pick], bytes]]:
        """Each part with its rows, the next one opened meanwhile."""
        ahead: tuple[list[Pick], Future[bytes]] | None = None
        for part, picks in self.plan.picked.by_part(rank):
            following = (picks, opener.submit(self._documents.part, part))
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = following
        if ahead is not None:
            yield ahead[0], ahead[1].result()

    def _put_all(self, pool: ThreadPoolExecutor, picks: list[Pick], data: bytes, total: int) -> None:
        picked = self.plan.picked
        for begin in range(0, len(picks), _BATCH):
            batch = picks[begin : begin + _BATCH]
            picked.begin_all(batch)
            futures = [pool.submit(self._put, one, data) for one in batch]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
                ended = [future.result() for future in futures if _is_well(future)]
                picked.end(one[:3] for one in ended)
            self._done += len(ended)
            self.put_bytes += sum(one[3] for one in ended)
            self.tell(RestoreProgress(self._done, total, self.put_bytes))

    def _put(self, pick: Pick, data: bytes) -> tuple[int, int, str, int]:
        """Row, the step it came to, version in the target, bytes."""
        document = self._documents.head(pick.row, data)
        if document is None:
            return pick.ord, ERASED, "", 0
        head = document.head
        if not head.name.startswith(self.plan.wanted.prefix):
            return pick.ord, LEFT_OUT, "", 0
        there = self._already(pick, head) if pick.begun else None
        version_id = self._bring(document) if there is None else there
        return pick.ord, DONE, version_id, 0 if there is not None else head.size_bytes

    def _already(self, pick: Pick, head: Head) -> str | None:
        """The version in the target, if an attempt that was killed has put it."""
        rows = self.target.rows_of(head.name)
        if self.plan.wanted.versions == "all":
            if len(rows) <= pick.rank:
                return None
            row = rows[pick.rank]
            same = row.is_marker if head.is_marker else not row.is_marker and self.target.holds(head, row.version_id)
            return row.version_id if same else None
        newest = rows[-1] if rows else None
        if newest is None or newest.is_marker or not self.target.holds(head, newest.version_id):
            return None
        return newest.version_id

    def _bring(self, document: Document) -> str:
        head = document.head
        if head.is_marker:
            return self.target.mark_deleted(head.name)
        if document.row.pieces:
            with self._large:
                return self.target.put_large(head, self._documents.pieces(document))
        return self.target.put(head, document.whole())


def _is_well(future: Future[tuple[int, int, str, int]]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
