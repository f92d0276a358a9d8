"""The resident prover of one dataset: follows the vault, keeps the schedules, publishes where it stands.

What belongs here: the loop, what each failure leads to, which jobs run when. What stays out: the sandbox and its WAL
(sandbox.py, follow.py), the jobs' own work (books.py), rules for what is good enough (judged.py).

The loop alone touches the sandbox that follows. What takes long runs in one worker: the books, deep passes, laying a
new sandbox. So no more than one of them burns a processor, and the following goes on beside it.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.prover.books import Judge
from dr_assets.proving.prover.clone import Clone, clone_of
from dr_assets.proving.prover.ground import Ground
from dr_assets.proving.prover.judged import SAID_EVERY, prove_rules, reconciled_trouble, replayed_trouble
from dr_assets.proving.prover.points import Books, DeepPass, Proven, State, Trouble, record_proven
from dr_assets.proving.prover.sandbox import Room, Sandbox, stalled, wait_replayed
from dr_assets.reconciliation.result import Reconciliation
from dr_assets.reconciliation.sealed import breaks_file, seal_breaks
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.subjects.erased import read_list
from dr_assets.vault.vault import Vault

log = logging.getLogger(__name__)
Job = Literal["build", "books", "deep"]
GetErasures = Callable[[], Erasures | None]
_BACKOFF_END_S: Final = 900.0
_VERDICTS_APART_S: Final = 10.0
# A new sandbox takes over once what it lacks is stored and replayed in so little time, or after so many tries.
_CAUGHT_UP_S: Final = 1.0
_CATCH_UP_MAX: Final = 100
# A deep pass that failed may have failed of a vault that was away: not for hours.
_DEEP_AGAIN_S: Final = 900.0
# The source lives on along another way: no restore leads to what was replayed on this one.
_LEFT: Final = frozenset({"wal.diverged", "wal.abandoned"})


@dataclass(frozen=True, slots=True)
class ProverOptions:
    """`poll_s`: how often the vault is asked for more. `stalled_after_s`: how long replay may stand with WAL ahead.

    `restartpoint_every_s`: how often the server writes out what it holds, so that the WAL behind it can go.
    `look_every_s`: how often the whole way on is asked for. `judged_after_s`: how long it only follows at first.
    `again_after_s`: how soon a new beginning is tried after a failure; twice that after the next one, and so on.
    """

    poll_s: float = 0.5
    stalled_after_s: float = 60.0
    restartpoint_every_s: float = 60.0
    look_every_s: float = 15.0
    judged_after_s: float = 0.0
    again_after_s: float = 5.0
    once: bool = False


class Prover:
    """One dataset's prover; `run` it in a thread of its own. `pool` may be shared: it bounds what all of them do."""

    def __init__(
        self,
        vault: Vault,
        records: Vault,
        dataset: PostgresDataset,
        ground: Ground,
        pool: ThreadPoolExecutor,
        *,
        erasures: GetErasures,
        env: Mapping[str, str] | None = None,
        listener: Callable[[Proven], None] = lambda _: None,
        options: ProverOptions | None = None,
    ) -> None:
        self._vault = vault
        self._records = records
        self._dataset = dataset
        self._rules = prove_rules(dataset)
        self._ground = ground
        self._pool = pool
        self._erasures = erasures
        self._env = env
        self._listener = listener
        self._options = options or ProverOptions()
        self._room = Room(self._rules.max_bytes, ground.used_bytes)
        self._judge = Judge(dataset.restore_test.contract, self._clone_of, vault.clock, self._seal)
        now = vault.clock()
        self._proven = Proven(dataset.name, now, "building", now)
        self._current: Sandbox | None = None
        self._retired: list[Sandbox] = []
        self._job: tuple[Job, Future[Any]] | None = None
        self._stop = threading.Event()
        judged_s = time.monotonic() + self._options.judged_after_s
        self._due_s: dict[Job, float] = {"build": 0.0, "books": judged_s, "deep": judged_s}
        self._backoff_s = self._options.again_after_s
        self._event: str | None = "started"
        self._has_left = False
        self._said_s = self._pointed_s = float("-inf")
        self._said: tuple[bool, bool] | None = None
        self._moved: tuple[int, float] = (0, time.monotonic())

    @property
    def proven(self) -> Proven:
        """Where it stands."""
        return self._proven

    def run(self, stop: threading.Event) -> Proven:
        """Follow until `stop`, or, with `once`, until the books and a deep pass were done; nothing is left on the disk.

        Returns where it stood then; what is published and sealed last says that nobody follows any more. Failures are
        published, on record and tried again; what a prover can't go on with at all is raised.
        """
        self._stop = stop
        try:
            while not stop.is_set() and not self._is_done():
                self._turn()
                stop.wait(0.0 if self._is_behind() else self._options.poll_s)
        finally:
            stop.set()
            stood = self._proven
            self._end()
        return stood

    def _is_behind(self) -> bool:
        return self._current is not None and self._current.follower.is_behind

    def _turn(self) -> None:
        """One look at everything."""
        self._collect()
        if self._current is not None:
            self._follow(self._current)
        self._submit()
        self._publish()

    # -- following --------------------------------------------------------------------------------------------------

    def _follow(self, sandbox: Sandbox) -> None:
        try:
            sandbox.follower.pull()
            self._keep_small(sandbox)
            self._observe(sandbox)
        except DrError as error:
            self._failed(error, sandbox)
        except OSError as error:
            self._failed(_disk(error), sandbox)
        else:
            self._stands("following", None)

    def _observe(self, sandbox: Sandbox) -> None:
        point, end, now_s = sandbox.point(), sandbox.end_lsn, time.monotonic()
        # What came since the last look was not waited for yet, however long ago that was: the vault may have been away.
        had_replayed_all = point.lsn >= self._proven.end_lsn
        self._proven = replace(self._proven, end_lsn=end)
        if point.at is not None or self._proven.replayed is None:
            self._proven = replace(self._proven, replayed=point)
        if had_replayed_all or point.lsn >= end or point.lsn > self._moved[0]:
            self._moved = (point.lsn, now_s)
        elif now_s - self._moved[1] > self._options.stalled_after_s:
            raise stalled(point.lsn, end)

    def _keep_small(self, sandbox: Sandbox) -> None:
        now_s = time.monotonic()
        if now_s - self._pointed_s < self._options.restartpoint_every_s:
            return
        self._pointed_s = now_s
        sandbox.restartpoint()
        used = self._room.used()
        self._proven = replace(self._proven, size_bytes=used)
        self._room.require(0, "the sandbox")

    def _failed(self, error: DrError, sandbox: Sandbox | None) -> None:
        """A vault that is away is waited for; whatever else it is, a new beginning is tried, later each time."""
        if error.code in STORE_AWAY:
            self._stands("vault_away", error)
            return
        log.warning("%s: %s", self._dataset.name, error)
        state: State = "stalled" if error.code == "prover.stalled" else "failed"
        self._proven = replace(self._proven, failures=self._proven.failures + 1)
        if error.code in _LEFT:
            self._proven = replace(self._proven, replayed=None, reconciled=None, books=None)
            self._has_left = True
        self._stands(state, error)
        if sandbox is not None:
            self._retired.append(sandbox)
            self._current = None
        self._due_s["build"] = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, _BACKOFF_END_S)

    def _not_built(self, error: DrError) -> None:
        """The old sandbox, if there is one, goes on; that nothing new can be begun stays in sight until it can."""
        if self._current is None:
            self._failed(error, None)
        else:
            log.warning("%s: no new beginning: %s", self._dataset.name, error)
            self._event = "not restarted"
            self._due_s["build"] = time.monotonic() + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, _BACKOFF_END_S)
        was = self._proven.unbegun
        since = was.since if was is not None and was.code == error.code else self._vault.clock()
        self._proven = replace(self._proven, unbegun=Trouble(error.code, error.found, since))

    def _stands(self, state: State, error: DrError | None) -> None:
        trouble, was = None, self._proven.trouble
        if error is not None:
            since = was.since if was is not None and was.code == error.code else self._vault.clock()
            trouble = Trouble(error.code, error.found, since)
        if (trouble and trouble.code) != (was and was.code):
            self._event = self._event or ("failed" if trouble else "recovered")
        self._proven = replace(self._proven, state=state, trouble=trouble)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """The next job that is due, if the worker is free for us."""
        if self._job is not None or self._stop.is_set():
            return
        for retired in self._retired:  # no job uses it any more
            retired.close()
        self._retired.clear()
        now_s, sandbox, replayed = time.monotonic(), self._current, self._proven.replayed
        can_judge = sandbox is not None and replayed is not None
        # What has waited longest: a job that takes longer than its interval would keep the others off for good.
        jobs: tuple[Job, ...] = ("books", "deep", "build") if can_judge else ("build",)
        job = min(jobs, key=self._due_s.__getitem__)
        if now_s < self._due_s[job]:
            return
        if sandbox is None or replayed is None or job == "build":
            self._make_room()
            self._job = ("build", self._pool.submit(self._build))
        elif job == "books":
            self._due_s["books"] = now_s + self._rules.reconcile_every.total_seconds()
            self._job = ("books", self._pool.submit(self._judge.books, sandbox, replayed))
        else:
            self._due_s["deep"] = now_s + self._rules.deep_every.total_seconds()
            self._job = ("deep", self._pool.submit(self._judge.deep, sandbox, replayed))

    def _build(self) -> Sandbox:
        """A new sandbox that has replayed everything that was stored as it was planned."""
        erasures = self._applicable()
        del erasures
        sandbox = Sandbox.build(self._vault, self._dataset.name, self._ground.new("sandbox"), self._room, self._env)
        sandbox.follower.look_every_s = self._options.look_every_s
        try:
            wait_replayed(sandbox, sandbox.end_lsn, self._stop.is_set, stalled_s=self._options.stalled_after_s)
            if self._current is not None:
                self._catch_up(sandbox)
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _catch_up(self, sandbox: Sandbox) -> None:
        """What was stored while it was laid, or the replayed point would go back by that; errors are the follower's."""
        for _ in range(_CATCH_UP_MAX):
            begin_s = time.monotonic()
            try:
                sandbox.follower.pull()
            except DrError:
                return
            wait_replayed(sandbox, sandbox.end_lsn, self._stop.is_set, stalled_s=self._options.stalled_after_s)
            took_s = time.monotonic() - begin_s
            if self._stop.is_set() or (not sandbox.follower.is_behind and took_s < _CAUGHT_UP_S):
                return

    def _make_room(self) -> None:
        """Where two sandboxes don't fit, the old one goes first: nothing is published until the new one is there."""
        used = self._room.used()
        if self._current is not None and 2 * used > self._rules.max_bytes:
            log.info("%s: there is no room for two sandboxes, the old one goes first", self._dataset.name)
            self._current.close()
            self._current = None
            self._stands("building", None)

    def _collect(self) -> None:
        """Take what a finished job brought; close what nobody uses any more."""
        if self._job is None or not self._job[1].done():
            return
        (job, future), self._job = self._job, None
        try:
            found = future.result()
        except DrError as error:
            self._not_built(error)
        except OSError as error:
            self._not_built(_disk(error))
        else:
            self._take(job, found)

    def _take(self, job: Job, found: Any) -> None:
        if job == "build":
            self._swap(found)
        elif job == "books":
            self._take_books(found)
        else:
            deep, books = found
            self._proven = replace(self._proven, deep=deep)
            self._event = "deep pass"
            if not deep.ok:
                self._due_s["deep"] = min(self._due_s["deep"], time.monotonic() + _DEEP_AGAIN_S)
            if books is not None:
                self._take_books(books)  # of the pass's begin: the next ones are due as if there were none of these

    def _swap(self, sandbox: Sandbox) -> None:
        if self._current is not None:
            self._retired.append(self._current)
        self._current, self._backoff_s = sandbox, self._options.again_after_s
        if self._has_left:
            self._has_left, self._due_s["books"] = False, time.monotonic()
        self._moved = (0, time.monotonic())
        self._due_s["build"] = time.monotonic() + self._rules.restart_every.total_seconds()
        self._proven = replace(
            self._proven,
            base_key=sandbox.plan.base_key,
            restarted_at=self._vault.clock(),
            restarts=self._proven.restarts + 1,
            unbegun=None,
        )
        self._event = "restarted"

    def _take_books(self, books: Books) -> None:
        if self._has_left:  # of a sandbox that followed the way which the source has left
            return
        reconciled = books.point if books.ok else self._proven.reconciled
        self._proven = replace(self._proven, books=books, reconciled=reconciled)
        self._event = "reconciled"

    def _seal(self, books: Reconciliation) -> str | None:
        """Breaks are sealed once each; a vault that is away keeps no verdict from being told."""
        found = hashlib.sha256(breaks_file(books.breaks)).hexdigest()
        if self._proven.books is not None and self._proven.books.breaks_sha256 == found:
            return found
        try:
            sealed = seal_breaks(self._records, self._dataset.name, books)
        except VaultError as error:
            log.warning("%s: the breaks are not sealed: %s", self._dataset.name, error)
            return None
        return None if sealed is None else sealed.sha256

    def _clone_of(self, sandbox: Sandbox) -> AbstractContextManager[Clone]:
        return clone_of(sandbox, self._vault, self._ground.new("clone"), self._room, self._applicable())

    def _applicable(self) -> Erasures | None:
        """Whom a copy must not bring back, as of now. Raises PolicyError as a restore does."""
        erasures, known = self._erasures(), read_list(self._vault)
        if erasures is not None:
            erasures.listed.require_newest(known)
            erasures.require_applicable(self._dataset.name)
        elif known.people:
            raise PolicyError(
                "erasure.not_replayed",
                f"{len(known)} people are erased by vault {self._vault.name}; a clone would bring them back",
                "give the prover the erasure list (proving/erasures.py)",
            )
        return erasures

    # -- telling ----------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        self._proven = replace(self._proven, now=self._vault.clock())
        self._listener(self._proven)
        now_s = time.monotonic()
        verdict = self._verdict()
        if verdict != self._said and now_s - self._said_s > _VERDICTS_APART_S:
            self._event = self._event or "verdict"
        if self._event is None and now_s - self._said_s < SAID_EVERY.total_seconds():
            return
        event, self._event, self._said_s, self._said = self._event or "alive", None, now_s, verdict
        try:
            record_proven(self._records, self._proven, event)
        except VaultError as error:
            # Nobody is told a thing that is not on record: the metrics grow old, and the next word says it all.
            log.warning("%s: not on record: %s", self._dataset.name, error)
            self._event = event if error.code not in STORE_AWAY else None

    def _verdict(self) -> tuple[bool, bool]:
        """What whoever reads the sealed facts concludes; they have to say so as soon as it is another one."""
        proven, now = self._proven, self._proven.now
        return (
            replayed_trouble(self._dataset, proven, now) is None,
            reconciled_trouble(self._dataset, proven, now) is None,
        )

    def _is_done(self) -> bool:
        return self._options.once and (
            (self._proven.books is not None and self._proven.deep is not None and self._job is None)
            or self._proven.failures > 0
            or self._proven.trouble is not None
        )

    def _end(self) -> None:
        if self._job is not None:
            job, future = self._job
            future.cancel()
            try:
                built = future.result()
            except BaseException as error:  # noqa: BLE001 - whatever it was, it must not keep a sandbox on the disk
                log.info("%s: %s ended: %s", self._dataset.name, job, type(error).__name__)
            else:
                self._retired += [built] if isinstance(built, Sandbox) else []
        for sandbox in (*self._retired, *([self._current] if self._current else [])):
            sandbox.close()
        self._current, self._event = None, "stopped"
        self._proven = replace(self._proven, state="stopped")
        self._publish()


def _disk(error: OSError) -> DrError:
    return PolicyError(
        "prover.disk",
        f"the sandbox's disk: {error.strerror or type(error).__name__}",
        "make room, or give the prover a larger disk; it begins anew by itself",
    )


__all__ = ["Books", "DeepPass", "Prover", "ProverOptions"]
