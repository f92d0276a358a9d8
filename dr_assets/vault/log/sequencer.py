"""The sequencer: appends what is new in a vault to its log, batch by batch.

What belongs here: the order of the steps, and that there is one sequencer at a time. What stays out: what is worth a
leaf (feed.py), bytes (batch.py, tiles.py, checkpoint.py).

A batch is decided by whoever writes `batch/{base}` first. From then on tiles, entries and checkpoint follow from it
and from the tree before it, whoever makes them: so a sequencer that was killed anywhere is continued by the next one,
and two at once write the same bytes. The one that comes second to a name notices, and stops. A checkpoint is written
when all it speaks of was read back. It happens beside the capture; no acknowledgement waits for the log.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.batch import BATCH_LIMIT_BYTES, Batch, Mark, Names, parse_batch
from dr_assets.vault.log.checkpoint import Checkpoint, Signed, origin_of, sign_checkpoint
from dr_assets.vault.log.feed import Look, Said, look_for_new
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.merkle import EMPTY_ROOT
from dr_assets.vault.log.names import batch_name, checkpoint_name, tile_name
from dr_assets.vault.log.reader import LogReader, read_checkpoint
from dr_assets.vault.log.statement import make_leaf
from dr_assets.vault.log.tiles import WIDTH, TreeEdge, bundles
from dr_assets.vault.signing import Signer
from dr_assets.vault.vault import Vault

PAUSE: Final = timedelta(seconds=10)  # between batches, unless one was full
SWEEP_EVERY: Final = timedelta(days=1)
ATTEMPTS: Final = 16
WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What a run did. `lost` means that another sequencer is at work, `resumed` that a batch of another was ended.

    `names_total` counts the objects that the new leaves speak of; `caught_up` that the log knows all there was.
    """

    checkpoint: Checkpoint | None
    leaves: int = 0
    batches: int = 0
    names_total: int = 0
    passed_over: int = 0
    resumed: bool = False
    lost: bool = False
    caught_up: bool = False
    looked_at: datetime | None = None


@dataclass(slots=True)
class Head:
    """The tree as it is: its edge, the entries in its last bundle if that is partial, and the newest batch."""

    edge: TreeEdge
    held: list[bytes] = field(default_factory=list)
    signed: Signed | None = None
    last: Batch | None = None

    @property
    def root(self) -> bytes:
        """The root over all leaves."""
        return self.edge.root if self.edge.size else EMPTY_ROOT


