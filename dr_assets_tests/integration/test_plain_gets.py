"""GETs that leave the SDK out: the same words about the same object, and the SDK's whenever anything is unusual."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.errors import VaultError
from dr_assets.vault.storage import Blob, Lock
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets_tests.faults.vault.s3_proxy import LyingProxy

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "/\\")


@pytest.fixture
def proxy(region: SeaweedRegion) -> Iterator[LyingProxy]:
    """Before the region."""
    with LyingProxy(region.endpoint) as proxy:
        yield proxy


@pytest.fixture
def stores(proxy: LyingProxy, region: SeaweedRegion, bucket: Callable[..., str]) -> tuple[S3Store, S3Store]:
    """One bucket as we read it, and as the SDK alone reads it."""
    name = bucket()
    ours, theirs = (S3Store(make_client(proxy.endpoint, region.access_key, region.secret_key), name) for _ in "ab")
    theirs._plain._session = None
    return ours, theirs


def put(store: S3Store, key: str, data: bytes) -> str:
    """A locked version; its id."""
    lock = Lock("GOVERNANCE", datetime.now(UTC).replace(microsecond=0) + timedelta(days=15))
    return store.put(key, data, hashlib.sha256(data).hexdigest(), lock).version_id


@pytest.mark.parametrize("key", ["a/plain/name", f"odd/{PRINTABLE}x", "odd/Geldwäsche/юникод"])
def test_both_ways_tell_the_same(stores: tuple[S3Store, S3Store], key: str) -> None:
    """Bytes, version, lock, sizes and dates; of the newest version, of one by its id, of a part."""
    ours, theirs = stores
    version = put(ours, key, b"money" * 1000)
    theirs.set_hold(key, version, held=True)
    told: list[tuple[Blob, Blob, bytes]] = [
        (store.get(key), store.get(key, version), store.get_range(key, version, 7, 19)) for store in stores
    ]
    assert told[0] == told[1]
    assert told[0][0].head.lock is not None
    assert told[0][0].head.held
    assert told[0][2] == (b"money" * 1000)[7:19]


def test_one_request_a_get(stores: tuple[S3Store, S3Store], proxy: LyingProxy) -> None:
    """What is there, what isn't, and what is hidden by a delete marker: no second question to the store."""
    ours, _ = stores
    put(ours, "there", b"x")
    put(ours, "hidden", b"x")
    ours.client.delete_object(Bucket=ours.bucket, Key="hidden")
    before = proxy.requests
    assert ours.get("there").data == b"x"
    for key in ("nowhere", "hidden"):
        with pytest.raises(VaultError) as caught:
            ours.get(key)
        assert caught.value.code == "vault.missing"
    assert proxy.requests == before + 3


def test_a_busy_store_is_the_sdks_to_ask_again(stores: tuple[S3Store, S3Store], proxy: LyingProxy) -> None:
    """An answer that is no plain success is asked for anew, with the SDK's patience."""
    ours, _ = stores
    put(ours, "busy", b"x" * 100_000)
    proxy.hiccups = ["busy", "busy", "cut"]
    assert ours.get("busy").data == b"x" * 100_000
    assert not proxy.hiccups


def test_without_the_sdks_own_parts_the_sdk_reads(
    stores: tuple[S3Store, S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the SDK that keeps its parts elsewhere costs speed and nothing else."""
    ours, _ = stores
    put(ours, "there", b"x")
    monkeypatch.delattr(ours.client, "_endpoint")
    bare = S3Store(ours.client, ours.bucket)
    assert bare._plain.get("there", None, None) is None
