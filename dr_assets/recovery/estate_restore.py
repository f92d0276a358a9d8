"""Restoring every dataset of an estate to one recovery point: planned first, several at a time, on record.

What belongs here: the order, the state by which a restore that was killed goes on, what is said of each dataset, the
sealed fact. What stays out: each dataset's own restore (restorers.py), the moment (point.py).

There is no half estate: a dataset is whole, or it is not and the reason is said. One that fails keeps none of the
others from becoming whole; the same call again goes on with those that aren't, to the same moment.
"""

import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.csv as pc

from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import DatasetKind
from dr_assets.proving.record import plain
from dr_assets.reconciliation.cells import harmless
from dr_assets.recovery.orphans import Orphans, find_orphans
from dr_assets.recovery.point import EstatePoint
from dr_assets.recovery.restorers import DatasetPlan, Ground, Restorer, restorer_of
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, parse_time
from dr_assets.vault.vault import Receipt, Vault

ESTATE_RESTORE: Final = "estate_restore"
DATASET: Final = "vault"  # what belongs to no single dataset
STATE: Final = "estate-restore.json"
ORPHANS: Final = "orphans.csv"
_KINDS: Final[tuple[DatasetKind, ...]] = ("postgres", "kafka", "bucket")

State = Literal["waiting", "begun", "whole", "failed"]


@dataclass(slots=True)
class Outcome:
    """What became of one dataset; `details` are measured by its own restore."""

    dataset: str
    kind: DatasetKind
    state: State = "waiting"
    reason: str = "not begun"
    duration_s: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """For the state file and the fact."""
        return plain(
            {
                "dataset": self.dataset,
                "kind": self.kind,
                "state": self.state,
                "reason": self.reason,
                "duration_s": self.duration_s,
                "details": self.details,
            }
        )


