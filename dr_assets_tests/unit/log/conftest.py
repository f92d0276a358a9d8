"""A vault in memory whose clock only tests move, filled by hand, and its log."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.vault.facts import record_fact
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequenced, Sequencer
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Receipt, Vault

SIZE = 10


@dataclass
class Logged:
    """What a log's tests play with."""

    now: datetime = datetime(2026, 3, 10, 12, tzinfo=UTC)
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)
    signer: Signer = field(default_factory=Signer.generate)
    position: int = 1000
    store: MemoryStore = field(init=False)
    vault: Vault = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(lambda: self.now)
        self.vault = self.opened(self.store)

    def twin(self) -> "Logged":
        """The same contents, independent from now on."""
        other = Logged(self.now, self.provider, self.signer, self.position)
        copied = self.store.copy()
        other.store.rows, other.store._count = copied.rows, copied._count
        return other

    def opened(self, store: ObjectStore) -> Vault:
        """The vault as a new process opens it."""
        return throwaway_vault(store=store, provider=self.provider, signer=self.signer, clock=lambda: self.now)

    def later(self, **span: float) -> None:
        """Turn the clock."""
        self.now += timedelta(**span)

    def fact(self, kind: str = "roll_up", dataset: str = "ledger", **body: int | str) -> Receipt:
        """A fact of this second."""
        self.later(seconds=1)
        return record_fact(self.vault, dataset, kind, body)

    def piece(self, stream: str = "wal", *, at: int | None = None) -> Receipt:
        """One more piece of a stream, or one at a position of the test's choice."""
        self.later(seconds=1)
        first = self.position if at is None else at
        kind = {"wal": "wal", "full": "wal", "base": "manifest", "full-list": "manifest"}.get(stream, "part")
        prepared = self.vault.prepare(
            dataset="ledger", stream=stream, kind=kind, system_id="7", timeline=1, first=first, last=first + SIZE,
            begin_at=self.now, end_at=self.now, plaintext=b"w" * SIZE,
        )  # fmt: skip
        if at is None:
            self.position += SIZE
        return self.vault.put(prepared.seal(), self.vault.locks.lock("ledger", "wal", self.now))

    def sequence(self, store: ObjectStore | None = None) -> Sequenced:
        """Run a new sequencer, a minute later."""
        self.later(minutes=1)
        return Sequencer(self.opened(store or self.store)).run()

    def reader(self) -> LogReader:
        """At the newest checkpoint."""
        reader = LogReader.open(self.opened(self.store))
        assert reader is not None
        return reader

    def vouched(self) -> list[str]:
        """Every name that the log vouches for."""
        return [name for vouched in self.reader().vouched() for name in vouched.names]

    def stored(self) -> set[str]:
        """Every object and key that lies in the vault."""
        return {name for name in self.store.rows if "/log/" not in name}


@pytest.fixture
def logged() -> Logged:
    """An empty one."""
    return Logged()


@pytest.fixture(scope="session")
def logged_vault() -> type[Logged]:
    """Makes empty ones, for fixtures that outlive a test."""
    return Logged
