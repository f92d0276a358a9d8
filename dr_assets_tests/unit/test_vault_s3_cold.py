"""Cold classes, by the answers that AWS documents: no real cold class was at hand (docs/retention.md says so)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from botocore.stub import Stubber

from dr_assets.estate.errors import VaultError
from dr_assets.vault.storage import Thaw
from dr_assets.vault.storage.s3 import S3Store, make_client

KEY, VERSION = "casino/ledger/base-x/1/00000001/k", "v1"
ASKED = {"Bucket": "b", "Key": KEY, "VersionId": VERSION}
DATE = {"HTTPHeaders": {"date": "Sun, 22 Nov 2026 06:00:00 GMT"}}
PLAIN: dict[str, Any] = {
    "ContentLength": 3, "LastModified": datetime(2026, 1, 1, tzinfo=UTC), "VersionId": VERSION,
    "ResponseMetadata": DATE,
}  # fmt: skip


@pytest.fixture
def stub() -> Iterator[Stubber]:
    """A client that answers what is laid before it, and fails on any other call."""
    client = make_client("http://127.0.0.1:1", "a", "b", attempts=1)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def store(stub: Stubber) -> S3Store:
    """The store over it."""
    return S3Store(cast("Any", stub.client), "b")


def head(stub: Stubber, **more: Any) -> Any:
    """A head in DEEP_ARCHIVE with what else is given."""
    stub.add_response("head_object", PLAIN | more, ASKED | {"ChecksumMode": "ENABLED"})
    return store(stub).head(KEY, VERSION)


def test_reading_what_is_frozen_says_so(stub: Stubber) -> None:
    """InvalidObjectState on a read is `vault.cold`: neither damage nor a matter of credentials, though it is a 403."""
    for _ in range(2):
        stub.add_client_error("get_object", "InvalidObjectState", "The operation is not valid", 403)
    for read in (lambda: store(stub).get(KEY, VERSION), lambda: store(stub).get_range(KEY, VERSION, 0, 3)):
        with pytest.raises(VaultError) as caught:
            read()
        assert caught.value.code == "vault.cold"


def test_a_head_tells_frozen_thawing_and_thawed_apart(stub: Stubber) -> None:
    """By class and x-amz-restore: no request yet, under way, readable until a day; an ordinary object is none of it."""
    assert head(stub, StorageClass="DEEP_ARCHIVE").is_frozen
    thawing = head(stub, StorageClass="GLACIER", Restore='ongoing-request="true"')
    assert (thawing.is_frozen, thawing.thaw) == (True, Thaw(None))
    done = 'ongoing-request="false", expiry-date="Fri, 27 Nov 2026 00:00:00 GMT"'
    thawed = head(stub, StorageClass="DEEP_ARCHIVE", Restore=done)
    assert (thawed.is_frozen, thawed.thaw) == (False, Thaw(datetime(2026, 11, 27, tzinfo=UTC)))
    assert not head(stub).is_frozen
    assert not head(stub, StorageClass="GLACIER_IR").is_frozen


def test_a_listing_tells_the_class(stub: Stubber) -> None:
    """So that a plan knows what is cold without a request for each object."""
    row = {"Key": KEY, "VersionId": VERSION, "Size": 3, "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}
    page = {"Versions": [row | {"StorageClass": "DEEP_ARCHIVE"}], "ResponseMetadata": DATE, "IsTruncated": False}
    stub.add_response("list_object_versions", page)
    (found,) = store(stub).list_versions("casino/")
    assert found.storage_class == "DEEP_ARCHIVE"


def test_a_thaw_is_asked_for_once_and_again_without_harm(stub: Stubber) -> None:
    """The request names days and tier; that it is under way already is no error, nor that it was thawed faster."""
    request = {"Days": 7, "GlacierJobParameters": {"Tier": "Bulk"}}
    stub.add_response("restore_object", {}, ASKED | {"RestoreRequest": request})
    store(stub).thaw(KEY, VERSION, days=7, tier="Bulk")
    for code in ("RestoreAlreadyInProgress", "ObjectAlreadyInActiveTierError"):
        stub.add_client_error("restore_object", code, "", 409)
        store(stub).thaw(KEY, VERSION, days=7, tier="Bulk")


def test_a_thaw_of_what_is_not_cold_is_refused(stub: Stubber) -> None:
    """AWS answers InvalidObjectState, which here means the opposite of what it means to a read."""
    stub.add_client_error("restore_object", "InvalidObjectState", "", 403)
    stub.add_client_error("restore_object", "NoSuchKey", "", 404)
    for code in ("vault.not_cold", "vault.missing"):
        with pytest.raises(VaultError) as caught:
            store(stub).thaw(KEY, VERSION, days=7, tier="Bulk")
        assert caught.value.code == code


def test_a_held_version_is_not_deleted_and_the_store_says_why(stub: Stubber) -> None:
    """AccessDenied on a delete is looked into: a legal hold is told as such."""
    stub.add_client_error("delete_object", "AccessDenied", "", 403)
    stub.add_response("head_object", PLAIN | {"ObjectLockLegalHoldStatus": "ON"}, ASKED | {"ChecksumMode": "ENABLED"})
    with pytest.raises(VaultError, match="legal hold"):
        store(stub).delete_version(KEY, VERSION)