class Sequencer:
    """Appends to one vault's log. Opening one asks the store nothing.

    Raises PolicyError `vault.read_only` for a vault without a signing key.
    """

    def __init__(self, vault: Vault, *, pause: timedelta = PAUSE, sweep_every: timedelta | None = SWEEP_EVERY) -> None:
        if vault.signer is None:
            raise PolicyError("vault.read_only", "this vault was opened without a signing key", "open it with signing")
        self.vault = vault
        self.origin = origin_of(vault.estate, vault.name)
        self.files = LogFiles(vault)
        self._signer: Signer = vault.signer
        self._pause = pause
        self._sweep_every = sweep_every

    def run(self) -> Sequenced:
        """Append everything that is new, in as many batches as it takes; end what another left unfinished first.

        Raises VaultError `log.*` when the log there is damaged or another vault's, and what the store raises.
        """
        head = self.resume()
        done = Sequenced(head.signed.checkpoint if head.signed else None)
        pending = self._pending(head)
        if pending is not None:
            self.apply(head, pending)
            done = _more(done, head, resumed=True)
        if head.last is not None and head.last.caught_up and not self._is_due(head.last):
            return _more(done, head, caught_up=True, looked_at=head.last.looked_at)
        while True:
            look, swept_at = self._look(head)
            done = _more(done, head, passed_over=look.passed_over, caught_up=look.caught_up, looked_at=look.at)
            if not look.said:
                return done
            batch = self.batch(head, look.said, look=look, swept_at=swept_at)
            if not self.claim(batch):
                return _more(done, head, lost=True, caught_up=False)
            self.apply(head, batch)
            done = _more(done, head, batch=batch, names_total=look.names_total)
            if look.caught_up:
                return done

    def resume(self) -> Head:
        """The tree of the newest checkpoint, its right edge read and held to the root.

        Raises VaultError `log.damaged`, `log.other_log`.
        """
        reader = LogReader.open(self.vault, files=self.files)
        if reader is None:
            return Head(TreeEdge(0, []))
        if reader.checkpoint.origin != self.origin:
            raise VaultError(
                "log.other_log",
                f"the log that lies here is {reader.checkpoint.origin}'s, this would be {self.origin}",
                "run the sequencer where that log is made: here lies a copy",
            )
        edge = reader.edge()
        return Head(edge, reader.edge_entries(), reader.signed, reader.last_batch())

    def _is_due(self, last: Batch) -> bool:
        return self.vault.store.now() >= last.looked_at + self._pause

    def _look(self, head: Head) -> tuple[Look, datetime | None]:
        """What is new since the last batch; once in a while compared with everything there is."""
        last = head.last
        if last is None:
            look = look_for_new(self.vault, {}, {})
            return look, look.at if look.caught_up else None
        look = look_for_new(self.vault, last.marks, last.closed)
        if not look.said or not self._wants_sweep(last):
            return look, last.swept_at
        reader = LogReader.open(self.vault, files=self.files)
        logged = reader.vouched() if reader else ()
        names = {hash(name) for vouched in logged for name in vouched.names}
        look = look_for_new(self.vault, last.marks, last.closed, known=lambda name: hash(name) in names)
        return look, look.at if look.caught_up else last.swept_at

    def _wants_sweep(self, last: Batch) -> bool:
        if self._sweep_every is None:
            return False
        return last.swept_at is None or self.vault.store.now() >= last.swept_at + self._sweep_every

    def batch(
        self,
        head: Head,
        said: Sequence[Said],
        *,
        look: Look,
        swept_at: datetime | None = None,
    ) -> Batch:
        """The batch that appends these statements to the tree, each signed."""
        lists = [
            Names(head.edge.size + at, one.names.place, one.names.tails)
            for at, one in enumerate(said)
            if one.names is not None
        ]
        return Batch(
            origin=self.origin,
            base=head.edge.size,
            base_root=head.root,
            looked_at=look.at,
            caught_up=look.caught_up,
            leaves=tuple(make_leaf(one.statement, self._signer) for one in said),
            lists=tuple(lists),
            marks={place: mark for place, mark in look.marks.items() if mark != Mark()},
            closed=look.closed,
            swept_at=swept_at,
        )

    def claim(self, batch: Batch) -> bool:
        """Decide that this batch comes next; False if another one was decided on before.

        What a stranger laid under the name is stepped over: every sequencer steps over the same.
        """
        data = batch.sealed(self._signer)
        for attempt in range(ATTEMPTS):
            name = batch_name(self.vault.estate, batch.base, attempt)
            try:
                self.files.put(name, data)
            except VaultError as error:
                if error.code != "vault.key_conflict":
                    raise
            decided = self._decided(name, batch.base, batch.base_root, ours=(data, batch))
            if decided is not None:
                return decided == batch
        raise VaultError(
            "log.squatted",
            f"{batch_name(self.vault.estate, batch.base, 0)} and {ATTEMPTS - 1} more hold what none of ours wrote",
            "see who may write there; once they are removed the log goes on",
        )

    def _decided(self, name: str, base: int, root: bytes, *, ours: tuple[bytes, Batch] | None = None) -> Batch | None:
        """The oldest batch under a name that one of ours made for this very tree; `ours` needs no parsing."""

        def believed(data: bytes) -> Batch:
            if ours is not None and data == ours[0]:
                return ours[1]
            found = parse_batch(data, self.vault.trust)
            if (found.origin, found.base, found.base_root) != (self.origin, base, root) or not found.leaves:
                raise VaultError("log.misplaced", f"{name} holds a batch for another tree", "it is passed over")
            return found

        return self.files.read(name, believed, limit_bytes=2 * BATCH_LIMIT_BYTES)

    def _pending(self, head: Head) -> Batch | None:
        """A batch that was decided on and has no checkpoint yet."""
        for attempt in range(ATTEMPTS):
            name = batch_name(self.vault.estate, head.edge.size, attempt)
            if not any(True for _ in self.vault.store.list_name(name)):
                return None
            found = self._decided(name, head.edge.size, head.root)
            if found is not None:
                return found
        return None

    def apply(self, head: Head, batch: Batch) -> None:
        """Write a decided batch's tiles and entries, then its checkpoint; `head` is the tree after it.

        Raises VaultError `log.squatted` when something else has one of the names.
        """
        files = {tile_name(self.vault.estate, tile): data for tile, data in head.edge.grow(batch.leaves).items()}
        rows = bundles(batch.base, batch.leaves, head.held)
        files |= {tile_name(self.vault.estate, tile): data for tile, data in rows.items()}
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="log-put") as pool:
            for _ in pool.map(lambda row: self._put_file(*row), files.items()):
                pass
        head.signed = self._put_checkpoint(Checkpoint(self.origin, head.edge.size, head.edge.root))
        partial = head.edge.size % WIDTH
        head.held = [*head.held, *batch.leaves][-partial:] if partial else []
        head.last = batch

    def _put_file(self, name: str, data: bytes) -> None:
        try:
            self.files.put(name, data)
        except VaultError as error:
            if error.code != "vault.key_conflict":
                raise
            # Somebody was there first. It only matters if our bytes are nowhere under the name.
            if self.files.read(name, _same(data), limit_bytes=len(data)) is None:
                raise squatted(name) from None

    def _put_checkpoint(self, checkpoint: Checkpoint) -> Signed:
        """Written once; that of another sequencer, signed by its own key, is as good."""
        signed, name = sign_checkpoint(checkpoint, self._signer), checkpoint_name(self.vault.estate, checkpoint.size)
        try:
            self.files.put(name, signed.note)
        except VaultError as error:
            if error.code != "vault.key_conflict":
                raise
        there = read_checkpoint(self.files, checkpoint.size, checkpoint.origin)
        if there is None:
            raise squatted(name)
        if there.checkpoint != checkpoint:
            raise VaultError(
                "log.forked",
                f"{name} is signed for another tree than this batch leads to",
                "keep everything, stop all sequencers and compare: two histories of one log were signed",
            )
        return there


def squatted(name: str) -> VaultError:
    """The error of a name of the log's that was taken before the log came to it."""
    return VaultError(
        "log.squatted",
        f"{name} holds what the log never wrote, and nothing else",
        "see who may write there; once that version is removed the log goes on, and nothing is lost meanwhile",
    )


def _same(data: bytes) -> Callable[[bytes], bool]:
    def accept(found: bytes) -> bool:
        if found != data:
            raise VaultError("log.misplaced", "other bytes", "they are passed over")
        return True

    return accept


def _more(done: Sequenced, head: Head, *, batch: Batch | None = None, **changed: Any) -> Sequenced:
    """`done` and one more step; what is counted is added up."""
    if batch is not None:
        changed |= {"leaves": len(batch.leaves), "batches": 1}
    counted = {name: getattr(done, name) + changed[name] for name in _COUNTED & changed.keys()}
    return replace(done, **{**changed, **counted, "checkpoint": head.signed.checkpoint if head.signed else None})


_COUNTED: Final = frozenset({"leaves", "batches", "names_total", "passed_over"})
