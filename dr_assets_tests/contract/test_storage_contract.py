"""What every object store must do, held against memory and against a real SeaweedFS."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.storage import Lock, ObjectStore, Put
from dr_assets.vault.storage import s3 as s3_module
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.storage.versions import authentic, get_authentic, scan

PLACE = "casino/ledger/wal/7/00000001/"


class Bench:
    """A store with the means to do what only an enemy does, and to let time pass."""

    def __init__(self, store: ObjectStore | None = None) -> None:
        self._ahead = timedelta(0)
        self.store = store or MemoryStore(lambda: datetime.now(UTC) + self._ahead)

    def put(self, key: str, data: bytes, *, days: float = 15) -> Put:
        """As a vault does."""
        return self.store.put(key, data, digest(data), lock(days))

    def overwrite(self, key: str, data: bytes | None) -> None:
        """A version (or a delete marker) on top."""
        if isinstance(self.store, MemoryStore):
            self.store.add(key, data)
        elif isinstance(self.store, S3Store) and data is None:
            self.store.client.delete_object(Bucket=self.store.bucket, Key=key)
        elif isinstance(self.store, S3Store) and data is not None:
            self.store.client.put_object(Bucket=self.store.bucket, Key=key, Body=data)

    def lock_for_seconds(self, mode: Any) -> Lock:
        """Over soon, but not before it was seen to hold: a store that takes its time gets some more."""
        begin_s = time.monotonic()
        self.put(name(9), b"how long does a put take?")
        seconds = 6 + 20 * (time.monotonic() - begin_s)
        return Lock(mode, datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=int(seconds)))

    def outlast(self, lock: Lock) -> None:
        """Until it is over; in memory the clock is turned."""
        if isinstance(self.store, MemoryStore):
            self._ahead = timedelta(minutes=1)
        while self.store.now() <= lock.retain_until:
            time.sleep(0.3)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("seaweedfs", marks=[pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]),
    ]
)
def bench(request: pytest.FixtureRequest) -> Bench:
    """An empty store of each kind."""
    if request.param == "memory":
        return Bench()
    region = request.getfixturevalue("region")
    bucket: Callable[..., str] = request.getfixturevalue("bucket")
    return Bench(S3Store(make_client(region.endpoint, region.access_key, region.secret_key), bucket()))


@pytest.fixture
def small_pages() -> Iterator[Callable[[int], None]]:
    """Listings in pages of a few keys, so that page ends are everywhere."""
    whole = s3_module.PAGE_KEYS
    yield lambda keys: setattr(s3_module, "PAGE_KEYS", keys)
    s3_module.PAGE_KEYS = whole


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def lock(days: float = 15, mode: Any = "COMPLIANCE") -> Lock:
    """From now, in whole seconds."""
    return Lock(mode, (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0))


def name(first: int, text: str = "") -> str:
    """A key of ours at a position."""
    return str(ObjectKey("casino", "ledger", "wal", "7", 1, first, first + 1, digest(text.encode())[:32]))


def code(attempt: Callable[[], object]) -> str:
    """With what an attempt is refused."""
    with pytest.raises(VaultError) as caught:
        attempt()
    return caught.value.code


def test_reads_back_bytes_digest_and_lock(bench: Bench) -> None:
    """What was put is there whole, with the SHA-256 and the very lock that went with it, empty objects included."""
    for key, data in ((name(1), b"money" * 1000), (name(2), b"")):
        wanted = lock()
        put = bench.store.put(key, data, digest(data), wanted)
        head = bench.store.head(key)
        assert head == bench.store.head(key, put.version_id)
        assert head is not None
        assert (head.version_id, head.size_bytes, head.sha256, head.lock) == (
            put.version_id, len(data), digest(data), wanted,
        )  # fmt: skip
        blob = bench.store.get(key, put.version_id)
        assert (blob.data, blob.head.lock) == (data, wanted)
        assert abs(put.store_at - datetime.now(UTC)) < timedelta(seconds=60)
        assert abs(bench.store.now() - datetime.now(UTC)) < timedelta(seconds=60)


def test_no_more_is_read_than_was_allowed(bench: Bench) -> None:
    """Who knows how large an object of its kind can be is not given a larger one; the connection goes on to serve."""
    bench.put(name(1), b"money" * 1000)
    assert code(lambda: bench.store.get(name(1), limit_bytes=4999)) == "vault.too_large"
    assert bench.store.get(name(1), limit_bytes=5000).data == b"money" * 1000
    before, recent, after = bench.store.now(), bench.store.recent_now(), bench.store.now()
    assert before - timedelta(seconds=2) <= recent <= after + timedelta(seconds=2)


def test_what_is_not_there_is_told_apart(bench: Bench) -> None:
    """No head, and an error of its own for bytes; an unknown version likewise."""
    bench.put(name(1), b"x")
    assert bench.store.head(name(2)) is None
    assert bench.store.head(name(1), "nonesuch") is None
    assert code(lambda: bench.store.get(name(2))) == "vault.missing"
    assert code(lambda: bench.store.get(name(1), "nonesuch")) == "vault.missing"
    assert list(bench.store.list_versions("nobody/")) == []


def test_writes_once(bench: Bench) -> None:
    """The same bytes again are the same object; other bytes are a conflict and change nothing."""
    first = bench.put(name(1), b"money")
    again = bench.put(name(1), b"money")
    assert (first.existed, again.existed, again.version_id) == (False, True, first.version_id)
    assert code(lambda: bench.put(name(1), b"other")) == "vault.key_conflict"
    assert [row.version_id for row in bench.store.list_versions(PLACE)] == [first.version_id]


def test_of_racing_puts_one_wins(bench: Bench) -> None:
    """Eight writers with different bytes for one name: one stores, seven get a conflict."""
    barrier = threading.Barrier(8)

    def race(number: int) -> str:
        barrier.wait()
        try:
            return "existed" if bench.put(name(1), b"%d" % number).existed else "stored"
        except VaultError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(race, range(8)))
    assert outcomes == ["stored"] + ["vault.key_conflict"] * 7


def test_a_lock_only_grows(bench: Bench) -> None:
    """Longer is fine; shorter or weaker is refused and changes nothing."""
    put = bench.put(name(1), b"money", days=20)
    longer = lock(30)
    bench.store.extend(name(1), put.version_id, longer)
    for refused in (lock(10), lock(40, "GOVERNANCE")):
        assert code(lambda weaker=refused: bench.store.extend(name(1), put.version_id, weaker)) == "vault.lock_refused"
    head = bench.store.head(name(1), put.version_id)
    assert head is not None
    assert head.lock == longer
    assert code(lambda: bench.store.extend(name(2), "nonesuch", longer)) == "vault.missing"


def test_a_locked_version_can_not_be_deleted(bench: Bench) -> None:
    """Not even by whoever holds the credentials."""
    put = bench.put(name(1), b"money")
    if isinstance(bench.store, S3Store):
        with pytest.raises(bench.store.client.exceptions.ClientError, match="AccessDenied"):
            bench.store.client.delete_object(
                Bucket=bench.store.bucket, Key=name(1), VersionId=put.version_id, BypassGovernanceRetention=True
            )
    elif isinstance(bench.store, MemoryStore):
        assert code(lambda: bench.store.delete_version(name(1), put.version_id)) == "vault.lock_refused"
    assert bench.store.get(name(1), put.version_id).data == b"money"


def test_a_version_is_removed_once_its_lock_is_over_and_not_before(bench: Bench) -> None:
    """One version by its id, whatever lies on top; again is no error; a delete marker is removed the same way."""
    soon = bench.lock_for_seconds("COMPLIANCE")
    put = bench.store.put(name(1), b"money", digest(b"money"), soon)
    assert code(lambda: bench.store.delete_version(name(1), put.version_id)) == "vault.lock_refused"
    kept = bench.put(name(2), b"more")
    bench.overwrite(name(1), None)
    bench.outlast(soon)
    rows = {row.is_delete_marker: row.version_id for row in bench.store.list_name(name(1))}
    assert rows[False] == put.version_id
    bench.store.delete_version(name(1), rows[False])
    bench.store.delete_version(name(1), rows[False])
    bench.store.delete_version(name(1), rows[True])
    assert list(bench.store.list_name(name(1))) == []
    assert bench.store.head(name(1)) is None
    assert code(lambda: bench.store.delete_version(name(2), kept.version_id)) == "vault.lock_refused"
    assert bench.store.get(name(2)).data == b"more"


def test_a_legal_hold_outlasts_every_lock(bench: Bench) -> None:
    """Held, a version stays though its lock is over; released, it goes; the head says which, and twice does no harm."""
    soon = bench.lock_for_seconds("GOVERNANCE")
    put = bench.store.put(name(1), b"money", digest(b"money"), soon)
    other = bench.put(name(2), b"free")
    for _ in range(2):
        bench.store.set_hold(name(1), put.version_id, held=True)
    held, free = bench.store.head(name(1), put.version_id), bench.store.head(name(2), other.version_id)
    assert held is not None
    assert free is not None
    assert (held.held, free.held, held.lock) == (True, False, soon)
    bench.outlast(soon)
    assert code(lambda: bench.store.delete_version(name(1), put.version_id)) == "vault.lock_refused"
    assert bench.store.get(name(1), put.version_id).data == b"money"
    for _ in range(2):
        bench.store.set_hold(name(1), put.version_id, held=False)
    bench.store.delete_version(name(1), put.version_id)
    assert bench.store.head(name(1), put.version_id) is None
    assert code(lambda: bench.store.set_hold(name(3), "nonesuch", held=True)) == "vault.missing"


def test_what_lies_in_no_cold_class_is_read_at_once(bench: Bench) -> None:
    """Neither listing nor head of an ordinary object tells of a class that would have to be thawed."""
    put = bench.put(name(1), b"money")
    (row,) = bench.store.list_versions(PLACE)
    head = bench.store.head(name(1), put.version_id)
    assert head is not None
    assert not head.is_frozen
    assert {row.storage_class, head.storage_class} <= {"", "STANDARD"}


def test_a_delete_marker_frees_the_name_and_harms_nothing(bench: Bench) -> None:
    """A put after it succeeds as a new version; the first is still there by its version."""
    first = bench.put(name(1), b"money")
    bench.overwrite(name(1), None)
    assert bench.store.head(name(1)) is None
    second = bench.put(name(1), b"other")
    assert not second.existed
    assert bench.store.get(name(1), first.version_id).data == b"money"
    rows = list(bench.store.list_versions(name(1)))
    assert sorted(row.is_delete_marker for row in rows) == [False, False, True]


def test_ranges(bench: Bench) -> None:
    """Both ends of an object, and beyond its end, without the rest."""
    put = bench.put(name(1), bytes(range(100)))
    for begin, end in ((0, 10), (90, 100), (95, 1000), (5, 5)):
        assert bench.store.get_range(name(1), put.version_id, begin, end) == bytes(range(100))[begin:end]


@pytest.mark.parametrize("page_keys", [3, 1000])
def test_lists_in_order_and_after_a_name(bench: Bench, small_pages: Callable[[int], None], page_keys: int) -> None:
    """Positions ascend, over page ends too; a start lies between names."""
    small_pages(page_keys)
    keys = [name(first) for first in (300, 16, 2, 255, 256, 4096, 1)]
    for key in keys:
        bench.put(key, b"x")
    assert [row.key for row in bench.store.list_versions(PLACE)] == sorted(keys)
    after = [row.key for row in bench.store.list_versions(PLACE, f"{PLACE}{255:016X}")]
    assert after == sorted(keys)[3:]


@pytest.mark.parametrize("page_keys", [2, 5, 1000])
def test_no_folder_is_lost_when_one_name_begins_another(
    bench: Bench, small_pages: Callable[[int], None], page_keys: int
) -> None:
    """`base` and `base-1`, `ledger` and `ledger-eu`: a flat listing of some stores skips objects, a scan does not."""
    small_pages(page_keys)
    keys = {
        f"casino/{dataset}/{stream}/7/00000001/{first:016X}-{first + 1:016X}-{'ab' * 16}"
        for dataset in ("ledger", "ledger-eu", "ledger.x")
        for stream in ("base", "base-1", "base.1", "base0")
        for first in range(3)
    }
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bench.put(key, b"x"), keys))
    found = [found.text for found in scan(bench.store, "casino/")]
    assert sorted(found) == sorted(keys)


@pytest.mark.parametrize("page_keys", [1, 2, 3, 4, 1000])
def test_no_name_hides_behind_a_strangers(bench: Bench, small_pages: Callable[[int], None], page_keys: int) -> None:
    """Names that continue or surround ours don't make a scan lose ours, wherever a page ends."""
    small_pages(page_keys)
    keys = [name(first) for first in range(6)]
    for key in keys:
        bench.put(key, b"x")
    strangers = [f"{keys[2]}{tail}" for tail in ("-x", ".versions", "/evil")]
    strangers += [f"{keys[1]}-x", f"{keys[3]} ", f"{keys[4]}-x", f"{PLACE}readme", keys[0][:-2]]
    for key in strangers:
        bench.overwrite(key, b"stranger")
    bench.overwrite(keys[2], None)
    bench.overwrite(keys[4], b"overlay")
    names = {found.text: found for found in scan(bench.store, "casino/")}
    assert set(keys) <= names.keys()
    assert page_keys < 1000 or set(strangers) <= names.keys()
    assert all((found.key is not None) == (found.text in keys) for found in names.values())
    assert [len(names[key].versions) for key in keys] == [1, 1, 1, 1, 2, 1]


