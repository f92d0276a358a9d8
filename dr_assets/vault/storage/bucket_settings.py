"""What is set on a bucket as a whole, and could be set otherwise by whoever administers it.

What belongs here: asking S3, the settings as values. What stays out: judging them (verify/bucket.py, cli/doctor/).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from dr_assets.vault.storage.s3_errors import CREDENTIALS, StoreAnswer, answers

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# What stores answer where a setting was never made, or where they have no such setting at all.
_NEVER_SET: Final = frozenset(
    {
        "NoSuchLifecycleConfiguration", "NoSuchBucketPolicy", "NoSuchConfiguration", "NotImplemented",
        "ReplicationConfigurationNotFoundError", "ObjectLockConfigurationNotFoundError", "MethodNotAllowed", "501",
        "405", "404",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """`versioning` is S3's word (`Enabled`, `Suspended`, or empty for never). Policies are told by their SHA-256.

    `expiring` are the ids of active lifecycle rules that remove something other than unfinished uploads and bare delete
    markers. `unread` names settings that these credentials may not read.
    """

    versioning: str = ""
    object_lock: bool = False
    default_lock: str = ""
    expiring: tuple[str, ...] = ()
    lifecycle_sha256: str = ""
    policy_sha256: str = ""
    replication_sha256: str = ""
    unread: tuple[str, ...] = ()


@runtime_checkable
class TellsSettings(Protocol):
    """A store whose bucket can be set up in several ways."""

    def bucket_settings(self) -> BucketSettings:
        """All of them; raises VaultError when the store can't be reached."""
        ...


def read_settings(client: "S3Client", endpoint: str, bucket: str) -> BucketSettings:
    """Ask for each; one that may not be read, or isn't known to the store, does not hide the others."""
    unread: list[str] = []

    def ask(what: str, call: Callable[..., Any]) -> Mapping[str, Any]:
        try:
            with answers(endpoint, bucket):
                return cast("Mapping[str, Any]", call(Bucket=bucket))
        except StoreAnswer as said:
            if said.code not in _NEVER_SET:
                unread.append(what if said.code in CREDENTIALS else f"{what} ({said.code})")
            return {}

    versioning = ask("versioning", client.get_bucket_versioning)
    lock = ask("object lock", client.get_object_lock_configuration).get("ObjectLockConfiguration", {})
    rules = ask("lifecycle", client.get_bucket_lifecycle_configuration).get("Rules", [])
    policy = ask("policy", client.get_bucket_policy).get("Policy", "")
    replication = ask("replication", client.get_bucket_replication).get("ReplicationConfiguration", {})
    return BucketSettings(
        versioning=versioning.get("Status", ""),
        object_lock=lock.get("ObjectLockEnabled") == "Enabled",
        default_lock=_default_lock(lock.get("Rule", {}).get("DefaultRetention", {})),
        expiring=tuple(str(rule.get("ID", number)) for number, rule in enumerate(rules) if _removes(rule)),
        lifecycle_sha256=_digest(rules),
        policy_sha256=_digest(json.loads(policy) if policy else None),
        replication_sha256=_digest(replication),
        unread=tuple(unread),
    )


def _removes(rule: Mapping[str, Any]) -> bool:
    """Whether an active rule takes away versions, or hides what is there beneath delete markers of its own."""
    if rule.get("Status") != "Enabled":
        return False
    expiration = rule.get("Expiration", {})
    return bool(expiration.get("Days") or expiration.get("Date") or rule.get("NoncurrentVersionExpiration"))


def _default_lock(rule: Mapping[str, Any]) -> str:
    if "Mode" not in rule:
        return ""
    days = rule["Years"] * 365 if rule.get("Years") else rule.get("Days", 0)
    return f"{rule['Mode']} {days} d"


def _digest(value: object) -> str:
    if not value:
        return ""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
