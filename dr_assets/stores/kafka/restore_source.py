"""What a restore needs to know of an export, whoever tells it: the vault's packs, or a cluster that is still there.

What belongs here: the shape, and picking an end for each partition. What stays out: reading packs (export.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from dr_assets.vault.format.canonical import Json

Where = tuple[str, int]  # a topic's id in the source and a partition of it


@dataclass(frozen=True, slots=True)
class SourcePartition:
    """What is stored of a partition: offsets [begin, end).

    `records` is how many offsets of them hold something (None: nobody counted), `last_stable` the source's last stable
    offset when the end was seen (None: unknown), `has_transactions` whether any batch belongs to one (None: unknown).
    """

    begin: int
    end: int
    records: int | None = None
    last_stable: int | None = None
    has_transactions: bool | None = None
    size_bytes: int = 0

    @property
    def holes(self) -> int | None:
        """Offsets that hold nothing; None when nobody counted."""
        return None if self.records is None else self.end - self.begin - self.records


@dataclass(frozen=True, slots=True)
class SourceTopic:
    """A topic as it was: `configs` are its own settings, without the broker's. `is_gone`: it had been deleted."""

    name: str
    topic_id: str
    partitions: Mapping[int, SourcePartition]
    replication_factor: int
    configs: Mapping[str, str] = field(default_factory=dict)
    is_gone: bool = False

    @property
    def is_compacted(self) -> bool:
        """Whether its cleanup policy compacts."""
        return "compact" in self.configs.get("cleanup.policy", "")


@dataclass(frozen=True, slots=True)
class Commit:
    """A group's position in one partition: the offset it wants next."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class SourceGap:
    """Offsets [begin, end) that the source lost before they were captured."""

    topic: str
    partition: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """Which of what was stored an export is made of: packs up to this number of one cluster, surveys up to this time.

    A restore that goes on after a kill reads the same ones, though the capture has stored more meanwhile.
    """

    system_id: str
    packs: int
    surveyed_at: datetime | None


class RestoreSource(Protocol):
    """An export as of one moment. Topics by name; group positions by group and (topic name, partition)."""

    @property
    def dataset(self) -> str:
        """The dataset's name."""

    @property
    def cluster_id(self) -> str:
        """The source cluster's own id."""

    @property
    def as_of(self) -> datetime | None:
        """The moment; None: the newest that is stored."""

    @property
    def pinned(self) -> Pinned | None:
        """What it is made of, so that the same can be read again; None for a cluster, which doesn't keep its past."""

    @property
    def topics(self) -> Mapping[str, SourceTopic]:
        """Every topic, by name."""

    @property
    def groups(self) -> Mapping[str, Mapping[tuple[str, int], Commit]]:
        """Every group's positions."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of what is, and isn't, here."""

    @property
    def gaps(self) -> tuple[SourceGap, ...]:
        """What the source lost before it was captured."""

    @property
    def acls(self) -> tuple[Mapping[str, Json], ...]:
        """Access rules, as admin.py describes them."""

    @property
    def subjects(self) -> tuple[Mapping[str, Json], ...]:
        """Schemas of a registry, as they were captured."""

    def slices(self, wanted: Mapping[Where, tuple[int, int]]) -> Iterator[tuple[str, int, memoryview]]:
        """Whole batches of every wanted range, each partition's in order, in bounded memory."""
