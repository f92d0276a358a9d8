"""Facts: what happened to a dataset, as small signed objects in the vault itself.

What belongs here: recording, and finding the latest by listing ordered names. What stays out: what a kind of fact
means. There is no mutable index: the name holds the microsecond, so "latest" is the last name of a widening window.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey, fact_stream
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Receipt, StoredObject, Vault

BODY_LIMIT_BYTES: Final = 16 << 20
SYSTEM_ID: Final = "0"  # facts belong to the dataset, not to one server of it
PREVIOUS_KEY: Final = "previous_key"
WINDOWS: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=30), timedelta(days=366))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Fact:
    """One signed fact. `at` is when it was true by its writer's clock; `header` names signer and predecessor."""

    kind: str
    at: datetime
    body: dict[str, Json]
    key: ObjectKey
    header: Header


def record_fact(
    vault: Vault,
    dataset: str,
    kind: str,
    body: Mapping[str, Json],
    *,
    at: datetime | None = None,
    lock: Lock | None = None,
) -> Receipt:
    """Seal `body` as the dataset's newest fact of `kind`, chained to the one before; returns what was read back.

    `at` is now by default, and never at or before the latest fact then, so that a clock set back hides nothing.
    `lock` is the dataset's rule for facts by default. Raises what `Vault.prepare` and `Vault.put` raise.
    """
    now = vault.clock()
    last = _latest_object(vault, dataset, kind, now)
    if at is None:
        at = now if last is None else max(now, _time_of(last.key.first) + _MICROSECOND)
    first = _microseconds(at)
    prepared = vault.prepare(
        dataset=dataset,
        stream=fact_stream(kind),
        kind="fact",
        system_id=SYSTEM_ID,
        timeline=0,
        first=first,
        last=first + 1,
        begin_at=at,
        end_at=at,
        plaintext=canonical.encode(dict(body)),
        previous=None if last is None else vault.header(last).digest,
        extra={} if last is None else {PREVIOUS_KEY: str(last.key)},
    )
    return vault.put(prepared.seal(), lock or vault.locks.lock(dataset, "fact", vault.clock()))


def latest_fact(vault: Vault, dataset: str, kind: str, *, as_of: datetime | None = None) -> Fact | None:
    """The newest fact of `kind`, opened and verified; None if there is none.

    `as_of` is the store's clock. Raises what `Vault.open` raises: a damaged latest fact is never skipped.
    """
    obj = _latest_object(vault, dataset, kind, as_of or vault.clock(), as_of=as_of)
    return None if obj is None else open_fact(vault, obj)


def facts(
    vault: Vault, dataset: str, kind: str, begin: datetime | None = None, end: datetime | None = None
) -> Iterator[Fact]:
    """All facts of `kind` with begin <= at < end, oldest first; raises what `Vault.open` raises."""
    start = 0 if begin is None else _microseconds(begin)
    for obj in _objects(vault, dataset, kind, start):
        if end is not None and obj.key.first >= _microseconds(end):
            return
        yield open_fact(vault, obj)


def open_fact(vault: Vault, obj: StoredObject) -> Fact:
    """The fact in a listed object."""
    opened = vault.open(obj)
    body = canonical.decode(opened.plaintext, limit_bytes=BODY_LIMIT_BYTES, what=str(obj.key))
    return Fact(obj.key.stream.removeprefix(fact_stream("")), _time_of(obj.key.first), body, obj.key, opened.header)


def _latest_object(
    vault: Vault, dataset: str, kind: str, now: datetime, as_of: datetime | None = None
) -> StoredObject | None:
    starts = [max(0, _microseconds(now - window)) for window in WINDOWS]
    for start in (*starts, 0):
        last = max(_objects(vault, dataset, kind, start, as_of=as_of), key=lambda obj: obj.key, default=None)
        if last is not None:
            return last
    return None


def _objects(
    vault: Vault, dataset: str, kind: str, start: int, as_of: datetime | None = None
) -> Iterator[StoredObject]:
    return vault.objects(
        dataset, fact_stream(kind), system_id=SYSTEM_ID, timeline=0, start_after_position=start, as_of=as_of
    )


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _time_of(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
