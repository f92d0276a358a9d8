from dataclasses import dataclass
from datetime import timedelta

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.merkle import leaf_hash, verify_inclusion
from dr_assets.vault.log.names import log_prefix
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.verify import verify
from dr_assets.vault.verify.log_files import LogFilesJudge
from dr_assets.vault.verify.report import Finding
from dr_assets_tests.faults.store.faulty_store import Call, Fault, KilledError
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.unit.log.conftest import Logged


@dataclass
class LogCase:
    """A vault whose log is some hours behind: the tree's edge lies within a tile, and the batch ends beyond it."""

    origin: Logged
    known: Checkpoint
    expected: set[str]

    def __post_init__(self) -> None:
        self.store: ObjectStore = self.origin.store.copy()

    def run(self, store: ObjectStore) -> None:
        """Sequence."""
        Sequencer(self.origin.opened(store), pause=timedelta(0)).run()

    def _reader(self) -> LogReader:
        reader = LogReader.open(self.origin.opened(self.store))
        assert reader is not None
        return reader

    def check_after_fault(self, fault: Fault) -> None:
        """The newest checkpoint is sound, continues the known one, and nothing is damaged; what lacks is unfinished."""
        assert fault
        reader = self._reader()
        reader.require_extends(self.known)
        for index, leaf in enumerate(reader.leaves(begin=self.known.size - 1), start=self.known.size - 1):
            proof = reader.inclusion(index)
            verify_inclusion(leaf_hash(leaf), index, reader.checkpoint.size, reader.checkpoint.root, proof)
        assert {finding.kind for finding in self._findings()} <= {"unfinished"}

    def check_complete(self) -> None:
        """Everything is in the log, once, and there is one history."""
        reader = self._reader()
        reader.require_extends(self.known)
        names = [name for vouched in reader.vouched() for name in vouched.names]
        assert len(names) == len(set(names))
        assert set(names) == self.expected
        assert not self._findings()

    def _findings(self) -> list[Finding]:
        """What a verification says of the log's files; a sequencer touches no others."""
        vault = self.origin.opened(self.store)
        judge = LogFilesJudge(vault, vault.clock())
        judged = [judge.judge(name) for name in vault.names(log_prefix(vault.estate))]
        assert None not in judged, "a name that is not of the log's form"
        return [finding for findings in judged for finding in findings or ()]

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def behind() -> LogCase:
    """250 leaves, and a dozen more to come, with pieces among them."""
    logged = Logged()
    for number in range(248):
        logged.fact(number=number)
    logged.sequence()
    known = logged.reader().checkpoint
    for number in range(6):
        logged.fact("approval", "vault", number=number)
        logged.fact(number=number)
    logged.later(minutes=1)
    return LogCase(logged, known, logged.stored())


@pytest.mark.parametrize("part", [0, 1])
def test_sequencing_survives_a_fault_at_every_store_call(behind: LogCase, part: int) -> None:
    """Killed before or after any call, refused, busy or lied to: the log never forks and never lies.

    What is left is a sound log, older or newer, with what is unfinished named; the next run completes it.
    """
    done = sweep(
        lambda: LogCase(behind.origin, behind.known, behind.expected),
        threads=2,
        only=lambda call, _: call.number % 2 == part,
    )
    assert_all_held(done)
    assert {"put", "head", "get", "list_level", "list_name"} <= methods_of(done.points)


class Interrupted:
    """A store before which something happens: `meanwhile` runs once, right before the call that `at` names."""

    def __init__(self, inner: ObjectStore, at: str, meanwhile: object) -> None:
        self.inner, self.at, self.meanwhile = inner, at, meanwhile

    def __getattr__(self, name: str) -> object:
        method = getattr(self.inner, name)

        def called(*arguments: object, **named: object) -> object:
            subject = str(arguments[0]) if arguments else ""
            if self.meanwhile is not None and f"{name} {subject}".startswith(self.at):
                meanwhile, self.meanwhile = self.meanwhile, None
                meanwhile()  # type: ignore[operator]  # a callable, handed through
            return method(*arguments, **named)

        return called


@pytest.mark.parametrize(
    "at", ["list_level casino/", "put casino/log/batch/", "put casino/log/tile/", "put casino/log/checkpoint/"]
)
@pytest.mark.parametrize("kill_first", [False, True])
def test_two_sequencers_at_once_make_one_history(behind: LogCase, at: str, kill_first: bool) -> None:
    """Wherever the second one comes between, by a run of its own with more to log: the loser notices and stops."""
    case = LogCase(behind.origin, behind.known, behind.expected)
    origin = behind.origin

    def second() -> None:
        twin = Logged(now=origin.now, provider=origin.provider, signer=origin.signer, position=5000)
        twin.store, twin.vault = case.store, origin.opened(case.store)  # type: ignore[assignment]  # a MemoryStore
        twin.fact("expiry", "ledger", of="the second")
        Sequencer(twin.opened(case.store)).run()
        if kill_first:
            raise KilledError(at)

    store: ObjectStore = Interrupted(case.store, at, second)  # type: ignore[assignment]  # forwards every method
    first = Sequencer(origin.opened(store))
    if kill_first:
        with pytest.raises(KilledError):
            first.run()
    else:
        assert first.run().lost or at != "put casino/log/batch/"
    Sequencer(origin.opened(case.store), pause=timedelta(0)).run()
    reader = LogReader.open(origin.opened(case.store))
    assert reader is not None
    reader.require_extends(behind.known)
    names = [name for vouched in reader.vouched() for name in vouched.names]
    assert len(names) == len(set(names)) == len(behind.expected) + 1
    assert not verify(origin.opened(case.store)).findings


def test_a_fault_sweep_that_forks_would_be_noticed(behind: LogCase) -> None:
    """The judge can fail: a checkpoint of another tree, signed by the log's own key, is no growth of the known one."""
    case = LogCase(behind.origin, behind.known, behind.expected)
    with pytest.raises(VaultError, match=r"log\.forked"):
        case._reader().require_extends(Checkpoint(behind.known.origin, behind.known.size, b"\x01" * 32))
    assert Call("put", "batch", 1).faults
