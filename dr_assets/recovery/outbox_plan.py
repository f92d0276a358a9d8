"""What is to be replayed: the list as it is shown, stored in a file, and held to before anything is sent.

What belongs here: the plan's shape, its digest, its file. What stays out: making one (outbox.py), sending
(outbox_replay.py).

A plan holds no payload: only each one's SHA-256. The payload is read from the ledger when it is sent.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.streams.rules import StreamRules

VERSION: Final = 1
Place = tuple[str, int]


class Entry(NamedTuple):
    """One event that its topic lacks. `partition` is where it goes, `position` its place in the order of replay."""

    position: int
    transfer: str
    topic: str
    partition: int
    idempotency_key: str
    message_key: str | None
    payload_sha256: str


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """A group's next offset when the plan was made, in a partition that the replay writes to."""

    group: str
    topic: str
    partition: int
    committed: int


@dataclass(frozen=True)
class OutboxPlan:
    """All that a replay does, and what it found when it was made.

    `begins` is where each topic was read from, `ends` up to where: what is missing was looked for in between, and what
    the replay writes lies behind. `snapshot_lsn` is the ledger's position, None where it has none.
    """

    dataset: str
    contract: str
    cluster_id: str
    partitioner: str
    rules: StreamRules
    made_at: datetime
    snapshot_at: datetime
    snapshot_lsn: str | None
    since: datetime | None
    rows: int
    begins: Mapping[Place, int]
    ends: Mapping[Place, int]
    groups: tuple[GroupPlace, ...]
    entries: tuple[Entry, ...] = field(repr=False)

    @property
    def transactional_id(self) -> str:
        """Of one ledger there is one: a replay that begins ends what another had open, and keeps it from going on."""
        return f"dr-assets-outbox-{self.dataset}"

    @property
    def counts(self) -> dict[str, int]:
        """How many events each topic lacks."""
        return dict(sorted(Counter(entry.topic for entry in self.entries).items()))

    @cached_property
    def places(self) -> frozenset[Place]:
        """The partitions that the replay writes to."""
        return frozenset((entry.topic, entry.partition) for entry in self.entries)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is to be done and where, whenever the plan was made."""
        text = json.dumps(
            [self.dataset, self.contract, self.cluster_id, self.partitioner, self._place_of_key(), list(self.entries)],
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def _place_of_key(self) -> dict[str, Any]:
        return {"header": self.rules.header, "json_path": self.rules.json_path, "is_key": self.rules.is_key}

    def to_json(self) -> dict[str, Any]:
        """The plan's file."""
        return {
            "outbox_plan": VERSION,
            "digest": self.digest,
            "dataset": self.dataset,
            "contract": self.contract,
            "cluster_id": self.cluster_id,
            "partitioner": self.partitioner,
            "key": self._place_of_key(),
            "made_at": self.made_at.isoformat(),
            "snapshot_at": self.snapshot_at.isoformat(),
            "snapshot_lsn": self.snapshot_lsn,
            "since": self.since.isoformat() if self.since else None,
            "rows": self.rows,
            "counts": self.counts,
            "topics": [
                {"topic": topic, "partition": partition, "begin": begin, "end": self.ends[topic, partition]}
                for (topic, partition), begin in sorted(self.begins.items())
            ],
            "groups": [
                {"group": one.group, "topic": one.topic, "partition": one.partition, "committed": one.committed}
                for one in self.groups
            ],
            "entries": [entry._asdict() for entry in self.entries],
        }

    def save(self, path: Path) -> None:
        """Write it to a new file. Raises PolicyError (`outbox.plan_exists`)."""
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(self.to_json(), file, indent=1)
        except FileExistsError:
            raise PolicyError("outbox.plan_exists", f"{path} exists", "name another file: a plan is kept") from None


def load_plan(path: Path) -> OutboxPlan:
    """A plan as it was saved. Raises PolicyError (`outbox.plan_unreadable`), also when its digest is not its own."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        plan, digest = _plan_of(said), said["digest"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, f"it is no plan ({type(error).__name__})") from None
    if plan.digest != digest:
        raise _unreadable(path, "what it lists is not what its digest was made of")
    return plan


def _plan_of(said: dict[str, Any]) -> OutboxPlan:
    if said["outbox_plan"] != VERSION:
        message = "another version"
        raise ValueError(message)
    places = [((row["topic"], row["partition"]), row) for row in said["topics"]]
    return OutboxPlan(
        dataset=said["dataset"],
        contract=said["contract"],
        cluster_id=said["cluster_id"],
        partitioner=said["partitioner"],
        rules=StreamRules(said["key"]["header"], said["key"]["json_path"], said["key"]["is_key"]),
        made_at=datetime.fromisoformat(said["made_at"]),
        snapshot_at=datetime.fromisoformat(said["snapshot_at"]),
        snapshot_lsn=said["snapshot_lsn"],
        since=datetime.fromisoformat(said["since"]) if said["since"] else None,
        rows=said["rows"],
        begins={place: row["begin"] for place, row in places},
        ends={place: row["end"] for place, row in places},
        groups=tuple(GroupPlace(**row) for row in said["groups"]),
        entries=tuple(Entry(**row) for row in said["entries"]),
    )


def _unreadable(path: Path, found: str) -> PolicyError:
    return PolicyError("outbox.plan_unreadable", f"{path}: {found}", "make the plan anew: dr-assets outbox plan")
