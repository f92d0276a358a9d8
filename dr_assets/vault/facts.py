"""Facts: what happened to a dataset, as small signed objects in the vault itself.

What belongs here: recording, and finding the latest by listing ordered names. What stays out: what a kind of fact
means. There is no mutable index: the name holds the microsecond, so "latest" is the last name of a widening window.

Anybody who may write can lay anything under a fitting name, and lock it there for years. So what was never ours is
passed over, and `vault verify` reports it; what was ours and is damaged is never passed over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey, fact_stream
from dr_assets.vault.format.segment import Opened, check_belongs, open_sealed, verify_envelope
from dr_assets.vault.format.sizes import FACT_LIMIT_BYTES, stored_limit
from dr_assets.vault.retention import CLOCK_SKEW_LIMIT
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Receipt, StoredObject, Vault

SYSTEM_ID: Final = "0"  # facts belong to the dataset, not to one server of it
PREVIOUS_KEY: Final = "previous_key"
WINDOWS: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=30), timedelta(days=366))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_STORE_CLOCK_STEP: Final = timedelta(seconds=1)  # stores tell whole seconds
_LISTING_SLACK: Final = timedelta(days=1)  # wide, since it only saves listing: a clock set back must not hide facts
# What bytes can be that have the digest in their name and were not sealed by one of ours for this place.
_NEVER_OURS: Final = frozenset(
    f"vault.{what}"
    for what in ("malformed", "newer_version", "untrusted_signer", "bad_signature", "tampered", "misplaced")
)


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
    last = next(_newest_first(vault, dataset, kind, now), None)
    if at is None:
        at = now if last is None else max(now, _time_of(last.obj.key.first) + _MICROSECOND)
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
        previous=None if last is None else last.header.digest,
        extra={} if last is None else {PREVIOUS_KEY: str(last.obj.key)},
    )
    return vault.put(prepared.seal(), lock or vault.locks.lock(dataset, "fact", vault.clock()))


def latest_fact(vault: Vault, dataset: str, kind: str, *, as_of: datetime | None = None) -> Fact | None:
    """The newest fact of `kind`, opened and verified; None if there is none.

    `as_of` is the store's clock. Passed over is what is dated after the store took it, and what was never sealed by one
    of ours. Raises what `Vault.open` raises: a damaged latest fact is never passed over.
    """
    last = next(_newest_first(vault, dataset, kind, as_of or vault.clock(), as_of), None)
    return None if last is None else _fact(vault, last)


def facts(
    vault: Vault,
    dataset: str,
    kind: str,
    begin: datetime | None = None,
    end: datetime | None = None,
    *,
    as_of: datetime | None = None,
) -> Iterator[Fact]:
    """All facts of `kind` with begin <= at < end, oldest first; passes over and raises what `latest_fact` does.

    `as_of` is the store's clock, as for `latest_fact`.
    """
    start = 0 if begin is None else _microseconds(begin)
    for obj in _objects(vault, dataset, kind, start, as_of):
        if end is not None and obj.key.first >= _microseconds(end):
            return
        believed = _believed(vault, obj)
        if believed is not None:
            yield _fact(vault, believed)


def is_misdated(position: int, stored_at: datetime) -> bool:
    """Whether a fact's position (microseconds since the epoch) lies after the store's clock at its put.

    A writer whose clock ran ahead, or somebody who wants to be the latest for ever.
    """
    return position > _microseconds(stored_at + CLOCK_SKEW_LIMIT + _STORE_CLOCK_STEP)


@dataclass(frozen=True, slots=True)
class _Believed:
    """A listed object whose bytes one of ours sealed for this very place; nothing is decrypted yet."""

    obj: StoredObject
    data: bytes
    header: Header


def _fact(vault: Vault, believed: _Believed) -> Fact:
    key = believed.obj.key
    opened: Opened = open_sealed(believed.data, trust=vault.trust, key_of=vault.keys.key_of, key=key)
    body = canonical.decode(opened.plaintext, limit_bytes=FACT_LIMIT_BYTES, what=str(key))
    return Fact(key.stream.removeprefix(fact_stream("")), _time_of(key.first), body, key, opened.header)


def _newest_first(
    vault: Vault, dataset: str, kind: str, now: datetime, as_of: datetime | None = None
) -> Iterator[_Believed]:
    """The facts of one kind, backwards; no more is listed and read than is asked for."""
    seen: set[ObjectKey] = set()
    for start in (*(max(0, _microseconds(now - window)) for window in WINDOWS), 0):
        found = [obj for obj in _objects(vault, dataset, kind, start, as_of) if obj.key not in seen]
        for obj in sorted(found, key=lambda obj: obj.key, reverse=True):
            seen.add(obj.key)
            believed = _believed(vault, obj)
            if believed is not None:
                yield believed


def _objects(
    vault: Vault, dataset: str, kind: str, start: int, as_of: datetime | None = None
) -> Iterator[StoredObject]:
    """Those that may be facts by name, time and size."""
    end: int | None = None
    for obj in vault.objects(
        dataset, fact_stream(kind), system_id=SYSTEM_ID, timeline=0, start_after_position=start, as_of=as_of
    ):
        # Nothing dated later was put yet, so strangers can't make every listing long by filling the far future.
        end = end or _microseconds(vault.store.recent_now() + CLOCK_SKEW_LIMIT + _LISTING_SLACK)
        if obj.key.first > end:
            return
        if not is_misdated(obj.key.first, obj.modified_at) and obj.size_bytes <= stored_limit(obj.key.stream):
            yield obj


def _believed(vault: Vault, obj: StoredObject) -> _Believed | None:
    """The object if it is ours, None if it never was. Raises VaultError for what was ours and is damaged."""
    name = str(obj.key)
    try:
        data = vault.fetch(obj)
    except VaultError as error:
        if error.code == "vault.tampered" and not _was_whole(vault, obj):
            return None
        raise
    try:
        header = verify_envelope(data, vault.trust, name=name).header
        check_belongs(header, obj.key, name=name)
    except VaultError as error:
        if error.code in _NEVER_OURS:
            return None
        raise
    return _Believed(obj, data, header)


def was_ours(vault: Vault, obj: StoredObject) -> bool:
    """Whether one of ours sealed what lies under this name for this very place, though it may be damaged since.

    False for what a stranger laid there. Raises VaultError where that can't be told.
    """
    try:
        return _believed(vault, obj) is not None
    except VaultError as error:
        if error.code in {"vault.tampered", "vault.missing"}:
            return True
        raise


def _was_whole(vault: Vault, obj: StoredObject) -> bool:
    """Whether bytes that have not the digest in their name had it when the store took them, or may have had it.

    The store's own checksum is of what was put. Where it keeps none, only a header that one of ours signed for this
    very place tells damage from what a stranger laid there.
    """
    head = vault.store.head(str(obj.key), obj.version_id or None)
    if head is not None and head.sha256 is not None:
        return head.sha256.startswith(obj.key.digest)
    try:
        vault.header_of_ends(obj)
    except VaultError as error:
        if error.code in _NEVER_OURS:
            return False
        raise
    return True


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _time_of(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
