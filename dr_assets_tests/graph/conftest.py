"""A vault in memory with a clock to turn, filled by hand: what sensors and checks are judged against.

What belongs here: fixtures for the graph's tests. What stays out: engines.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate, PostgresDataset, Role, TopicsDataset
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

SYSTEM_ID = "7300000000000000001"
PIECE_BYTES = 4096


@dataclass
class FilledVault:
    """Stands where the vault's resource stands: hands out the vault, or refuses like a store that is away."""

    now: datetime
    vault: Vault = field(init=False)
    away: bool = False
    position: int = 0x1000000
    previous: str | None = None
    system_id: str = SYSTEM_ID
    timeline: int = 1

    def __post_init__(self) -> None:
        dataset = load_estate(default_defs_dir()).postgres()["ledger"]
        rules = {"ledger": (dataset.retention, dataset.snapshot.every)}
        self.vault = throwaway_vault(rules=rules, clock=lambda: self.now)

    def open_vault(self, *, signing: bool = False, role: Role | None = None) -> Vault:
        """As the resource does."""
        del signing, role
        if self.away:
            raise VaultError("vault.unreachable", "the object store does not answer", "start it")
        return self.vault

    def erasures(self, dataset: PostgresDataset, vault: Vault) -> None:
        """As the resource does; nobody was ever erased."""
        del dataset, vault

    def topic_eraser(self, dataset: TopicsDataset, vault: Vault) -> None:
        """As the resource does; nobody was ever erased."""
        del dataset, vault

    def later(self, **span: float) -> None:
        """Turn the clock."""
        self.now += timedelta(**span)

    def store_wal(self, *, hole: bool = False) -> None:
        """One more piece of the stream, with a heartbeat of this moment; `hole` leaves one before it."""
        first = self.position + (PIECE_BYTES if hole else 0)
        anchor = Anchor(self.system_id, self.timeline, self.position, first, None, None, 1, None)
        if self.previous is None:
            record_capture(self.vault, "ledger", "started", anchor)
        prepared = self.vault.prepare(
            dataset="ledger",
            stream="wal",
            kind="wal",
            system_id=self.system_id,
            timeline=self.timeline,
            first=first,
            last=first + PIECE_BYTES,
            begin_at=self.now,
            end_at=self.now,
            plaintext=b"w" * PIECE_BYTES,
            previous=self.previous,
            writer_epoch=1,
            extra={"recovery_point_at": format_time(self.now)},
        )
        self.vault.put(prepared.seal(), self.vault.locks.lock("ledger", "wal", self.now))
        self.position, self.previous = first + PIECE_BYTES, prepared.header.digest

    def seal(self, kind: str, **body: Any) -> None:
        """Record a fact of this moment."""
        record_fact(self.vault, "ledger", kind, body, at=self.now)

    def seal_gap(self) -> None:
        """The fact of a slot that was lost at the end of the stream."""
        self.seal("gap", chain_end=format_lsn(self.position), available=None, system_id=SYSTEM_ID, timeline=1)

    def seal_snapshot(self, **more: Any) -> None:
        """The fact of a base backup that begins where the stream now ends."""
        start, begin_at = format_lsn(self.position), format_time(self.now)
        stream = {"system_id": self.system_id, "timeline": self.timeline}
        self.seal("snapshot", start_lsn=start, begin_at=begin_at, **stream, **more)

    def begin_anew(self, *, system_id: str | None = None, timeline: int | None = None, skip: int = 0) -> None:
        """The next piece begins a chain of its own: another server, a failover, or `skip` bytes of an accepted gap."""
        self.system_id, self.timeline = system_id or self.system_id, timeline or self.timeline
        self.position, self.previous = self.position + skip, None


@pytest.fixture
def filled() -> FilledVault:
    """An empty vault at a fixed moment."""
    return FilledVault(datetime(2026, 3, 10, 12, tzinfo=UTC))


@pytest.fixture(scope="session")
def estate() -> Estate:
    """The packaged estate."""
    return load_estate(default_defs_dir()).only("ledger")


@pytest.fixture
def ledger(estate: Estate) -> PostgresDataset:
    """Its ledger."""
    return estate.postgres()["ledger"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own, in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def stored_instance() -> Iterator[dg.DagsterInstance]:
    """One on disk, for what opens its instance a second time (schedules)."""
    with dg.instance_for_test() as made:
        yield made
