"""S3 answers that no honest store gives, and what is kept of the honest ones, without a store."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.s3 import S3Store
from dr_assets.vault.storage.write_once import put_locked

STORE_AT = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
UNTIL = STORE_AT + timedelta(days=15)


class Client:
    """Answers what it is told to, and counts."""

    def __init__(self, **answers: Any) -> None:
        config = SimpleNamespace(user_agent="test")
        self.meta = SimpleNamespace(endpoint_url="http://127.0.0.1:9", region_name="here", config=config)
        self.asked: list[str] = []
        self.at = STORE_AT
        self.answers = answers

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        def answer(**asked: Any) -> dict[str, Any]:
            self.asked.append(name)
            assert len(self.asked) < 100, "it goes on for ever"
            given = self.answers.get(name, {})
            headers = {"HTTPHeaders": {"date": format_datetime(self.at, usegmt=True)}}
            told: dict[str, Any] = given(asked) if callable(given) else given
            return {"ResponseMetadata": headers} | told

        return answer


def store_of(client: Client) -> S3Store:
    """Over that client, its bucket known to be protected."""
    store = S3Store(client, "bucket")  # type: ignore[arg-type]  # it answers what is asked here
    store._protected = True
    return store


def code(attempt: Callable[[], object]) -> str:
    """With what it is refused."""
    with pytest.raises(VaultError) as caught:
        attempt()
    return caught.value.code


@pytest.mark.parametrize(
    "markers",
    [
        {"NextKeyMarker": "a", "NextVersionIdMarker": "1"},
        {"NextKeyMarker": "a"},
        {"NextKeyMarker": ""},
        {},
    ],
)
def test_a_listing_that_does_not_advance_ends_in_an_error(markers: dict[str, str]) -> None:
    """More pages are announced, and the marker leads back or nowhere: told, instead of asked for ever."""
    client = Client(list_object_versions={"IsTruncated": True, **markers})
    assert code(lambda: list(store_of(client).list_versions("x/"))) == "vault.endless_listing"
    assert code(lambda: store_of(client).list_level("x/")) == "vault.endless_listing"


def test_a_listing_that_goes_in_circles_ends_in_an_error() -> None:
    """Not only the same marker twice in a row, and not only versions."""
    turns = iter("abcabcabcabc")
    client = Client(list_object_versions=lambda _: {"IsTruncated": True, "NextKeyMarker": next(turns)})
    assert code(lambda: list(store_of(client).list_versions("x/"))) == "vault.endless_listing"
    once = iter([{"IsTruncated": True, "NextKeyMarker": "a"}, {}])
    client = Client(
        list_object_versions=lambda _: next(once), list_objects_v2={"IsTruncated": True, "NextContinuationToken": "t"}
    )
    assert code(lambda: store_of(client).list_level("x/")) == "vault.endless_listing"


def test_many_versions_of_one_name_are_no_circle() -> None:
    """The key marker stands still while the version marker moves."""
    pages = iter(
        [{"IsTruncated": True, "NextKeyMarker": "x/a", "NextVersionIdMarker": str(n)} for n in range(5)] + [{}]
    )
    client = Client(list_object_versions=lambda _: next(pages))
    assert list(store_of(client).list_versions("x/")) == []
    assert client.asked.count("list_object_versions") == 6


def test_a_body_that_is_too_large_is_not_read() -> None:
    """The size is in the answer's head; a range that the store ignores is no way around it."""

    class Body:
        """Nobody may read it."""

        def close(self) -> None:
            """Nothing to do."""

        def read(self) -> bytes:
            """Fail."""
            raise AssertionError("it was read")

    store = store_of(Client(get_object=lambda _: {"Body": Body(), "ContentLength": 1 << 40}))
    assert code(lambda: store.get("x", limit_bytes=1000)) == "vault.too_large"
    assert code(lambda: store.get_range("x", "v", 0, 10)) == "vault.too_large"


class Clock:
    """Turned by hand."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        """What it shows."""
        return self.at


KEY = ObjectKey("casino", "ledger", "wal", "7", 1, 0, 5, hashlib.sha256(b"money").hexdigest()[:32])


def put_money(store: S3Store, clock: Clock) -> None:
    """As a vault does."""
    put_locked(store, KEY, b"money", hashlib.sha256(b"money").hexdigest(), Lock("COMPLIANCE", UNTIL), clock=clock)


def holding() -> Client:
    """A store that holds what is put."""
    checksum = base64.b64encode(hashlib.sha256(b"money").digest()).decode()
    head = {"ContentLength": 5, "ChecksumSHA256": checksum, "LastModified": STORE_AT, "VersionId": "v"}
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": UNTIL}
    return Client(head_object=head | lock, put_object={"VersionId": "v"})


def test_the_clock_is_compared_before_a_put_without_a_request_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer tells the store's time: asked for once, then again only when none came for a minute."""
    passed = Clock(datetime.fromtimestamp(1000, UTC))
    monkeypatch.setattr("dr_assets.vault.storage.s3.time.monotonic", lambda: passed.at.timestamp())  # noqa: PLW0108 - it moves
    client, clock = holding(), Clock(STORE_AT)
    store = store_of(client)
    for _ in range(20):
        put_money(store, clock)
        for each in (passed, clock, client):
            each.at += timedelta(seconds=2)
    assert client.asked == ["head_bucket", *["put_object", "head_object"] * 20]
    for each in (passed, clock, client):
        each.at += timedelta(seconds=61)
    put_money(store, clock)
    assert client.asked[-3:] == ["head_bucket", "put_object", "head_object"]


def test_a_clock_that_jumps_is_noticed_before_the_next_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the answer comes; a host that only slept is asked for anew and goes on."""
    passed = Clock(datetime.fromtimestamp(1000, UTC))
    monkeypatch.setattr("dr_assets.vault.storage.s3.time.monotonic", lambda: passed.at.timestamp())  # noqa: PLW0108 - it moves
    client, clock = holding(), Clock(STORE_AT)
    store = store_of(client)
    put_money(store, clock)
    clock.at += timedelta(days=300)
    client.asked.clear()
    assert code(lambda: put_money(store, clock)) == "vault.clock_skew"
    assert client.asked == ["head_bucket"]
    client.at += timedelta(days=300)
    put_money(store, clock)
    assert client.asked == ["head_bucket", "head_bucket", "put_object", "head_object"]
