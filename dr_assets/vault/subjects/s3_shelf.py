"""People's keys in a bucket that is versioned and not locked.

What belongs here: one bucket through a botocore client given from outside. What stays out: the vault's bucket
(storage/s3.py), with which this one shares nothing: who may delete here may not even write there.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.storage.refusals import no_bucket, refused, refused_credentials, too_large
from dr_assets.vault.storage.s3_errors import ABSENT, CREDENTIALS, NO_LOCK, TAKEN, StoreAnswer, answers

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

RECORD_LIMIT_BYTES: Final = 64 << 10
_OWNED: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


class S3Shelf:
    """A Shelf over one bucket."""

    def __init__(self, client: "S3Client", bucket: str, region: str) -> None:
        self.client = client
        self.bucket = bucket
        self.region = region
        self.endpoint: str = client.meta.endpoint_url

    def create_bucket(self) -> bool:
        """Make the bucket, versioned and without Object Lock; False if it was there already."""
        created = True
        try:
            with answers(self.endpoint, self.bucket):
                self.client.create_bucket(Bucket=self.bucket)
        except StoreAnswer as said:
            if said.code not in _OWNED:
                raise self._refusal(said, self.bucket) from None
            created = False
        with answers(self.endpoint, self.bucket):
            self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        return created

    def require_fit(self) -> None:
        """Raise PolicyError `subjects.bucket_unfit` unless the bucket is versioned and has no Object Lock.

        A locked bucket would make every deletion of a key a lie.
        """
        locked = True
        try:
            with answers(self.endpoint, self.bucket):
                versioned = self.client.get_bucket_versioning(Bucket=self.bucket).get("Status") == "Enabled"
                self.client.get_object_lock_configuration(Bucket=self.bucket)
        except StoreAnswer as said:
            if said.code not in NO_LOCK:
                raise self._refusal(said, self.bucket) from None
            locked = False
        if locked or not versioned:
            raise PolicyError(
                "subjects.bucket_unfit",
                f"bucket '{self.bucket}' of {self.region}: {'locked' if locked else 'not versioned'};"
                " people's keys need a versioned bucket without Object Lock",
                "declare another bucket name; `dr-assets keys subjects init` creates it as it must be",
            )

    def put_new(self, name: str, data: bytes) -> bool:
        """As the port says."""
        try:
            with answers(self.endpoint, self.bucket):
                self.client.put_object(Bucket=self.bucket, Key=name, Body=data, IfNoneMatch="*")
        except StoreAnswer as said:
            if said.code in TAKEN:
                return False
            raise self._refusal(said, name) from None
        return True

    def replace(self, name: str, data: bytes) -> None:
        """As the port says."""
        try:
            with answers(self.endpoint, self.bucket):
                self.client.put_object(Bucket=self.bucket, Key=name, Body=data)
        except StoreAnswer as said:
            raise self._refusal(said, name) from None

    def trim(self, name: str) -> int:
        """As the port says, by version id; which version is the current one is asked, since times may be equal."""
        try:
            with answers(self.endpoint, self.bucket):
                current = self.client.head_object(Bucket=self.bucket, Key=name)["VersionId"]
        except StoreAnswer as said:
            if said.code in ABSENT:
                return 0
            raise self._refusal(said, name) from None
        beneath = [version for version, _ in self._rows(name) if version != current]
        for version in beneath:
            self._erase_version(name, version)
        return len(beneath)

    def get(self, name: str) -> bytes | None:
        """As the port says."""
        return self._read(name, {})

    def versions(self, name: str) -> list[bytes]:
        """As the port says."""
        found = [self._read(name, {"VersionId": version}) for version, is_marker in self._rows(name) if not is_marker]
        return [data for data in found if data is not None]

    def names(self, prefix: str) -> Iterator[str]:
        """As the port says, a page at a time."""
        more: dict[str, str] = {}
        while True:
            try:
                with answers(self.endpoint, self.bucket):
                    page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **cast("Any", more))
            except StoreAnswer as said:
                raise self._refusal(said, prefix) from None
            yield from (row["Key"] for row in page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def erase(self, name: str) -> None:
        """As the port says, by version id, a page of them at a time."""
        while rows := self._rows(name):
            for version, _ in rows:
                self._erase_version(name, version)

    def _erase_version(self, name: str, version: str) -> None:
        try:
            with answers(self.endpoint, self.bucket):
                self.client.delete_object(Bucket=self.bucket, Key=name, VersionId=version)
        except StoreAnswer as said:
            if said.code not in ABSENT:
                raise self._refusal(said, name) from None

    def _rows(self, name: str) -> list[tuple[str, bool]]:
        """Version ids of exactly this name, newest first, each with whether it is a delete marker."""
        try:
            with answers(self.endpoint, self.bucket):
                page = cast("Mapping[str, Any]", self.client.list_object_versions(Bucket=self.bucket, Prefix=name))
        except StoreAnswer as said:
            raise self._refusal(said, name) from None
        rows = [(row, False) for row in page.get("Versions", [])] + [
            (row, True) for row in page.get("DeleteMarkers", [])
        ]
        rows = [(row, marker) for row, marker in rows if row["Key"] == name]
        rows.sort(key=lambda pair: pair[0]["LastModified"], reverse=True)
        return [(row["VersionId"], marker) for row, marker in rows]

    def _read(self, name: str, more: dict[str, str]) -> bytes | None:
        try:
            with answers(self.endpoint, self.bucket):
                answer = self.client.get_object(Bucket=self.bucket, Key=name, **cast("Any", more))
                if answer["ContentLength"] > RECORD_LIMIT_BYTES:
                    answer["Body"].close()
                    raise too_large(name, answer["ContentLength"], RECORD_LIMIT_BYTES)
                return answer["Body"].read()
        except StoreAnswer as said:
            if said.code in ABSENT:
                return None
            raise self._refusal(said, name) from None

    def _refusal(self, said: StoreAnswer, what: str) -> VaultError:
        if said.code in CREDENTIALS:
            return refused_credentials(self.endpoint, said.code)
        if said.code == "NoSuchBucket":
            return no_bucket(self.bucket)
        return refused(what, said.code, said.text)