@dataclass(slots=True)
class EstateRestored:
    """What the whole restore came to. `orphans` are None while nobody could count them; `notes` say why."""

    point: Mapping[str, Json]
    outcomes: tuple[Outcome, ...]
    orphans: Orphans | None
    duration_s: float
    notes: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every dataset came back."""
        return all(one.state == "whole" for one in self.outcomes)

    @property
    def money_adds_up(self) -> bool:
        """Whether every database that came back was reconciled without a break."""
        books = [one.details.get("reconciliation") for one in self.outcomes if one.kind == "postgres"]
        return all(isinstance(said, Mapping) and said.get("ok") is True for said in books)

    def to_json(self) -> dict[str, Json]:
        """For the fact and `--json`."""
        return {
            "point": dict(self.point),
            "whole": self.is_whole,
            "outcomes": [one.to_json() for one in self.outcomes],
            "orphans": None if self.orphans is None else self.orphans.to_json(),
            "money_adds_up": self.money_adds_up,
            "duration_ms": round(self.duration_s * 1000),
            "notes": list[Json](self.notes),
        }


class EstateRestore:
    """One restore of an estate into `ground.targets`, begun or gone on with."""

    def __init__(self, point: Mapping[str, Json], vaults: Mapping[str, Vault], ground: Ground) -> None:
        self._point = point
        self._vaults = vaults
        self._ground = ground
        self._mutex = Lock()
        moments = _moments(point)
        _require_told(ground.estate.datasets, moments)
        datasets = sorted(ground.estate.datasets.values(), key=lambda one: (_KINDS.index(one.kind), one.name))
        self._restorers: dict[str, Restorer] = {
            one.name: restorer_of(vaults[one.name], one, moments[one.name], ground) for one in datasets
        }
        self._outcomes = {one.name: Outcome(one.name, one.kind) for one in datasets}
        self._uncounted: dict[str, str] = {}
        for name, said in _begun(self._state).items():
            if name in self._outcomes:
                self._outcomes[name] = said

    @property
    def _state(self) -> Path:
        return self._ground.targets.into / STATE

    def plan(self) -> list[DatasetPlan]:
        """What each that isn't whole yet would do; nothing is touched. Raises as the stores' own planning."""
        return [_told(name, one.plan) for name, one in self._restorers.items() if self._outcomes[name].state != "whole"]

    def run(self, told: Callable[[Outcome], None] = lambda _: None) -> EstateRestored:
        """Restore what isn't whole yet: kinds beside each other, datasets of one kind in turn. Then the orphans, anew.

        Raises nothing for a dataset that can't be restored, whatever ended it: its outcome says so. `told` hears of
        each change.
        """
        begin_s = time.monotonic()
        keep_freed_memory()
        self._ground.targets.into.mkdir(mode=0o711, parents=True, exist_ok=True)
        (self._ground.targets.into / "beside").mkdir(mode=0o700, exist_ok=True)
        self._save()
        lanes = [[name for name, one in self._restorers.items() if one.kind == kind] for kind in _KINDS]
        with ThreadPoolExecutor(len(lanes), thread_name_prefix="estate") as pool:
            for done in [pool.submit(self._lane, lane, told) for lane in lanes if lane]:
                done.result()
        orphans = self._counted()
        return EstateRestored(
            self._point, tuple(self._outcomes.values()), orphans, time.monotonic() - begin_s, self._notes()
        )

    def _lane(self, names: Iterable[str], told: Callable[[Outcome], None]) -> None:
        for name in names:
            if self._outcomes[name].state == "whole":
                self._look_again(name)
            else:
                self._restore(name, told)

    def _look_again(self, name: str) -> None:
        """What is whole stays so: only its orphans are not known."""
        try:
            self._restorers[name].look_again()
        except Exception as error:  # noqa: BLE001 - on record, and the exit code tells
            self._uncounted[name] = self._why(name, error)

    def _restore(self, name: str, told: Callable[[Outcome], None]) -> None:
        one, outcome, begin_s = self._restorers[name], self._outcomes[name], time.monotonic()
        if outcome.state == "begun" and one.kind == "postgres":
            # A run that was killed has left half a cluster, which this state file says is ours.
            shutil.rmtree(self._ground.targets.into / name, ignore_errors=True)
        self._note(outcome, told, "begun", "under way", begin_s)
        try:
            outcome.details = one.restore()
        except Exception as error:  # noqa: BLE001 - a driver's or the disk's is this dataset's alone, too
            self._note(outcome, told, "failed", self._why(name, error), begin_s)
            return
        except BaseException as ended:
            self._note(outcome, told, "begun", f"ended by {type(ended).__name__}", begin_s)
            raise
        self._note(outcome, told, "whole", "restored and checked", begin_s)

    def _why(self, name: str, error: Exception) -> str:
        """Ours say it in words that may be sealed. Another's may hold anything: its type alone, its trace aside."""
        if isinstance(error, DrError):
            return f"{error.code}: {error.found}"
        trace, place = "", self._ground.side(f"{name}.failed.txt")
        with suppress(OSError):  # a full disk holds no trace either
            place.touch(mode=0o600)
            place.write_text("".join(traceback.format_exception(error)))
            trace = f"; its trace is in {place}"
        told = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
        return f"estate.unforeseen: {type(error).__module__}.{type(error).__qualname__}{told}{trace}"

    def _note(
        self, outcome: Outcome, told: Callable[[Outcome], None], state: State, reason: str, begin_s: float
    ) -> None:
        with self._mutex:
            outcome.state, outcome.reason, outcome.duration_s = state, reason, time.monotonic() - begin_s
            self._save()
            told(outcome)

    def _save(self) -> None:
        """Whole or not at all."""
        said = {"point": self._point, "outcomes": [one.to_json() for one in self._outcomes.values()]}
        handle, draft = tempfile.mkstemp(dir=self._state.parent, prefix=f".{STATE}.")
        with os.fdopen(handle, "w") as file:
            json.dump(said, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(self._state)

    def _counted(self) -> Orphans | None:
        try:
            return None if self._uncounted else self._orphans()
        except Exception as error:  # noqa: BLE001 - what came back is put on record all the same
            self._uncounted["orphans"] = self._why("orphans", error)
            return None

    def _orphans(self) -> Orphans | None:
        """None while something isn't whole: what lacks would be counted as orphans of all that is there."""
        if not all(one.state == "whole" for one in self._outcomes.values()):
            return None
        relations: dict[str, dict[str, Path]] = {}
        for name, one in self._outcomes.items():
            for relation, path in _laid_aside(self._ground.side(name), one.kind).items():
                relations.setdefault(relation, {})[name] = path
        found = find_orphans(relations, [name for name, one in self._outcomes.items() if one.kind == "postgres"])
        path = self._ground.targets.into / ORPHANS
        path.touch(mode=0o600)
        pc.write_csv(_for_people(found.rows), str(path))
        return found

    def _notes(self) -> list[str]:
        notes = [f"orphans are not counted: {name}: {why}" for name, why in self._uncounted.items()]
        lacking = [name for name, one in self._outcomes.items() if one.state != "whole"]
        if not lacking:
            return notes
        return [
            f"not whole: {', '.join(lacking)}; the same command again goes on with these, to the same moment",
            *notes,
        ]


def _laid_aside(folder: Path, kind: DatasetKind) -> dict[str, Path]:
    """The relations that a dataset's restore has left beside it."""
    names: dict[DatasetKind, Sequence[str]] = {
        "postgres": ("transfers", "outbox", "players"),
        "kafka": ("records", "partitions", "group_offsets"),
        "bucket": ("documents",),
    }
    return {name: path for name in names[kind] if (path := folder / f"{name}.parquet").is_file()}


def _for_people(rows: pa.Table) -> pa.Table:
    """The same, no cell of it a formula: outsiders choose references."""
    for name in ("reference", "place"):
        texts = [None if text is None else harmless(text) for text in rows.column(name).to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(texts, pa.string()))
    return rows


def begun_point(into: Path) -> Mapping[str, Json] | None:
    """The point of a restore that was begun in this folder; None where none was. Raises PolicyError."""
    said = _read(into / STATE)
    return None if said is None else said["point"]


def record_restore(vault: Vault, restored: EstateRestored) -> Receipt:
    """Seal what became of each dataset as a fact of the whole estate. Raises what `record_fact` raises."""
    return record_fact(vault, DATASET, ESTATE_RESTORE, restored.to_json())


def point_of(point: EstatePoint) -> Mapping[str, Json]:
    """What a restore keeps of a point."""
    return point.to_json()


def _moments(point: Mapping[str, Json]) -> dict[str, datetime]:
    stores = point["stores"]
    rows = [one for one in stores if isinstance(one, dict)] if isinstance(stores, list) else []
    return {str(one["dataset"]): parse_time(one["at"], "the recovery point").astimezone(UTC) for one in rows}


def _require_told(datasets: Iterable[str], moments: Mapping[str, datetime]) -> None:
    lacking = sorted(set(datasets) - set(moments))
    if lacking:
        raise PolicyError(
            "estate.restore_state",
            f"the recovery point says nothing of {', '.join(lacking)}",
            "go on with the datasets that the restore was begun with (--only), or begin in another folder",
        )


def _begun(path: Path) -> dict[str, Outcome]:
    said = _read(path)
    if said is None:
        return {}
    rows = [Outcome(**one) for one in said["outcomes"]]
    return {one.dataset: one for one in rows}


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        try:
            said: dict[str, Any] = json.loads(path.read_text())
            if isinstance(said["point"], dict) and isinstance(said["outcomes"], list):
                return said
        except (ValueError, KeyError, TypeError):
            pass
        raise PolicyError(
            "estate.restore_state", f"{path} can't be read as a begun restore", "choose another, empty --into folder"
        )
    return None


def _told(name: str, ask: Callable[[], DatasetPlan]) -> DatasetPlan:
    try:
        return ask()
    except DrError as error:
        error.add_note(f"this is about dataset {name}; nothing was touched")
        raise
