"""A prover's loop without a server: what ends a single pass, what is no longer proven, whose folder it takes."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.cli import prove as command
from dr_assets.engines.placement import engine_home
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.prove import Prove
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.clone_shelf import CLONES_DIR_ENV, CloneShelf
from dr_assets.proving.prover import ground as grounds
from dr_assets.proving.prover.follow import Follower
from dr_assets.proving.prover.ground import Ground, ground_of
from dr_assets.proving.prover.points import Point
from dr_assets.proving.prover.prover import Prover, ProverOptions
from dr_assets.proving.prover.sandbox import wait_replayed
from dr_assets.vault.storage import Version
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.unit.test_prover_judged import BOOKS, POINT

DEADLINE_S = 120.0
DATASET = replace(load_estate(default_defs_dir()).postgres()["ledger"], prove=Prove())


class Away(MemoryStore):
    """A store that does not answer."""

    def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
        """As the port says of one that can't be reached."""
        asked = f"{prefix} {start_after}"
        raise VaultError("vault.unreachable", f"the store does not answer {asked}", "wait")


@pytest.fixture
def vault() -> Vault:
    """An empty one."""
    return throwaway_vault(estate="house", rules={"ledger": (DATASET.retention, DATASET.snapshot.every)})


def without_store(vault: Vault) -> Vault:
    """The same, whose store is away."""
    return Vault(
        store=Away(), estate="house", name="primary", keys=vault.keys, trust=vault.trust, signer=None,
        locks=vault.locks, clock=vault.clock,
    )  # fmt: skip


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """The one worker."""
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.mark.parametrize(("is_away", "code"), [(True, "vault.unreachable"), (False, "restore.")])
def test_a_single_pass_that_cannot_begin_ends_and_says_why(
    vault: Vault, pool: ThreadPoolExecutor, tmp_path: Path, is_away: bool, code: str
) -> None:
    """A vault that is away, or holds no base backup yet: `--once` is done with that and waits for nothing."""
    seen = without_store(vault) if is_away else vault
    options = ProverOptions(once=True, poll_s=0.01)
    prover = Prover(seen, vault, DATASET, Ground(tmp_path), pool, erasures=lambda: None, options=options)
    stop = threading.Event()
    run = threading.Thread(target=prover.run, args=(stop,))
    run.start()
    run.join(DEADLINE_S)
    waited_in_vain = run.is_alive()
    stop.set()
    run.join(DEADLINE_S)
    assert not waited_in_vain
    assert prover.proven.trouble is not None
    assert prover.proven.trouble.code.startswith(code)
    assert prover.proven.reconciled is None


@pytest.mark.parametrize("code", ["wal.diverged", "wal.abandoned"])
def test_what_lay_on_an_abandoned_branch_is_not_called_proven_any_more(
    vault: Vault, pool: ThreadPoolExecutor, tmp_path: Path, code: str
) -> None:
    """The source went on elsewhere: no restore leads to the points of before, so they are withdrawn with the error."""
    prover = Prover(vault, vault, DATASET, Ground(tmp_path), pool, erasures=lambda: None)
    prover._proven = replace(prover.proven, replayed=POINT, reconciled=POINT, books=BOOKS)
    prover._failed(VaultError("restore.hole", "a piece is missing", "wait"), None)
    assert (prover.proven.replayed, prover.proven.reconciled) == (POINT, POINT)
    prover._failed(VaultError(code, "the source went on elsewhere", "wait"), None)
    assert (prover.proven.replayed, prover.proven.reconciled, prover.proven.books) == (None, None, None)
    prover._take_books(BOOKS)  # of a job that was under way with that sandbox
    assert prover.proven.reconciled is None


