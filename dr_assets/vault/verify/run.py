"""A whole verification: list, examine in parallel with bounded memory, then relate.

What belongs here: the order of the steps. What stays out: the judgements.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST
from dr_assets.vault.format.keys import ObjectKey, fact_stream
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.retention.thawing import is_frozen
from dr_assets.vault.storage.bucket_settings import BucketSettings
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.bucket import bucket_findings, bucket_settings
from dr_assets.vault.verify.examine import Examined, examine
from dr_assets.vault.verify.glance import glance
from dr_assets.vault.verify.journal import Journal
from dr_assets.vault.verify.later import beside, on_top, split_at
from dr_assets.vault.verify.levels import FULL_DEPTH, Depth
from dr_assets.vault.verify.listing import folders_of, names_in, require_keys
from dr_assets.vault.verify.log_files import LogFilesJudge
from dr_assets.vault.verify.pool import in_order
from dr_assets.vault.verify.report import Finding, VerifyReport
from dr_assets.vault.verify.tally import Tally
from dr_assets.vault.verify.vouched import newest_log, vouched_findings
from dr_assets.vault.witness import Witness

# What accounts, later, for what is not there any more: fulls in place of micros, and what was removed on record.
_WORDS: Final = frozenset({EXPIRY_LIST, fact_stream(EXPIRY)})
WORKERS: Final = 4  # two cores are busy with four since half of the time is waiting
SAME_SECOND: Final = timedelta(seconds=1)  # stores tell their time, or that of a put, in whole seconds
GLANCERS: Final = 16  # a HEAD is nothing but waiting
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One name's turn: as it was at the moment, what came later, and what an earlier run found of it."""

    name: Name | None
    later: Name | None = None
    known: Examined | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    item: Examined | None = None
    account: Examined | None = None
    overlays: tuple[Finding, ...] = ()


