"""Each kind of store asked for its own newest moment, and for where it stands at another one. Reads the vault alone.

What belongs here: the reading, by each store's own plan, so that what is said is what a restore would do. What stays
out: which moment it is to be (point.py), restoring (estate_restore.py).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.estate.model import BucketDataset, Dataset, Estate, PostgresDataset, TopicsDataset
from dr_assets.recovery.point import (
    LATEST,
    EstatePoint,
    Moment,
    Newest,
    StorePoint,
    common_moment,
    skew_ms,
)
from dr_assets.stores.bucket.position import recovery_point as copy_point
from dr_assets.stores.bucket.runs import microseconds, stored_runs
from dr_assets.stores.bucket.runs import moment as moment_of
from dr_assets.stores.kafka.export import open_export
from dr_assets.stores.kafka.position import stored_recovery_point as topics_point
from dr_assets.stores.kafka.survey import TOPICS
from dr_assets.stores.objective import NOTHING_STORED
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.position import stored_recovery_point as commits_point
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.vault import Receipt, Vault

RECOVERY_POINT: Final = "estate_recovery_point"
DATASET: Final = "vault"  # what belongs to no single dataset
_POSTGRES_CLOCK: Final = "Postgres' commit times"
_BUCKET_CLOCK: Final = "LastModified of the bucket's store"
_SECOND: Final = timedelta(seconds=1)
_T = TypeVar("_T")
_Standing = tuple[dict[str, Json], dict[str, Json], list[str]]
_GRAINS: Final = {"postgres": timedelta(microseconds=1), "kafka": timedelta(milliseconds=1), "bucket": _SECOND}


def recovery_point(
    estate: Estate,
    vaults: Mapping[str, Vault],
    to: datetime | str = LATEST,
    *,
    strict: bool = False,
    apart: Sequence[str] = (),
    now: datetime | None = None,
    positions: bool = True,
) -> EstatePoint:
    """The estate's recovery point by `vaults`, one for each dataset's name; one region alone will do.

    `to` is `latest-consistent` or a moment. `strict` lets buckets hold the whole back, `apart` keeps datasets from it.
    Without `positions` only the newest heartbeats are looked at, which costs a few requests however much is stored: no
    store's position is told, nor is it proven that a restore leads there. Raises PolicyError `recovery_point.beyond`,
    and whatever keeps a store from being restored at all, with its name.
    """
    asked = to if isinstance(to, datetime) else None
    looked_at = now or datetime.now(UTC)
    with ThreadPoolExecutor(thread_name_prefix="points") as pool:
        looking = {
            name: pool.submit(_newest, vaults[name], dataset, proven=positions)
            for name, dataset in estate.datasets.items()
        }
        newest = {name: _told(name, future.result) for name, future in looking.items()}
        moment = common_moment(list(newest.values()), asked, strict=strict, apart=apart)
        standing = {
            name: pool.submit(_stand, vaults[name], dataset, newest[name], moment, positions=positions)
            for name, dataset in estate.datasets.items()
        }
        stores = {name: _told(name, future.result) for name, future in standing.items()}
    return EstatePoint(
        estate=estate.name,
        asked=LATEST if asked is None else format_time(asked),
        at=moment.at,
        looked_at=looked_at,
        stores=stores,
        held_back_by=moment.held_back_by,
        is_strict=strict,
    )


def record_point(vault: Vault, point: EstatePoint) -> Receipt:
    """Seal it as a fact of the whole estate. Raises what `record_fact` raises."""
    return record_fact(vault, DATASET, RECOVERY_POINT, point.to_json())


def _told(name: str, ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except DrError as error:
        error.add_note(f"this is about dataset {name}")
        raise


def _newest(vault: Vault, dataset: Dataset, *, proven: bool) -> Newest:
    match dataset:
        case PostgresDataset():
            return _newest_commit(vault, dataset) if proven else _newest_beat(vault, dataset)
        case TopicsDataset():
            return _newest_record(vault, dataset)
        case BucketDataset():
            return _newest_listing(vault, dataset)
        case _:
            raise TypeError(dataset.kind)


def _stand(vault: Vault, dataset: Dataset, newest: Newest, moment: Moment, *, positions: bool) -> StorePoint:
    at = min(newest.at, moment.at)
    position: dict[str, Json] = {}
    beyond: dict[str, Json] = {}
    notes: list[str] = []
    match dataset:
        case _ if not positions:
            pass
        case PostgresDataset():
            position, beyond, notes = _commits_at(vault, dataset, newest, at)
        case TopicsDataset():
            position, beyond, notes = _records_at(vault, dataset, at)
        case _:
            position, beyond, notes = _documents_at(vault, dataset, at)
    beyond |= {"newest_at": format_time(newest.at), "span_ms": max(0, skew_ms(newest.at, at))}
    return StorePoint(
        dataset=dataset.name,
        kind=dataset.kind,
        at=at,
        skew_ms=skew_ms(at, moment.at),
        grain_ms=max(1, newest.grain // timedelta(milliseconds=1)),
        clock=newest.clock,
        clock_ahead_ms=newest.clock_ahead_ms,
        newest_at=newest.at,
        stored_at=newest.stored_at,
        position=position,
        beyond=beyond,
        notes=tuple(notes),
    )


def _newest_commit(vault: Vault, dataset: PostgresDataset) -> Newest:
    plan = plan_restore(vault, dataset.name, Target("latest"))
    if plan.reachable_at is None:
        raise _undated(dataset, "no heartbeat dates its WAL")
    return _made(dataset, plan.reachable_at, plan.pieces[-1].modified_at, _POSTGRES_CLOCK)


def _newest_beat(vault: Vault, dataset: PostgresDataset) -> Newest:
    point = commits_point(vault, dataset)
    if point is None or point.at is None:
        raise _undated(dataset, NOTHING_STORED if point is None else "no heartbeat dates its WAL")
    # What is proven by a beat was committed before it.
    return _made(dataset, point.at - _GRAINS["postgres"], _stored_at(vault, point.key), _POSTGRES_CLOCK)


def _newest_record(vault: Vault, dataset: TopicsDataset) -> Newest:
    point = topics_point(vault, dataset)
    if point is None or point.at is None:
        raise _undated(dataset, NOTHING_STORED if point is None else "its capture has not had everything yet")
    return _made(dataset, point.at, _stored_at(vault, point.newest_key), "the capture's")


def _newest_listing(vault: Vault, dataset: BucketDataset) -> Newest:
    point = copy_point(vault, dataset.name)
    if point is None or point.at is None or point.manifest_key is None:
        raise _undated(dataset, NOTHING_STORED if point is None else "no run could read everything yet")
    return _made(dataset, point.at, _stored_at(vault, str(point.fact.key)), _BUCKET_CLOCK)


def _made(dataset: Dataset, at: datetime, stored_at: datetime, clock: str) -> Newest:
    return Newest(dataset.name, dataset.kind, at, stored_at, clock, _GRAINS[dataset.kind])


def _stored_at(vault: Vault, name: str) -> datetime:
    key = ObjectKey.parse(name)
    if key is None:
        raise VaultError("vault.malformed", f"'{name[:200]}' is no object's name", "run `dr-assets vault verify`")
    return vault.find(key).modified_at


def _commits_at(vault: Vault, dataset: PostgresDataset, newest: Newest, at: datetime) -> _Standing:
    """The last piece that a restore would lay holds the position: which byte it is, only the replay finds out."""
    plan = plan_restore(vault, dataset.name, Target("time", at=at))
    piece = plan.pieces[-1]
    position: dict[str, Json] = {
        "lsn_after": format_lsn(piece.key.first),
        "lsn_before": format_lsn(piece.key.last),
        "timeline": piece.key.timeline,
        "system_id": piece.key.system_id,
        "base_backup": plan.base.snapshot_id,
        "fetch_bytes": plan.fetch_bytes,
    }
    beyond: dict[str, Json] = {"bytes": max(0, plan.chain_end - piece.key.last)} if newest.at > at else {}
    return position, beyond, list(plan.notes)


def _records_at(vault: Vault, dataset: TopicsDataset, at: datetime) -> _Standing:
    """By the records alone: what was surveyed beside them is read by a restore, not by every look at the moment."""
    export = open_export(vault, dataset.name, survey=False)
    names = {topic.topic_id: topic for topic in export.topics.values() if not topic.is_gone}
    ends = {where: end for where, end in export.positions_at(at).items() if where[0] in names}
    position: dict[str, Json] = {
        "ends": {f"{names[topic_id].name}/{index}": end for (topic_id, index), end in sorted(ends.items())},
        "timestamps": _timestamp_types(vault, dataset),
        "packs": export.packs,
        "system_id": export.system_id,
    }
    beyond = sum(max(0, names[topic_id].partitions[index].next - end) for (topic_id, index), end in ends.items())
    return position, {"records": beyond}, []


def _timestamp_types(vault: Vault, dataset: TopicsDataset) -> list[Json]:
    """Whose clock the records carry: CreateTime where a topic says nothing else (a broker's own default may differ)."""
    seen = latest_fact(vault, dataset.name, TOPICS)
    listed = {} if seen is None else seen.body.get("topics")
    own = [one.get("configs") for one in listed.values() if isinstance(one, dict)] if isinstance(listed, dict) else []
    kinds = {str(configs.get("message.timestamp.type", "CreateTime")) for configs in own if isinstance(configs, dict)}
    return list[Json](sorted(kinds))


def _documents_at(vault: Vault, dataset: Dataset, at: datetime) -> _Standing:
    runs = stored_runs(vault, dataset.name)
    first_at = moment_of(runs[0].key.first)
    if at < first_at:
        raise PolicyError(
            "recovery_point.too_old",
            f"{at.isoformat()} lies before the first listing that is kept, which began at {first_at.isoformat()}",
            "ask for a later moment",
        )
    behind = next((one for one in runs if one.key.first >= microseconds(at)), runs[-1])
    position: dict[str, Json] = {"run": str(behind.key), "listed_at": format_time(moment_of(behind.key.first))}
    return position, {}, []


def _undated(dataset: Dataset, why: str) -> VaultError:
    return VaultError(
        "recovery_point.unknown",
        f"{dataset.name} has no recovery point: {why}",
        "see `dr-assets status`; with --only the other datasets have one of their own",
    )
