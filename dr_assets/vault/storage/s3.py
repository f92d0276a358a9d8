"""S3 and what speaks like it.

What belongs here: one bucket through a botocore client that is given from outside, its errors in our words. What stays
out: what the objects mean, how often to try (the SDK's own retries) and where credentials come from.

Two habits of stores that this module minds: a delete marker makes a key free for `If-None-Match: *` again, and the
key marker of a listing means "after this key".
"""

import base64
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

import botocore.session
from botocore.config import Config

from dr_assets.estate.errors import VaultError
from dr_assets.vault.storage import Blob, BucketState, Head, Level, Lock, LockMode, Put, Thaw, ThawTier, Version
from dr_assets.vault.storage.bucket_settings import BucketSettings, read_settings
from dr_assets.vault.storage.plain_get import PlainGets
from dr_assets.vault.storage.refusals import (
    cold,
    endless,
    key_conflict,
    lock_refused,
    missing,
    no_bucket,
    not_cold,
    refused,
    refused_credentials,
    too_large,
    unprotected,
    unreachable,
)
from dr_assets.vault.storage.s3_errors import (
    ABSENT,
    BROKEN_BODY,
    CREDENTIALS,
    FROZEN,
    NO_LOCK,
    RACE,
    TAKEN,
    THAWING,
    StoreAnswer,
    answers,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ATTEMPTS: Final = 6
BODY_ATTEMPTS: Final = 3  # the SDK retries until the headers are there; a body that breaks off is ours to ask for again
CONFLICT_ATTEMPTS: Final = 5
CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 60
POOL_CONNECTIONS: Final = 64
LARGEST_PAGE_KEYS: Final = 1000  # S3's own limit
PAGE_KEYS = LARGEST_PAGE_KEYS  # tests make it small, so that page ends are everywhere
CLOCK_MAX_AGE_S: Final = 60
OWNED: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def make_client(
    endpoint: str | None,
    access_key: str,
    secret_key: str,
    *,
    region: str = "us-east-1",
    ca: str | None = None,
    attempts: int = ATTEMPTS,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> "S3Client":
    """A client with short connect timeouts and the SDK's standard retries; threads may share it.

    `ca` is a file of certificates for an endpoint with a private authority. No request is made here.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        max_pool_connections=POOL_CONNECTIONS,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",  # the vault compares digests itself and names the object
        tcp_keepalive=True,
    )
    # As boto3 makes it, without boto3: that is loaded and set up by every command, for nothing that is used here.
    client = botocore.session.Session().create_client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        verify=ca,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=config,
    )
    return cast("S3Client", client)


class S3Store:
    """An ObjectStore over one bucket; threads may share it as they may share its client."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self.endpoint: str = client.meta.endpoint_url
        self._plain = PlainGets(client, bucket)
        self._protected = False
        self._clock_seen: tuple[datetime, float] | None = None

    def put(self, key: str, data: bytes, sha256: str, lock: Lock) -> Put:
        """As the port says: If-None-Match, SHA-256 and the lock go with every put."""
        self._require_protection()
        arguments = {
            "Bucket": self.bucket,
            "Key": key,
            "Body": data,
            "IfNoneMatch": "*",
            "ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode("ascii"),
            "ObjectLockMode": lock.mode,
            "ObjectLockRetainUntilDate": lock.retain_until,
        }
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                with answers(self.endpoint, self.bucket):
                    answer = cast("Mapping[str, Any]", self.client.put_object(**cast("Any", arguments)))
            except StoreAnswer as said:
                if said.code in TAKEN:
                    return self._existing(key, data, sha256)
                if said.code not in RACE:
                    raise self._refusal(said, key) from None
                time.sleep(0.1 * 2**attempt)  # another put to this name is under way: who wins is known in a moment
            else:
                return Put(answer.get("VersionId", ""), existed=False, store_at=self._noted(answer))
        raise key_conflict(key)

    def _require_protection(self) -> None:
        """Asked once: some stores make a missing bucket at the first put, without any lock."""
        if self._protected:
            return
        state = self.bucket_state()
        if not (state.versioned and state.object_lock):
            raise unprotected(self.bucket)
        self._protected = True

    def _existing(self, key: str, data: bytes, sha256: str) -> Put:
        """A 412 is success only if the bytes there are ours; a store without whole-object checksums is read back."""
        head = self.head(key)
        if head is None:
            raise key_conflict(key)
        same = head.sha256 == sha256 if head.sha256 else self._holds(key, head, data)
        if not same:
            raise key_conflict(key)
        return Put(head.version_id, existed=True, store_at=self.now())

    def _holds(self, key: str, head: Head, data: bytes) -> bool:
        return head.size_bytes == len(data) and self.get(key, head.version_id, limit_bytes=len(data)).data == data

    def head(self, key: str, version_id: str | None = None) -> Head | None:
        """As the port says."""
        try:
            with answers(self.endpoint, self.bucket):
                answer = self.client.head_object(
                    Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **cast("Any", _version(version_id))
                )
        except StoreAnswer as said:
            if said.code in ABSENT:
                return None
            raise self._refusal(said, key) from None
        self._noted(cast("Mapping[str, Any]", answer))
        return _head(key, cast("Mapping[str, Any]", answer))

    def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
        """As the port says."""
        answer, data = self._read(key, version_id, {}, limit_bytes)
        return Blob(_head(key, answer), data)

    def get_range(self, key: str, version_id: str, begin: int, end: int) -> bytes:
        """As the port says."""
        if begin >= end:
            return b""
        return self._read(key, version_id, {"Range": f"bytes={begin}-{end - 1}"}, end - begin)[1]

    def _read(
        self, key: str, version_id: str | None, more: dict[str, str], limit_bytes: int | None
    ) -> tuple[Mapping[str, Any], bytes]:
        arguments = {"Bucket": self.bucket, "Key": key} | _version(version_id) | more
        broken = ""
        for _ in range(BODY_ATTEMPTS):
            try:
                answer = self._plain.get(key, version_id, more.get("Range"))
                if answer is None:
                    with answers(self.endpoint, self.bucket):
                        answer = cast("Mapping[str, Any]", self.client.get_object(**cast("Any", arguments)))
            except StoreAnswer as said:
                raise self._unread(said, key, version_id) from None
            try:
                return answer, _bounded(key, answer["Body"], answer["ContentLength"], limit_bytes)
            except BROKEN_BODY as error:
                broken = type(error).__name__
        raise unreachable(self.endpoint, f"the body of {key} broke off {BODY_ATTEMPTS} times ({broken})")

    def _unread(self, said: StoreAnswer, key: str, version_id: str | None) -> VaultError:
        if said.code in FROZEN:
            return cold(key)
        return missing(key, version_id) if said.code in ABSENT else self._refusal(said, key)

    def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
        """As the port says, a page of 1000 at a time."""
        for page in self._version_pages(prefix, {"KeyMarker": start_after} if start_after else {}):
            yield from _rows(page)

    def list_name(self, key: str) -> Iterator[Version]:
        """As the port says. Should a thousand other names crowd it out of the listing, the current version remains."""
        found = False
        for page in self._version_pages(key, {}, page_keys=LARGEST_PAGE_KEYS):
            for row in _rows(page):
                if row.key == key:
                    found = True
                    yield row
        head = None if found else self.head(key)
        if head is not None:
            yield Version(key, head.version_id, head.size_bytes, head.modified_at)

    def list_level(self, prefix: str) -> Level:
        """As the port says. Where folders fill pages, the plain listing is asked too: each may lose some."""
        folders: set[str] = set()
        rows: list[Version] = []
        pages = 0
        for page in self._version_pages(prefix, {"Delimiter": "/"}):
            pages += 1
            folders |= {found["Prefix"] for found in page.get("CommonPrefixes", [])}
            rows += _rows(page)
        if pages > 1:
            folders |= self._plain_folders(prefix)
        return Level(tuple(sorted(folders)), tuple(rows))

    def _version_pages(
        self, prefix: str, more: dict[str, str], *, page_keys: int | None = None
    ) -> Iterator[Mapping[str, Any]]:
        marker: dict[str, str] = {}
        seen: set[tuple[str, str]] = set()
        while True:
            try:
                with answers(self.endpoint, self.bucket):
                    answer = self.client.list_object_versions(
                        Bucket=self.bucket, Prefix=prefix, MaxKeys=page_keys or PAGE_KEYS, **cast("Any", more | marker)
                    )
            except StoreAnswer as said:
                raise self._refusal(said, prefix) from None
            page = cast("Mapping[str, Any]", answer)
            self._noted(page)
            yield page
            if not page.get("IsTruncated"):
                return
            at = (page.get("NextKeyMarker", ""), page.get("NextVersionIdMarker", ""))
            if not at[0] or at in seen or at == (more.get("KeyMarker"), ""):
                raise endless(prefix)
            seen.add(at)
            marker = {"KeyMarker": at[0], "VersionIdMarker": at[1]}

    def _plain_folders(self, prefix: str) -> set[str]:
        folders: set[str] = set()
        token: dict[str, str] = {}
        seen: set[str] = set()
        while True:
            try:
                with answers(self.endpoint, self.bucket):
                    answer = self.client.list_objects_v2(
                        Bucket=self.bucket, Prefix=prefix, Delimiter="/", MaxKeys=PAGE_KEYS, **cast("Any", token)
                    )
            except StoreAnswer as said:
                raise self._refusal(said, prefix) from None
            page = cast("Mapping[str, Any]", answer)
            folders |= {found["Prefix"] for found in page.get("CommonPrefixes", [])}
            if not page.get("IsTruncated"):
                return folders
            at = page.get("NextContinuationToken", "")
            if not at or at in seen:
                raise endless(prefix)
            seen.add(at)
            token = {"ContinuationToken": at}

    def extend(self, key: str, version_id: str, lock: Lock) -> None:
        """As the port says."""
        try:
            with answers(self.endpoint, self.bucket):
                self.client.put_object_retention(
                    Bucket=self.bucket,
                    Key=key,
                    VersionId=version_id,
                    Retention={"Mode": lock.mode, "RetainUntilDate": lock.retain_until},
                )
        except StoreAnswer as said:
            if said.code in ABSENT:
                raise missing(key, version_id) from None
            head = self.head(key, version_id)
            if head is not None and head.lock is not None and weaker(lock, head.lock):
                raise lock_refused(key, "the store does not shorten or weaken a lock") from None
            raise self._refusal(said, key) from None

    def delete_version(self, key: str, version_id: str) -> None:
        """As the port says. Never with a bypass of governance locks."""
        try:
            with answers(self.endpoint, self.bucket):
                answer = self.client.delete_object(Bucket=self.bucket, Key=key, VersionId=version_id)
        except StoreAnswer as said:
            if said.code in ABSENT:
                return
            head = self.head(key, version_id)
            if head is not None and head.lock is not None and head.lock.retain_until > self.recent_now():
                raise lock_refused(key, "the store does not delete a locked version") from None
            if head is not None and head.held:
                raise lock_refused(key, "the store does not delete a version under legal hold") from None
            raise self._refusal(said, key) from None
        self._noted(cast("Mapping[str, Any]", answer))

    def set_hold(self, key: str, version_id: str, *, held: bool) -> None:
        """As the port says."""
        try:
            with answers(self.endpoint, self.bucket):
                self.client.put_object_legal_hold(
                    Bucket=self.bucket, Key=key, VersionId=version_id, LegalHold={"Status": "ON" if held else "OFF"}
                )
        except StoreAnswer as said:
            raise (missing(key, version_id) if said.code in ABSENT else self._refusal(said, key)) from None

    def thaw(self, key: str, version_id: str, *, days: int, tier: ThawTier) -> None:
        """As the port says."""
        asked: Any = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
        try:
            with answers(self.endpoint, self.bucket):
                self.client.restore_object(Bucket=self.bucket, Key=key, VersionId=version_id, RestoreRequest=asked)
        except StoreAnswer as said:
            if said.code in THAWING:
                return
            if said.code in FROZEN:  # to a request to restore this answer means the opposite: it isn't frozen
                raise not_cold(key) from None
            raise (missing(key, version_id) if said.code in ABSENT else self._refusal(said, key)) from None

    def now(self) -> datetime:
        """The Date header of an answer."""
        try:
            with answers(self.endpoint, self.bucket):
                answer = self.client.head_bucket(Bucket=self.bucket)
        except StoreAnswer as said:
            raise self._refusal(said, self.bucket, bucket=True) from None
        return self._noted(cast("Mapping[str, Any]", answer))

    def recent_now(self) -> datetime:
        """The Date header of the newest answer, moved on by the time that has passed since on this host."""
        seen = self._clock_seen
        if seen is None or (passed_s := time.monotonic() - seen[1]) > CLOCK_MAX_AGE_S:
            return self.now()
        return (seen[0] + timedelta(seconds=passed_s)).replace(microsecond=0)

    def _noted(self, answer: Mapping[str, Any]) -> datetime:
        """When the store answered, by its own clock; remembered, so that skew shows without a request of its own."""
        at = _answered_at(answer)
        self._clock_seen = (at, time.monotonic())
        return at

    def bucket_state(self) -> BucketState:
        """As the port says."""
        self.now()  # a bucket that isn't there is told apart here: the calls below answer in many ways
        rule: Mapping[str, Any] = {}
        enabled = False
        try:
            with answers(self.endpoint, self.bucket):
                versioned = self.client.get_bucket_versioning(Bucket=self.bucket).get("Status") == "Enabled"
                configuration = self.client.get_object_lock_configuration(Bucket=self.bucket)
            found = cast("Mapping[str, Any]", configuration["ObjectLockConfiguration"])
            enabled = found.get("ObjectLockEnabled") == "Enabled"
            rule = found.get("Rule", {}).get("DefaultRetention", {})
        except StoreAnswer as said:
            if said.code not in NO_LOCK:
                raise self._refusal(said, self.bucket) from None
        days = rule["Years"] * 365 if "Years" in rule else rule.get("Days")
        return BucketState(versioned, enabled, _mode(rule.get("Mode")), days)

    def bucket_settings(self) -> BucketSettings:
        """Everything that is set on the bucket as a whole, as far as these credentials may read it."""
        return read_settings(self.client, self.endpoint, self.bucket)

    def create_bucket(self, mode: LockMode, default_lock_days: int) -> bool:
        """Make the bucket with Object Lock, versioning and a default lock; False if it was there already."""
        created = True
        try:
            with answers(self.endpoint, self.bucket):
                self.client.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=True)
        except StoreAnswer as said:
            if said.code not in OWNED:
                raise self._refusal(said, self.bucket) from None
            created = False
        if created:
            self._set_default_lock(mode, default_lock_days)
        return created

    def _set_default_lock(self, mode: LockMode, days: int) -> None:
        with answers(self.endpoint, self.bucket):
            self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
            self.client.put_object_lock_configuration(
                Bucket=self.bucket,
                ObjectLockConfiguration={
                    "ObjectLockEnabled": "Enabled",
                    "Rule": {"DefaultRetention": {"Mode": mode, "Days": days}},
                },
            )

    def _refusal(self, said: StoreAnswer, what: str, *, bucket: bool = False) -> VaultError:
        if said.code in CREDENTIALS:
            return refused_credentials(self.endpoint, said.code)
        if bucket and said.code in ABSENT:
            return no_bucket(self.bucket)
        return refused(what, said.code, said.text)


def weaker(new: Lock, old: Lock) -> bool:
    """Whether `new` would shorten `old` or turn compliance into governance."""
    return new.retain_until < old.retain_until or (old.mode, new.mode) == ("COMPLIANCE", "GOVERNANCE")


def _version(version_id: str | None) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}


