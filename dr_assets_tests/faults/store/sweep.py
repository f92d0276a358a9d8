"""Sweeping a job: a fault of every kind at every store call that its clean run was seen to make.

What belongs here: enumerating the points from recorded calls, running each case, counting the hits. What stays out:
what a job is (the tests).

After each fault the vault is verified as it lies there; then the job is run again, as a new process would be, and
must complete. A point that a run did not come by (threads take turns differently) is tried again; one that four runs
never came by is no call of a clean run, and of those there may be a few only.
"""

import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import segment
from dr_assets.vault.signing import Trust
from dr_assets.vault.storage import ObjectStore
from dr_assets_tests.faults.store.faulty_store import READS, Call, Fault, FaultyStore, KilledError

_TRIES: Final = 4
_CLEAN_RUNS: Final = 3
_LOOKING: Final = threading.local()


class Case(Protocol):
    """One world in which a job runs: a store of its own, and whatever else the job needs."""

    store: ObjectStore

    def run(self, store: ObjectStore) -> None:
        """Run the job once over `store` (this world's, perhaps with something before it), as a new process."""

    def check_after_fault(self, fault: Fault) -> None:
        """Assert what must hold of the world right after a fault, whatever the job had come to."""

    def check_complete(self) -> None:
        """Assert that the job's work is done, whole, once, after a run without faults."""

    def close(self) -> None:
        """Give back what the world holds."""


@dataclass
class Sweep:
    """What came of it: `points` enumerated from the clean runs, `hit` of them, and by point what went wrong."""

    points: list[tuple[Call, Fault]] = field(default_factory=list)
    hit: int = 0
    elusive: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def record(make_case: Callable[[], Case]) -> list[Call]:
    """The calls of a clean run: those that each of three runs made, since timing adds a few to some."""
    seen: list[list[Call]] = []
    for _ in range(_CLEAN_RUNS):
        case = make_case()
        try:
            store = FaultyStore(case.store)
            case.run(_as_store(store))
            case.check_complete()
            seen.append(store.calls)
        finally:
            case.close()
    return [call for call in seen[0] if all(call in calls for calls in seen[1:])]


def sweep(
    make_case: Callable[[], Case],
    *,
    threads: int = 1,
    only: Callable[[Call, Fault], bool] = lambda _call, _fault: True,
) -> Sweep:
    """Every fault of every recorded call, in worlds of their own."""
    points = [(call, fault) for call in record(make_case) for fault in _faults_of(call)]
    done = Sweep([point for point in points if only(*point)])
    with _remembering(), _lookers_alone(), ThreadPoolExecutor(threads) as pool:
        for (call, fault), (hit, failure) in zip(
            done.points, pool.map(lambda point: _try(make_case, *point), done.points), strict=True
        ):
            done.hit += hit
            if not hit:
                done.elusive.append(f"{call}: {fault}")
            if failure:
                done.failures[f"{call}: {fault}"] = failure
    return done


@contextmanager
def _remembering() -> Iterator[None]:
    """Work out once what a sweep would a thousand times: the parts of an object's bytes, that a signature is good.

    Pure functions alone, by all of their arguments; what they refuse is refused anew each time.
    """
    verify, good = Trust.verify, set[tuple[object, ...]]()

    def verify_once(self: Trust, signer_id: str, signature: bytes, domain: bytes, message: bytes, *, name: str) -> None:
        asked = (self.public_keys.get(signer_id), signature, domain, message)
        if asked not in good:
            verify(self, signer_id, signature, domain, message, name=name)
            good.add(asked)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment, "split", lru_cache(maxsize=None)(segment.split))
        patched.setattr(segment, "derive_frame_key", lru_cache(maxsize=None)(segment.derive_frame_key))
        patched.setattr(Trust, "verify", verify_once)
        yield


@contextmanager
def _lookers_alone() -> Iterator[None]:
    """Who looks at a world does so in its own thread; the jobs keep theirs.

    Over a store in memory handing out work takes as long as the work, and a look has no turns that could be taken
    differently.
    """
    hand_out = ThreadPoolExecutor.submit

    def submit(self: ThreadPoolExecutor, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        if not getattr(_LOOKING, "alone", False):
            return hand_out(self, call, *args, **named)
        done: Future[Any] = Future()
        try:
            done.set_result(call(*args, **named))
        except BaseException as error:  # noqa: BLE001 - as a pool does: it is raised where the result is asked for
            done.set_exception(error)
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ThreadPoolExecutor, "submit", submit)
        yield


@contextmanager
def _alone() -> Iterator[None]:
    _LOOKING.alone = True
    try:
        yield
    finally:
        _LOOKING.alone = False


def _faults_of(call: Call) -> tuple[Fault, ...]:
    """Every kind at every write. Reads take turns, so each is hit and each sort of read in several ways.

    With DR_FAULTS=all in the environment every kind at every read, too: that takes minutes.
    """
    faults = call.faults
    if call.method not in READS or os.environ.get("DR_FAULTS") == "all":
        return faults
    return (faults[(call.number + len(call.method) + len(call.stream)) % len(faults)],)


def assert_all_held(done: Sweep) -> None:
    """Every recorded point was hit (but for one in twenty that runs ceased to make), and nothing went wrong at any."""
    assert not done.failures, "\n".join(f"{point}\n{why}" for point, why in list(done.failures.items())[:5])
    assert done.hit + len(done.elusive) == len(done.points)
    assert len(done.elusive) <= len(done.points) // 20, done.elusive
    assert done.points


def methods_of(points: Iterable[tuple[Call, Fault]]) -> set[str]:
    """Which of the port's methods the points cover."""
    return {call.method for call, _ in points}


def _try(make_case: Callable[[], Case], call: Call, fault: Fault) -> tuple[bool, str]:
    """Whether the point was come by, and what went wrong there."""
    for _ in range(_TRIES):
        case = make_case()
        try:
            hit = _one(case, call, fault)
        except BaseException as error:  # noqa: BLE001 - whatever it is: it is what this point was tried for
            return True, "".join(traceback.format_exception(error, limit=-6))
        finally:
            case.close()
        if hit:
            return True, ""
    return False, ""


def _one(case: Case, call: Call, fault: Fault) -> bool:
    """The job with the fault, a look at what lies there, the job again. What is no refusal of ours is a bug."""
    store = FaultyStore(case.store, call, fault)
    try:
        case.run(_as_store(store))
    except KilledError:
        assert fault in {"killed_before", "killed_after"}, "nobody killed it"
    except VaultError:
        pass  # told, not swallowed: what is asked is what it leaves behind
    else:
        assert not store.fired.is_set() or fault not in {"killed_before", "killed_after"}, "it outlived its death"
    if not store.fired.is_set():
        return False
    with _alone():
        case.check_after_fault(fault)
    case.run(case.store)
    with _alone():
        case.check_complete()
    return True


def _as_store(store: FaultyStore) -> Any:
    """A FaultyStore has every method of the port by forwarding, which no type checker sees."""
    return store
