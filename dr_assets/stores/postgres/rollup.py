"""Roll-up: micro-segments become full segments, so that a restore costs by bytes and not by objects.

What belongs here: one run of the `roller` over a dataset's streams. What stays out: where a full is cut (full_cut.py),
putting one (full_put.py), the locks of what waits (backlog.py), removing micros (expire.py).

Only what is acknowledged and contiguous is rolled up. A full is put and read back, then its list, then the next full;
so whatever the newest full of a stream is, all before it is whole, and a run may end anywhere. The same micros are cut
at the same places by every roller, so two at once, or one again, make no more than duplicates.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.capture_facts import CAPTURE, Anchor, anchor_of, latest_anchor
from dr_assets.stores.postgres.fetch import opened_in_order
from dr_assets.stores.postgres.full_cut import FullDraft, Limits
from dr_assets.stores.postgres.full_put import Committer, FullEnd, Listener, OvertakenError, Stream, StreamRoll
from dr_assets.stores.postgres.full_segments import stored_systems, stored_timelines
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.micro_window import MicroWindow
from dr_assets.vault.believed import believed
from dr_assets.vault.facts import facts
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.full_segment import FULL, continued_by, continues
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, parse_position
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.said import position_of

_CLAIMS_READ: Final = 64  # at most, where a full ends behind the newest fact: captures say more often how far they are
_CLAIMING_PIECES: Final = 8  # headers at a chain's end that are asked how far all was stored


def streams_of(vault: Vault, dataset: str) -> list[Stream]:
    """Every stream of which WAL is stored, by names alone."""
    return [
        Stream(dataset, system_id, timeline)
        for system_id in stored_systems(vault, dataset)
        for timeline in stored_timelines(vault, dataset, system_id)
    ]


def roll_streams(
    vault: Vault, dataset: str, *, limits: Limits | None = None, listener: Listener | None = None
) -> list[StreamRoll]:
    """Roll up whatever is due in every stream of the dataset; memory stays below a few fulls' size.

    A stream that can't go on says so in `trouble` and keeps no other from going on. Raises VaultError when the store
    can't be read or written.
    """
    latest = latest_anchor(vault, dataset)
    rolls = []
    for stream in streams_of(vault, dataset):
        closed = latest is not None and (latest.system_id, latest.timeline) != (stream.system_id, stream.timeline)
        rolls.append(_Roller(vault, stream, limits or Limits(), closed=closed, listener=listener).run())
    return rolls


@dataclass(slots=True)
class _Start:
    """Where the next full begins: behind `end`, or, where that is None, at the begin of a chain."""

    position: int
    end: FullEnd | None
    epoch: int


class _AccidentError(Exception):
    """Two pieces fit by position and not by link."""


class _Roller:
    """One run over one stream."""

    def __init__(
        self, vault: Vault, stream: Stream, limits: Limits, *, closed: bool, listener: Listener | None
    ) -> None:
        self._vault = vault
        self._stream = stream
        self._limits = limits
        self._closed = closed
        self._listener = listener
        self._roll = StreamRoll(stream)
        self._anchor: Anchor | None = None
        self._later: int | None = None

    def run(self) -> StreamRoll:
        """Until nothing more is due."""
        stream = self._stream
        self._anchor = anchor_of(self._vault, stream.dataset, stream.system_id, stream.timeline)
        try:
            start = self._start()
            while start is not None:
                start = self._along_chain(start)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            self._roll.trouble = f"{error.code}: {error.found}"
        return self._roll

    # -- where to begin ---------------------------------------------------------------------------------------------

    def _start(self) -> _Start | None:
        """Behind the newest full; where there is none, at the first chain's begin. None for a stream without WAL."""
        beyond: list[StoredObject] = []
        newest = newest_full(self._vault, self._stream, self._anchor, beyond)
        if beyond:
            self._roll.trouble = f"rollup.beyond: {beyond[0].key} ends beyond all that was ever stored, and is ignored"
        if newest is None:
            first = self._window(0).first()
            if first is None:
                return None
            return _Start(self._begin_from(first.key.first) or first.key.first, None, 1)
        obj, header = newest
        self._roll.rolled_to, self._roll.newest = header.last, obj.key
        self._finish_list(obj, header)
        end = FullEnd(header.last, header.digest, continued_by(header))
        return _Start(header.last, end, header.writer_epoch + 1)

    def _begin_from(self, position: int) -> int | None:
        """The lowest position not below this one where a capture said that a chain begins; None when none said so.

        All capture facts are read only where the newest one may not be the answer.
        """
        anchor = self._anchor
        if anchor is None or anchor.begin < position:
            return None
        first = self._window(position).first()
        if first is None or first.key.first >= anchor.begin:
            return anchor.begin
        bodies = (fact.body for fact in facts(self._vault, self._stream.dataset, CAPTURE))
        mine = (self._stream.system_id, self._stream.timeline)
        told = {
            position_of(body.get("begin")) for body in bodies if (body.get("system_id"), body.get("timeline")) == mine
        }
        return min((begin for begin in told if begin is not None and begin >= position), default=None)

    def _finish_list(self, obj: StoredObject, header: Header) -> None:
        """The newest full is all that a kill can have left without its list. What stops that stops nothing else."""
        committer = Committer(self._vault, self._stream, self._roll, self._listener)
        if committer.has_list(header):
            return
        window = self._window(header.first)
        chain = window.chain(header.first, continues(header), strict=True)
        covered = [piece for piece in chain if piece.key.last <= header.last]
        try:
            draft = self._gather(covered, continues(header), self._limits.without_end())
            committer.put_missing_list(obj.key, header, draft)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            self._roll.trouble = f"{error.code}: {error.found}"

    # -- along one chain --------------------------------------------------------------------------------------------

    def _along_chain(self, start: _Start) -> _Start | None:
        """Fulls from `start` on; where to go on when a new chain begins behind this one, or another roller was here."""
        window = self._window(start.position)
        position, joint = start.position, None if start.end is None else start.end.joint
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="full") as pool:
                committer = Committer(self._vault, self._stream, self._roll, self._listener)
                committer.begin(pool, start.end, start.epoch)
                while (draft := self._next(window, position, joint)) is not None:
                    committer.give(draft)
                    position, joint = draft.ends[1].last, draft.ends[1].digest
                    window.drop_below(position)
                committer.finish()
        except OvertakenError:
            return self._start()
        return None if self._later is None else _Start(self._later, None, start.epoch)

    def _next(self, window: MicroWindow, position: int, joint: str | None) -> FullDraft | None:
        """What the next full holds; None when it is not due yet. Raises VaultError for a piece that can't be opened."""
        for strict in (False, True):
            chain = window.chain(position, joint, strict=strict)
            usable = self._acknowledged(chain, window, position, joint, strict=strict)
            ours = chain if tuple(chain[: len(usable)]) == tuple(usable) else usable
            end = ours[-1].key.last if ours else position
            self._later = self._chain_behind(end) if window.is_whole else None
            closed = window.is_whole and (self._closed or self._later is not None)
            if not self._is_due(usable, window, closed=closed):
                return None
            try:
                return self._gather(usable[: self._limits.count_by_name([obj.key for obj in usable])], joint)
            except _AccidentError:
                continue
        raise VaultError(
            "rollup.broken", f"the chain breaks behind {format_lsn(position)}", "run `dr-assets vault verify`"
        )

    def _chain_behind(self, end: int) -> int | None:
        """Where the next chain begins when captures stored beyond the end of this one; trouble when none does."""
        anchor = self._anchor
        if anchor is None or anchor.stored <= end:
            return None
        later = self._begin_from(end + 1)
        if later is None:
            self._roll.trouble = (
                f"rollup.hole: the micro-segments end at {format_lsn(end)}, all up to {format_lsn(anchor.stored)} was "
                "stored once; run `dr-assets vault verify`"
            )
        return later

    def _acknowledged(
        self, chain: Sequence[StoredObject], window: MicroWindow, position: int, joint: str | None, *, strict: bool
    ) -> Sequence[StoredObject]:
        """The chain up to the position up to which captures said that all is stored: it can't leave that again.

        What reaches farther has no say in it: a dead writer's pieces, never acknowledged, may reach farther than those
        of the writer that went on from before them.
        """
        stored = 0 if self._anchor is None else self._anchor.stored
        for obj in chain[-_CLAIMING_PIECES:]:
            header = _believed(window.header, obj)
            if header is not None:
                stored = max(stored, parse_position(header.extra.get(ACKNOWLEDGED_TO, "")) or 0)
        if not chain or chain[-1].key.last <= stored:
            return chain
        return window.chain(position, joint, strict=strict, until=stored)

    def _is_due(self, usable: Sequence[StoredObject], window: MicroWindow, *, closed: bool) -> bool:
        if not usable:
            return False
        if closed or self._limits.count_by_name([obj.key for obj in usable]) < len(usable):
            return True
        return self._limits.is_over(window.header(usable[0]).begin_at, window.header(usable[-1]).end_at)

    def _gather(self, pieces: Sequence[StoredObject], joint: str | None, limits: Limits | None = None) -> FullDraft:
        """Open the pieces into one draft, as far as it takes them. Raises _AccidentError where two don't join."""
        draft = FullDraft(limits or self._limits)
        for piece, opened in zip(pieces, opened_in_order(self._vault, pieces), strict=False):
            if not draft.takes(opened.header):
                break
            if joint is not None and opened.header.previous != joint:
                raise _AccidentError(str(piece.key))
            draft.add(piece.key, opened)
            joint = opened.header.digest
        return draft

    def _window(self, position: int) -> MicroWindow:
        stream = self._stream
        return MicroWindow(self._vault, stream.dataset, stream.system_id, stream.timeline, position)


