"""What a restore that is begun leaves on the disk, so that it can be gone on with after a kill: by anybody, anywhere.

What belongs here: that small file. What stays out: how far the restore is, for the target's own ends tell that.

It says which topics of the target are ours, and where each partition was to end: `latest` of the second run would be
another one. It holds no record and no secret.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.restore_plan import RestorePlan
from dr_assets.stores.kafka.restore_source import Pinned


@dataclass(slots=True)
class RestoreState:
    """A restore that is begun. `behind` is where the target's partitions ended before, `ids` its topics' ids.

    `pinned` is what of the vault it was begun with: the source may go on being captured, and its retention go on.
    """

    path: Path
    fingerprint: str
    ends: dict[tuple[str, int], int]
    behind: dict[str, dict[int, int]]
    ids: dict[str, str] = field(default_factory=dict)
    phase: str = "begun"
    pinned: Pinned | None = None

    @classmethod
    def of(cls, path: Path, plan: RestorePlan) -> Self:
        """A state for a plan that is about to be carried out."""
        ends = {(topic.source.name, each.partition): each.end for topic in plan.topics for each in topic.partitions}
        behind = {
            topic.target: {each.partition: each.behind for each in topic.partitions if each.behind}
            for topic in plan.topics
        }
        return cls(path, plan.fingerprint, ends, behind, pinned=plan.source.pinned)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """What a run before has left; None when there is no such file. Raises PolicyError (`kafka.restore_state`)."""
        try:
            said: Any = json.loads(path.read_text())
            return cls(
                path,
                said["fingerprint"],
                {(topic, partition): end for topic, partition, end in said["ends"]},
                {topic: {int(at): end for at, end in ends.items()} for topic, ends in said["behind"].items()},
                dict(said["ids"]),
                said["phase"],
                _pinned(said.get("export")),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyError(
                "kafka.restore_state",
                f"{path} can't be read as a begun restore: {type(error).__name__}",
                "name another file with --state; without it a restore begins anew",
            ) from error

    def save(self) -> None:
        """Write it, whole or not at all."""
        said: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "ends": [[topic, partition, end] for (topic, partition), end in sorted(self.ends.items())],
            "behind": {topic: {str(at): end for at, end in ends.items()} for topic, ends in self.behind.items()},
            "ids": self.ids,
            "phase": self.phase,
        }
        if self.pinned is not None:
            at = self.pinned.surveyed_at
            said["export"] = [self.pinned.system_id, self.pinned.packs, None if at is None else at.isoformat()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        with os.fdopen(handle, "w") as file:
            json.dump(said, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(self.path)

    def advance(self, phase: str) -> None:
        """Note that a phase is reached."""
        self.phase = phase
        self.save()

    def require_same(self, plan: RestorePlan) -> None:
        """Raises PolicyError (`kafka.restore_state`) unless this is the same restore."""
        if self.phase == "finished":
            raise PolicyError(
                "kafka.restore_state", f"the restore in {self.path} is finished",
                "name another file with --state for another restore",
            )  # fmt: skip
        if self.fingerprint != plan.fingerprint:
            raise PolicyError(
                "kafka.restore_state",
                f"{self.path} is of another restore: other topics, ends, methods or another target",
                "go on with the same options, or name another file with --state and other topics",
            )

    def require_ids(self, found: Mapping[str, str]) -> None:
        """Raises PolicyError (`kafka.restore_recreated`) when a topic of ours was deleted and made again meanwhile."""
        for name, topic_id in found.items():
            if self.ids.get(name, topic_id) != topic_id:
                raise PolicyError(
                    "kafka.restore_recreated",
                    f"topic {name} was deleted and made again since this restore began",
                    "begin anew: delete the topic and the state file",
                )


def _pinned(said: Any) -> Pinned | None:
    """None in files of before this was kept."""
    if said is None:
        return None
    system_id, packs, at = said
    return Pinned(str(system_id), int(packs), None if at is None else datetime.fromisoformat(at))
