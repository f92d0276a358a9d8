"""The middle of a run: everything that is to be copied, from the source into parts, and noted once it is stored.

What belongs here: moving records from the fetcher to the packer, counting what came of each. What stays out: what is to
be copied, and what becomes of the run (copy.py).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dr_assets.stores.bucket.fetching import Fetched, Fetcher, Piece, Reader
from dr_assets.stores.bucket.index import Index, Todo
from dr_assets.stores.bucket.inventory import Row, Spot
from dr_assets.stores.bucket.packing import Packer

_LOOSE: int = 500


@dataclass(slots=True)
class Counts:
    """What came of the versions that were to be copied. `unassigned` are copied too, and nobody's by the rule.

    `replaced` were overwritten meanwhile in a bucket without versions: what is there now was copied.
    """

    copied: int = 0
    copied_bytes: int = 0
    markers: int = 0
    vanished: int = 0
    replaced: int = 0
    withheld: int = 0
    unread: int = 0
    unassigned: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """How many were seen to."""
        return self.copied + self.markers + self.vanished + self.withheld + self.unread


@dataclass(slots=True)
class Copying:
    """One run's copying under way; one thread goes through it."""

    index: Index
    packer: Packer
    reader: Reader
    snapshot_id: str
    tell: Callable[[Counts], None]
    counts: Counts = field(default_factory=Counts)
    _pieces: dict[bytes, list[Spot]] = field(default_factory=dict)
    _loose: list[Row] = field(default_factory=list)

    def versions(self) -> None:
        """Every version that is to be copied. Raises SourceError, VaultError."""
        with Fetcher(self.reader) as fetcher:
            for result in fetcher.results(self.index.todo(markers=False)):
                if isinstance(result, Piece):
                    key = _key(result.todo)
                    self._pieces.setdefault(key, []).append(self.packer.add(result.sealed))
                else:
                    self._take(result)
                fetcher.done_with(result)
                self._note()

    def markers(self) -> None:
        """Every delete marker, behind the versions: whose it is, the versions of its name may have to tell."""
        if not self.reader.whose.is_by_name:
            self._note(all_of_it=True)
        for todo in self.index.todo(markers=True):
            by_name = self.reader.whose.of(todo.row.name, {}, {}) if self.reader.whose.is_by_name else None
            row, sealed = self.reader.marker(todo, by_name or self.index.subject_of(todo.name_id))
            self.counts.markers += 1
            self._keep(row, sealed)
            self._note()

    def finish(self) -> None:
        """Wait until all of it is stored, and noted."""
        self._note(all_of_it=True)

    def _take(self, result: Fetched) -> None:
        counts, row = self.counts, result.row
        spots = tuple(self._pieces.pop(_key(result.todo), ()))
        match result.outcome:
            case "vanished":
                counts.vanished += 1
            case "unread":
                counts.unread += 1
                counts.reasons[result.why] += 1
            case "withheld":
                counts.withheld += 1
                if row is not None:
                    self._loose.append(row)
            case "copied":
                assert row is not None  # noqa: S101 - for the type checker: what is copied has a row
                counts.copied += 1
                counts.copied_bytes += row.size_bytes
                counts.replaced += result.is_replaced
                counts.unassigned += row.subject_id is None and self.reader.whose.rule.kind != "none"
                pieces = spots[-result.pieces :] if result.pieces else ()  # of an attempt before, more may lie there
                self._keep(replace(row, pieces=pieces), result.sealed)
        self.tell(counts)

    def _keep(self, row: Row, sealed: bytes) -> None:
        if not sealed:
            self._loose.append(row)
            return
        row = replace(row, head=self.packer.add(sealed))
        self.packer.note(row)

    def _note(self, *, all_of_it: bool = False) -> None:
        for stored in self.packer.stored(all_of_them=all_of_it):
            self.index.learn(stored.rows, fresh=True, parts=[(stored.part, stored.plain_bytes, self.snapshot_id)])
        if len(self._loose) >= _LOOSE or (all_of_it and self._loose):
            self.index.learn(self._loose, fresh=True)
            self._loose.clear()


def _key(todo: Todo) -> bytes:
    """A document under way: pieces of several may come in turns."""
    return todo.name_id + todo.version.encode("utf-8")