def newest_full(
    vault: Vault, stream: Stream, anchor: Anchor | None, beyond: list[StoredObject] | None = None
) -> tuple[StoredObject, Header] | None:
    """The full that reaches farthest and can be believed; all before it was whole when it was made.

    A chain that begins anew always begins behind the one before it, so the farthest is of the newest chain. One that
    ends beyond all that `anchor`, the stream's own, or a micro-segment behind it says was stored is made of nothing:
    it is passed over, and added to `beyond`.
    """
    best: tuple[StoredObject, Header] | None = None
    names = vault.objects(stream.dataset, FULL, system_id=stream.system_id, timeline=stream.timeline)
    for obj in sorted(names, key=lambda obj: (-obj.key.last, obj.key.digest)):
        if best is not None and obj.key.last < best[0].key.last:
            break
        header = _believed(vault.header, obj)
        if header is None or (best is not None and header.writer_epoch <= best[1].writer_epoch):
            continue
        if anchor is not None and obj.key.last > anchor.stored and not _is_claimed(vault, stream, anchor, obj.key.last):
            if beyond is not None:
                beyond.append(obj)
            continue
        best = obj, header
    return best


def _is_claimed(vault: Vault, stream: Stream, anchor: Anchor, position: int) -> bool:
    """Whether one of the last pieces behind an anchor says that all up to `position` was stored."""
    behind = vault.objects(
        stream.dataset, WAL, system_id=stream.system_id, timeline=stream.timeline, start_after_position=anchor.stored
    )
    for obj in reversed(deque(behind, maxlen=_CLAIMS_READ)):
        header = _believed(vault.header, obj)
        if header is not None and (parse_position(header.extra.get(ACKNOWLEDGED_TO, "")) or 0) >= position:
            return True
    return False


def _believed(header_of: Callable[[StoredObject], Header], obj: StoredObject) -> Header | None:
    """The header of a piece that says what continues it."""

    def read(asked: StoredObject) -> Header:
        header = header_of(asked)
        continued_by(header)
        return header

    return believed(read, obj)