def _mode(text: Any) -> LockMode | None:
    return text if text in ("COMPLIANCE", "GOVERNANCE") else None


def _answered_at(answer: Mapping[str, Any]) -> datetime:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return parsedate_to_datetime(headers["date"]).astimezone(UTC)


def _bounded(key: str, body: Any, size_bytes: int, limit_bytes: int | None) -> bytes:
    """All of a body, unless it is larger than its kind can be: nobody can put a terabyte into our memory."""
    if limit_bytes is not None and size_bytes > limit_bytes:
        body.close()  # with all that is unread: the connection isn't used again
        raise too_large(key, size_bytes, limit_bytes)
    return bytes(body.read())  # the SDK's client reads no more than was announced, and tells when it was less


def _head(key: str, answer: Mapping[str, Any]) -> Head:
    mode, until = _mode(answer.get("ObjectLockMode")), answer.get("ObjectLockRetainUntilDate")
    checksum = answer.get("ChecksumSHA256", "")
    whole = bool(checksum) and "-" not in checksum and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return Head(
        key=key,
        version_id=answer.get("VersionId", ""),
        size_bytes=answer["ContentLength"],
        sha256=base64.b64decode(checksum).hex() if whole else None,
        lock=Lock(mode, until.astimezone(UTC)) if mode and until else None,
        modified_at=answer["LastModified"].astimezone(UTC),
        held=answer.get("ObjectLockLegalHoldStatus") == "ON",
        storage_class=answer.get("StorageClass", ""),
        thaw=_thaw(answer.get("Restore", "")),
    )


def _thaw(told: str) -> Thaw | None:
    """Read the header x-amz-restore: `ongoing-request="true"`, or "false" with the `expiry-date` of the copy."""
    if 'ongoing-request="true"' in told:
        return Thaw(None)
    _, dated, rest = told.partition('expiry-date="')
    return Thaw(parsedate_to_datetime(rest.partition('"')[0]).astimezone(UTC)) if dated else None


def _rows(page: Mapping[str, Any]) -> Iterator[Version]:
    """Versions and delete markers of a page come in two lists; a key's are put side by side again."""
    rows = [
        Version(
            row["Key"],
            row["VersionId"],
            row["Size"],
            row["LastModified"].astimezone(UTC),
            storage_class=row.get("StorageClass", ""),
        )
        for row in page.get("Versions", [])
    ]
    rows += [
        Version(row["Key"], row["VersionId"], 0, row["LastModified"].astimezone(UTC), is_delete_marker=True)
        for row in page.get("DeleteMarkers", [])
    ]
    yield from sorted(rows, key=lambda row: row.key)