def test_the_sealed_version_is_found_under_overlays(bench: Bench) -> None:
    """Later versions and delete markers change nothing, in whatever order they came; `as of` hides what came later."""
    key = ObjectKey("casino", "ledger", "wal", "7", 1, 1, 2, digest(b"money")[:32])
    put = bench.put(str(key), b"money")
    for data in (b"overlay", None, b"another", b"money", None):
        bench.overwrite(str(key), data)
    (found,) = scan(bench.store, PLACE)
    version = authentic(bench.store, found)
    assert version is not None
    assert version.version_id == put.version_id
    assert get_authentic(bench.store, key, found.versions[-1].version_id).data == b"money"
    assert get_authentic(bench.store, key).data == b"money"
    assert list(scan(bench.store, PLACE, as_of=put.store_at - timedelta(seconds=5))) == []


def test_rubbish_that_was_there_first_is_not_the_sealed_version(bench: Bench) -> None:
    """Somebody took the name, deleted it, and then the sealed bytes came: the digest decides, not the age alone."""
    key = ObjectKey("casino", "ledger", "wal", "7", 1, 1, 2, digest(b"money")[:32])
    bench.overwrite(str(key), b"rubbish")
    bench.overwrite(str(key), None)
    put = bench.put(str(key), b"money")
    bench.overwrite(str(key), b"more rubbish")
    (found,) = scan(bench.store, PLACE)
    version = authentic(bench.store, found)
    assert version is not None
    assert version.version_id == put.version_id


def test_more_than_a_thousand_names_and_versions(bench: Bench) -> None:
    """Nothing assumes that a listing fits one page."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda first: bench.put(name(first), b"x"), range(1020)))
        list(pool.map(lambda _: bench.overwrite(name(7), b"overlay"), range(10)))
    found = list(scan(bench.store, "casino/"))
    assert [key.text for key in found] == [name(first) for first in range(1020)]
    assert len(found[7].versions) == 11


def test_says_how_the_bucket_is_protected(bench: Bench) -> None:
    """Versioning and Object Lock are on; a folder's look shows its folders and names."""
    state = bench.store.bucket_state()
    assert (state.versioned, state.object_lock) == (True, True)
    bench.put(name(1), b"x")
    level = bench.store.list_level("casino/ledger/")
    assert (level.folders, level.versions) == (("casino/ledger/wal/",), ())
    level = bench.store.list_level(PLACE)
    assert (level.folders, [row.key for row in level.versions]) == ((), [name(1)])
