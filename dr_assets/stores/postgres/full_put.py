"""Putting full segments: one after the other, each read back and listed before the next.

What belongs here: the order of one full's steps, and what another roller did first. What stays out: which micros
(rollup.py) and where they are cut (full_cut.py).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.full_cut import FullDraft
from dr_assets.vault.believed import believed
from dr_assets.vault.format import canonical
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.full_segment import (
    FULL,
    FULL_LIST,
    MICRO_KEYS,
    FullList,
    continued_by,
    continues,
)
from dr_assets.vault.inventory import digest_of
from dr_assets.vault.vault import StoredObject, Vault

WAL_KIND: Final = "wal"


@dataclass(frozen=True, slots=True)
class Stream:
    """One server's WAL on one timeline."""

    dataset: str
    system_id: str
    timeline: int


@dataclass(slots=True)
class StreamRoll:
    """What a run did for one stream. `rolled_to` is where its newest full ends, None without any.

    `trouble` is why it could not go on to what is acknowledged.
    """

    stream: Stream
    fulls: int = 0
    micros: int = 0
    lists: int = 0
    size_bytes: int = 0
    rolled_to: int | None = None
    newest: ObjectKey | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class FullStored:
    """A full segment with its list is in the vault."""

    stream: Stream
    rolled_to: int
    micros: int
    size_bytes: int


Listener = Callable[[FullStored], None]


@dataclass(frozen=True, slots=True)
class FullEnd:
    """The end of a chain of fulls: the digest of the last one's header, and of the last micro's that it holds."""

    position: int
    header: str
    joint: str


class OvertakenError(Exception):
    """Another roller has put a full where ours would begin, and it ends elsewhere."""


class Committer:
    """Seals and puts drafts in order on a thread of its own, while the next one is gathered; one waits at most."""

    def __init__(self, vault: Vault, stream: Stream, roll: StreamRoll, listener: Listener | None) -> None:
        self._vault = vault
        self._stream = stream
        self._roll = roll
        self._listener = listener
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: Future[None] | None = None
        self._end: FullEnd | None = None
        self._epoch = 0

    def begin(self, pool: ThreadPoolExecutor, end: FullEnd | None, epoch: int) -> None:
        """What the first draft continues: `end`, or nothing where a chain begins."""
        self._pool, self._end, self._epoch = pool, end, epoch

    def give(self, draft: FullDraft) -> None:
        """The next draft. Raises what became of the one before: VaultError, OvertakenError."""
        self.finish()
        assert self._pool is not None  # noqa: S101 - for the type checker: `begin` comes first
        self._under_way = self._pool.submit(self._commit, draft)

    def finish(self) -> None:
        """Wait for what is under way. Raises as `give`."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    # -- one full -----------------------------------------------------------------------------------------------

    def _commit(self, draft: FullDraft) -> None:
        """Put and read back, then the list, then tell."""
        first, last = draft.ends
        found = self._put_by_another(draft)
        key, header = self._put(draft) if found is None else found
        if found is None or not self.has_list(header):
            self._put_list(draft, key, header)
        self._end = FullEnd(last.last, header.digest, last.digest)
        size_bytes = last.last - first.first
        self._roll.rolled_to, self._roll.newest = last.last, key
        if found is None:
            self._roll.fulls += 1
            self._roll.micros += len(draft.covered)
            self._roll.size_bytes += size_bytes
            if self._listener is not None:
                self._listener(FullStored(self._stream, last.last, len(draft.covered), size_bytes))

    def _put_by_another(self, draft: FullDraft) -> tuple[ObjectKey, Header] | None:
        """The full of another roller at our place. Raises OvertakenError when it is cut elsewhere.

        One of the same ends that holds other bytes or names other micros is none of an honest roller: ours is put
        beside it, and that is told as trouble.
        """
        first, last = draft.ends
        for obj in self._listed(FULL, first.first):
            if obj.key.first != first.first:
                return None
            header = believed(self._vault.header, obj)
            if header is None or continues(header) != first.previous:
                continue
            if header.last != last.last or continued_by(header) != last.digest:
                raise OvertakenError(str(obj.key))
            if draft.makes(header):
                return obj.key, header
            self._roll.trouble = f"rollup.contested: {obj.key} holds other bytes than its micro-segments do"
        return None

    def _put(self, draft: FullDraft) -> tuple[ObjectKey, Header]:
        first, last = draft.ends
        prepared = self._vault.prepare(
            dataset=self._stream.dataset,
            stream=FULL,
            kind=WAL_KIND,
            system_id=self._stream.system_id,
            timeline=self._stream.timeline,
            first=first.first,
            last=last.last,
            begin_at=first.begin_at,
            end_at=max(first.begin_at, last.end_at),
            plaintext=draft.take(),
            previous=None if self._end is None else self._end.header,
            writer_epoch=self._epoch,
            extra=draft.extra(),
        )
        locks, clock = self._vault.locks, self._vault.clock
        receipt = self._vault.put(prepared.seal(), locks.lock(self._stream.dataset, WAL_KIND, clock()))
        return receipt.key, prepared.header

    # -- lists --------------------------------------------------------------------------------------------------

    def has_list(self, header: Header) -> bool:
        """Whether a list of what this full holds is there, by name: the same range is the same micros."""
        for obj in self._listed(FULL_LIST, header.first):
            if (obj.key.first, obj.key.last) == (header.first, header.last):
                return True
            if obj.key.first != header.first:
                return False
        return False

    def put_missing_list(self, key: ObjectKey, header: Header, draft: FullDraft) -> None:
        """The list that a kill left unwritten, if these are the micros. Raises VaultError `rollup.no_list`."""
        if digest_of(str(row.key) for row in draft.covered) != header.extra.get(MICRO_KEYS):
            raise VaultError(
                "rollup.no_list",
                f"{key} has no list, and the micro-segments that lie there now are not those it was made of",
                "run `dr-assets vault verify`; the full segment itself can be restored from",
            )
        self._put_list(draft, key, header)

    def _put_list(self, draft: FullDraft, key: ObjectKey, header: Header) -> None:
        body = FullList(key, header.digest, tuple(draft.covered)).to_json()
        prepared = self._vault.prepare(
            dataset=self._stream.dataset,
            stream=FULL_LIST,
            kind="manifest",
            system_id=self._stream.system_id,
            timeline=self._stream.timeline,
            first=header.first,
            last=header.last,
            begin_at=header.begin_at,
            end_at=header.end_at,
            plaintext=canonical.encode(body),
            writer_epoch=header.writer_epoch,
        )
        lock = self._vault.locks.lock(self._stream.dataset, "manifest", self._vault.clock())
        self._vault.put(prepared.seal(), lock)
        self._roll.lists += 1

    def _listed(self, stream: str, position: int) -> list[StoredObject]:
        """Those of one kind at this position and the first beyond it, and no more: whoever looks stops there."""
        found: list[StoredObject] = []
        for obj in self._vault.objects(
            self._stream.dataset, stream, system_id=self._stream.system_id, timeline=self._stream.timeline,
            start_after_position=position,
        ):  # fmt: skip
            found.append(obj)
            if obj.key.first > position:
                break
        return found