def test_a_shelf_that_cannot_be_swept_ends_no_prover(
    vault: Vault, pool: ThreadPoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone's record that cannot be read is said, and the provers go on until they are stopped."""
    monkeypatch.setenv(CLONES_DIR_ENV, str(tmp_path / "clones"))
    shelf = CloneShelf.of(os.environ)
    (shelf.folder / "0123abcd.json").write_text('{"of": "another version"}')
    with pytest.raises(PolicyError, match=r"clone\.unreadable"):
        shelf.records()
    prover = Prover(
        without_store(vault), vault, DATASET, Ground(tmp_path), pool, erasures=lambda: None,
        options=ProverOptions(poll_s=0.01),
    )  # fmt: skip
    stop, ended = threading.Event(), list[object]()
    run = threading.Thread(target=lambda: ended.append(command._run([prover], stop, swept=True)), daemon=True)
    run.start()
    deadline = time.monotonic() + DEADLINE_S
    while prover.proven.trouble is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    assert run.is_alive()
    stop.set()
    run.join(DEADLINE_S)
    prover._stop.set()  # so that a failure leaves no thread behind
    run.join(DEADLINE_S)
    assert len(ended) == 1


def test_somebody_elses_folder_is_no_prover_ground(tmp_path: Path) -> None:
    """Its name can be foretold: a link, or a folder of another user, is refused before anything is laid there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "dr_assets-prover-ledger").symlink_to(elsewhere)
    with pytest.raises(PolicyError) as caught, ground_of("ledger", {WORK_DIR_ENV: str(tmp_path)}):
        pass
    assert caught.value.code == "prover.unsafe_place"
    assert elsewhere.stat().st_mode & 0o777 == 0o755


def test_what_a_killed_prover_left_is_cleared_once_its_server_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guard may still be ending the server: nobody takes the folder away from under it."""
    data = tmp_path / "dr_assets-prover-ledger" / "sandbox-1" / "data"
    data.mkdir(parents=True)
    seen = list[Path]()
    monkeypatch.setattr(grounds, "wait_server_gone", seen.append)
    with ground_of("ledger", {WORK_DIR_ENV: str(tmp_path)}):
        assert seen == [engine_home(data.parent).path / "data"]
        assert not data.exists()


def test_a_source_that_never_rests_does_not_keep_off_the_whole_look(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time there is a piece that leads on: newer timelines and holes are looked for all the same, every 15 s."""
    clock_s, looks, some = [0.0], list[float](), SimpleNamespace()
    follower = Follower(vault, some, some, monotonic=lambda: clock_s[0])  # type: ignore[arg-type]
    monkeypatch.setattr(follower, "_next", lambda: ([some], False))
    monkeypatch.setattr(follower, "_written", lambda _: 100)

    def look() -> int:
        looks.append(clock_s[0])
        return 0

    monkeypatch.setattr(follower, "_look", look)
    for clock_s[0] in range(61):
        assert follower.pull() == 100
    assert looks == [0, 15, 30, 45, 60]


@dataclass
class Slow:
    """What is asked of a sandbox while it is waited for: it takes no session for 0.3 s, then it is there or never."""

    still_reads: bool
    ready_s: float = field(default_factory=lambda: time.monotonic() + 0.3)

    def point(self) -> Point:
        """Nothing at first; nothing ever once it has read all: then only giving it up ends the wait."""
        is_there = self.still_reads and time.monotonic() > self.ready_s
        return Point(100 if is_there else 0, 1, None, None)

    def is_on_its_way(self) -> bool:
        """As the server's log says."""
        return self.still_reads


def test_a_server_that_is_not_consistent_yet_is_no_stalled_one() -> None:
    """A large ledger takes minutes of WAL to become consistent; one that has read it all and isn't there, stands."""
    sandbox: Any = Slow(still_reads=True)
    wait_replayed(sandbox, 100, lambda: False, stalled_s=0.1)
    sandbox = Slow(still_reads=False)
    with pytest.raises(VaultError, match=r"prover\.stalled"):
        wait_replayed(sandbox, 100, lambda: False, stalled_s=0.1)


def test_wal_that_came_just_now_is_not_called_stalled(vault: Vault, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A vault was away for long, all that was known is replayed: its time runs from when there is more to replay."""
    prover = Prover(
        vault, vault, DATASET, Ground(tmp_path), pool, erasures=lambda: None,
        options=ProverOptions(stalled_after_s=60.0),
    )  # fmt: skip
    sandbox: Any = SimpleNamespace(point=lambda: Point(100, 1, None, None), end_lsn=100)
    prover._observe(sandbox)

    def so_much_later() -> None:
        prover._moved = (prover._moved[0], prover._moved[1] - 3600.0)

    so_much_later()
    sandbox.end_lsn = 200
    prover._observe(sandbox)
    assert prover.proven.end_lsn == 200
    so_much_later()
    with pytest.raises(VaultError, match=r"prover\.stalled"):
        prover._observe(sandbox)
