"""A bucket outside the vault, as it is read and restored into: a thin S3 client with our errors.

What belongs here: requests and what their refusals mean to whoever must act. What stays out: listing (listing.py), and
what is done with the documents.

Whatever the store refuses for one object is told apart from a store that is away: the first is a finding about that
object, the second ends the run, which goes on where it was when the store is back.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.estate.model import BucketDataset
from dr_assets.estate.transport import require_tls
from dr_assets.vault.connect import ca_file
from dr_assets.vault.settings import setting
from dr_assets.vault.storage.s3 import make_client
from dr_assets.vault.storage.s3_errors import ABSENT, BROKEN_BODY, CREDENTIALS, StoreAnswer, answers

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

NULL: Final = "null"  # S3's own word for the version of an object in a bucket that keeps no versions
AWAY: Final = frozenset({"bucket.unreachable", "bucket.refused", "bucket.missing"})
_CODES: Final = {
    "vault.unreachable": ("bucket.unreachable", "see that the store is up and can be reached; the run goes on later"),
    "vault.refused_credentials": ("bucket.refused", "the identity needs to list the bucket and to read its objects"),
    "vault.no_bucket": ("bucket.missing", "create it, or correct `bucket` in the declaration"),
}
# What S3 keeps beside the bytes and gives back with them: as `get_object` names it, which is as `put_object` takes it.
HEADERS: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "WebsiteRedirectLocation",
)


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, or the part of it below `prefix`, with the client that reaches it; threads may share it."""

    client: "S3Client"
    bucket: str
    prefix: str = ""

    @property
    def endpoint(self) -> str:
        """The store's address."""
        return str(self.client.meta.endpoint_url)

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Raise SourceError where nobody can be served, StoreAnswer where the store says something of one object."""
        try:
            with answers(self.endpoint, self.bucket):
                yield
        except VaultError as error:
            code, hint = _CODES.get(error.code, ("bucket.unreachable", "try again"))
            raise SourceError(code, error.found, hint) from None
        except BROKEN_BODY as error:
            raise SourceError(
                "bucket.unreachable", f"{self.endpoint}: a body broke off ({type(error).__name__})", "try again"
            ) from None

    def refusal(self, said: StoreAnswer, what: str) -> SourceError:
        """The error for an answer that means nothing else; `what` must not name a person's document."""
        if said.code in CREDENTIALS:
            code, hint = _CODES["vault.refused_credentials"]
            return SourceError(code, f"{self.endpoint} refuses {what} in {self.bucket}: {said.code}", hint)
        found = f"{self.endpoint} answers {said.code} to {what} in {self.bucket}"
        return SourceError("bucket.answer", found, "look into the store's own log")

    def now(self) -> datetime:
        """The store's clock, to one second. Raises SourceError."""
        try:
            with self.answers():
                answer = cast("Mapping[str, Any]", self.client.head_bucket(Bucket=self.bucket))
        except StoreAnswer as said:
            if said.code in ABSENT:
                raise SourceError(
                    "bucket.missing", f"{self.endpoint} has no bucket {self.bucket}", _no_bucket()
                ) from None
            raise self.refusal(said, "to look") from None
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)

    def is_versioned(self) -> bool:
        """Whether it keeps every version from now on."""
        return self._versioning() == "Enabled"

    def has_versions(self) -> bool:
        """Whether a name may have several: `Suspended` still has those from before."""
        return self._versioning() in {"Enabled", "Suspended"}

    def _versioning(self) -> str:
        try:
            with self.answers():
                return str(self.client.get_bucket_versioning(Bucket=self.bucket).get("Status", ""))
        except StoreAnswer as said:
            raise self.refusal(said, "to tell its versioning") from None

    def server(self) -> str:
        """What the store calls itself; empty where it doesn't say."""
        with self.answers():
            answer = cast("Mapping[str, Any]", self.client.head_bucket(Bucket=self.bucket))
        return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", ""))

    def tags(self, name: str, version: Any) -> dict[str, str]:
        """A version's tags, which is named as in `version_of`. Raises StoreAnswer where it is gone, SourceError."""
        with self.answers():
            answer = self.client.get_object_tagging(Bucket=self.bucket, Key=name, **version)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def version_of(version_id: str) -> Any:
    """As arguments of a request; nothing for the one version of a bucket that keeps none."""
    return {} if version_id in {"", NULL} else {"VersionId": version_id}


def source_of(dataset: BucketDataset, env: Mapping[str, str]) -> Place:
    """The declared source; nothing is asked yet. Raises PolicyError `vault.setting_missing`, `bucket.bad_endpoint`."""
    return place_of(
        setting(env, dataset.endpoint_env, f"the endpoint of bucket dataset '{dataset.name}'"),
        dataset.bucket,
        access_key=setting(env, dataset.access_key_env, f"the access key of '{dataset.name}'"),
        secret_key=setting(env, dataset.secret_key_env, f"the secret key of '{dataset.name}'"),
        region=dataset.s3_region,
        prefix=dataset.prefix,
        told_by=dataset.endpoint_env,
        ca=ca_file(env),
    )


def place_of(
    endpoint: str,
    bucket: str,
    *,
    access_key: str,
    secret_key: str,
    region: str = "us-east-1",
    prefix: str = "",
    told_by: str = "the endpoint",
    ca: str | None = None,
) -> Place:
    """A bucket of any S3-compatible store. Raises PolicyError `bucket.bad_endpoint`, `policy.transport`."""
    bad = PolicyError(
        "bucket.bad_endpoint", f"{told_by} holds no address of an S3 store", "for example https://s3.example.com"
    )
    if not endpoint.lower().startswith(("http://", "https://")):
        raise bad
    require_tls(endpoint, told_by)
    try:
        return Place(make_client(endpoint, access_key, secret_key, region=region, ca=ca), bucket, prefix)
    except ValueError:
        raise bad from None


def _no_bucket() -> str:
    return _CODES["vault.no_bucket"][1]