def verify(
    vault: Vault,
    dataset: str | None = None,
    *,
    depth: Depth = FULL_DEPTH,
    as_of: datetime | None = None,
    witness: Witness | None = None,
    state: Path | None = None,
    settings_before: BucketSettings | None = None,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> VerifyReport:
    """Look at every object of the estate (or of one dataset), as deep as `depth` says, and at what they say of others.

    `as_of` judges the vault as it was then by the store's clock, by what of then is still there, and names what was put
    on top or beside it since and is not ours; what has expired since is not missed where a later full segment holds it
    or an expiry list names it. What `witness` knows must be there. `state` is a file in which whoever was killed finds
    what was judged already; it is gone when the end is reached. `settings_before` are the bucket's settings as an
    earlier verification saw them. `progress` is called with the number of names examined, their total (for which they
    are listed twice) and the bytes read.

    Raises VaultError when the store can't be read, and `vault.wrong_key` when no key at all can be unwrapped: then
    nothing can be said about anything. Raises PolicyError `verify.other_state`, `verify.bad_state`.
    """
    begin_s = time.monotonic()
    vault = vault.anew()
    log = newest_log(vault, as_of)  # before anything is listed: what it vouches for was there to be seen
    run = _Run(vault, as_of or vault.clock(), as_of, vault.store.now() + SAME_SECOND, depth)
    direct, folders = folders_of(vault, dataset, None)
    require_keys(vault, folders, as_of)
    settings = bucket_settings(vault.store)
    total = sum(1 for _ in names_in(vault, direct, folders, None)) if progress else 0
    subject = _subject(vault, dataset, as_of, depth)
    with nullcontext() if state is None else Journal(state, subject, vault.clock()) as journal:
        run.go(names_in(vault, direct, folders, None), journal, workers, progress, total)
        findings = {
            *run.log.against(witness.checkpoints.values() if witness else ()),
            *run.tally.judge(witness, vault.estate, dataset),
            *vouched_findings(vault, dataset, log, run.tally),
            *bucket_findings(settings, settings_before),
        }
        if journal is not None:
            journal.finished()
    return VerifyReport(
        findings=tuple(sorted(findings, key=lambda finding: (finding.severity, finding))),
        objects_total=run.tally.objects_total,
        objects_locked=run.tally.objects_locked,
        size_bytes=run.tally.size_bytes,
        duration_s=time.monotonic() - begin_s,
        witness=Witness.of(run.tally.newest.values(), run.log.checkpoints()),
        level=depth.level,
        read_bytes=run.tally.read_bytes,
        plaintext_bytes=run.tally.plaintext_bytes,
        recalled_total=run.recalled_total,
        settings=settings,
    )


@dataclass(slots=True)
class _Run:
    """One verification under way.

    Without a moment to judge, what is put while it goes on is the next one's to judge: places are listed one after the
    other, over hours, and what is listed late would speak of what was not there yet when its own place was.
    """

    vault: Vault
    moment: datetime
    as_of: datetime | None
    until: datetime
    depth: Depth
    recalled_total: int = 0
    tally: Tally = field(init=False)
    log: LogFilesJudge = field(init=False)

    def __post_init__(self) -> None:
        self.log = LogFilesJudge(self.vault, self.moment)
        self.tally = Tally(self.vault.locks, self.moment, by_names=not self.depth.reads_all)

    def go(
        self, names: Iterator[Name], journal: Journal | None, workers: int, progress: Progress | None, total: int
    ) -> None:
        """Examine and tally every name."""
        many = workers if self.depth.reads_all else max(workers, GLANCERS)
        asked = self._asked(names, journal)
        for done, (turn, told) in enumerate(in_order(asked, self._tell, self._size_of, many), start=1):
            self.tally.findings += told.overlays
            if told.account is not None:
                self.tally.account_for(told.account)
            if told.item is not None:
                self.tally.add(told.item)
                # What was recalled stands in the file already.
                if journal is not None and turn.known is None and turn.name is not None and told.item.read_bytes:
                    journal.note(turn.name, told.item)
            if progress is not None:
                progress(done, max(done, total), self.tally.read_bytes)

    def _asked(self, names: Iterator[Name], journal: Journal | None) -> Iterator[_Asked]:
        for each in names:
            name, later = split_at(each, self.as_of or self.until)
            if self.as_of is None:
                if name is None:
                    continue
                later = None
            known = None if journal is None or name is None else journal.recall(self.vault, name, self.moment)
            self.recalled_total += known is not None
            yield _Asked(name, later, known)

    def _tell(self, turn: _Asked) -> _Told:
        named = turn.name or turn.later
        logged = None if named is None else self.log.judge(named)
        if logged is not None:
            later = on_top(turn.later) if turn.name is not None and turn.later is not None else ()
            return _Told(overlays=(*logged, *later))
        if turn.name is not None:
            overlays = () if turn.later is None else tuple(on_top(turn.later))
            return _Told(item=turn.known or self._examined(turn.name), overlays=overlays)
        assert turn.later is not None  # noqa: S101 - for the type checker: one of the two is there
        overlays = tuple(beside(self.vault, turn.later))
        key = turn.later.key
        if key is None or not turn.later.versions or any(found.kind == "lookalike" for found in overlays):
            return _Told(overlays=overlays)
        if key.stream in _WORDS:
            return _Told(account=examine(self.vault, turn.later, self.vault.clock()), overlays=overlays)
        return _Told(account=_full(self.vault, turn.later, key) if key.stream == FULL else None, overlays=overlays)

    def _examined(self, name: Name) -> Examined:
        if name.key is not None and is_frozen(self.vault, name):
            glanced = glance(self.vault, name, name.key, self.moment)
            if glanced is not None:
                told = Finding("cold", name.text, None, "lies in a cold class: the store's word for it, not its bytes")
                return replace(glanced, findings=(*glanced.findings, told))
        if name.key is not None and name.versions and not self.depth.reads(name.key):
            glanced = glance(self.vault, name, name.key, self.moment)
            if glanced is not None:
                return glanced
        return examine(self.vault, name, self.moment)

    def _size_of(self, turn: _Asked) -> int:
        """What it takes to hold the largest of its versions, which is read whole."""
        if turn.known is not None or turn.name is None or turn.name.key is None:
            return 0
        if not self.depth.reads(turn.name.key):
            return 0
        return max((row.size_bytes for row in turn.name.versions), default=0)


def _full(vault: Vault, later: Name, key: ObjectKey) -> Examined:
    """A full segment of which only the header matters: it covers positions of micro-segments that have expired."""
    version = later.versions[0]
    obj = StoredObject(key, version.version_id, version.size_bytes, version.modified_at)
    return Examined(later.text, key, (), obj, vault.header(obj))


def _subject(vault: Vault, dataset: str | None, as_of: datetime | None, depth: Depth) -> str:
    """What a state file belongs to; signers and rules are in it since a verdict rests on them.

    Share and seed only where they choose what is read: a full verification that was killed goes on the next day, too.
    """
    trusted = hashlib.sha256("".join(sorted(vault.trust.public_keys)).encode()).hexdigest()[:16]
    place = getattr(vault.store, "endpoint", ""), getattr(vault.store, "bucket", "")
    moment = "now" if as_of is None else as_of.isoformat()
    chosen = [f"{depth.share:g}", depth.seed] if depth.level == "sample" else []
    return " ".join([vault.estate, vault.name, *place, dataset or "*", moment, depth.level, *chosen, trusted])
