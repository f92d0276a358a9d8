"""Every S3 call that somebody with a role's keys could make, and whether it is granted: for tests and docs/roles.md.

What belongs here: calls, the rights and circumstances they need, who may, and where a store can't refuse what should be
refused. What stays out: making the calls (the tests do, all of them, against a real store) and the page (table.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from dr_assets.estate.model import Role
from dr_assets.vault.roles.documents import Dialect

On = Literal["bucket", "object", "other bucket", "other place", "account"]
ALL: Final[frozenset[Role]] = frozenset({"writer", "reader", "roller", "replicator", "expirer"})
READING: Final = ALL - {"expirer"}
PUTTING: Final[frozenset[Role]] = frozenset({"writer", "roller", "replicator"})
EXTENDING: Final[frozenset[Role]] = frozenset({"roller", "replicator"})
HOLDING: Final[frozenset[Role]] = frozenset({"replicator"})
EXPIRING: Final[frozenset[Role]] = frozenset({"expirer"})
NOBODY: Final[frozenset[Role]] = frozenset()


@dataclass(frozen=True, slots=True)
class Gap:
    """A store that grants a call to others than it should: to whom, why, and what protects instead."""

    to: frozenset[Role]
    why: str
    instead: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `rights` are the IAM actions it asks for, `on` where; the rest are its circumstances.

    `mode` and `beyond` are of the lock that it carries, `hold` what it says of a legal hold, `once` that it has
    `If-None-Match`. `held`: what it touches is locked, so that the store refuses whoever asks.
    """

    name: str
    operation: str
    rights: tuple[str, ...]
    to: frozenset[Role]
    on: On = "object"
    mode: Literal["COMPLIANCE", "GOVERNANCE"] | None = None
    beyond: bool = False
    hold: Literal["ON", "OFF"] | None = None
    once: bool = False
    held: bool = False
    gaps: Mapping[Dialect, Gap] = field(default_factory=dict)

    def granted(self, role: Role, dialect: Dialect) -> bool:
        """Whether that store is expected to grant it."""
        gap = self.gaps.get(dialect)
        return role in self.to if gap is None else role in gap.to


_LOCKED_PUT: Final = ("s3:PutObject", "s3:PutObjectRetention")
_RETENTION: Final = ("s3:PutObjectRetention",)
_BYPASS: Final = "s3:BypassGovernanceRetention"
_DELETE_VERSION: Final = ("s3:DeleteObjectVersion",)

READS: Final = (
    Call("list objects", "ListObjectsV2", ("s3:ListBucket",), ALL, "bucket"),
    Call("list objects, the old way", "ListObjects", ("s3:ListBucket",), ALL, "bucket"),
    Call("list versions and delete markers", "ListObjectVersions", ("s3:ListBucketVersions",), ALL, "bucket"),
    Call("see that the bucket is there", "HeadBucket", ("s3:ListBucket",), ALL, "bucket"),
    Call("see whether versioning is on", "GetBucketVersioning", ("s3:GetBucketVersioning",), READING, "bucket"),
    Call(
        "see the default lock",
        "GetObjectLockConfiguration",
        ("s3:GetBucketObjectLockConfiguration",),
        READING,
        "bucket",
    ),
    Call("get an object", "GetObject", ("s3:GetObject",), READING),
    Call("get a version", "GetObject", ("s3:GetObjectVersion",), READING),
    Call("see a version's size, digest and lock", "HeadObject", ("s3:GetObjectVersion",), READING),
    Call("see a version's retention", "GetObjectRetention", ("s3:GetObjectRetention",), READING),
    Call("see a version's legal hold", "GetObjectLegalHold", ("s3:GetObjectLegalHold",), READING),
    Call(
        "have a cold object thawed",
        "RestoreObject",
        ("s3:RestoreObject",),
        frozenset({"reader"}),
        gaps={"seaweedfs": Gap(NOBODY, "it knows no cold class", "nothing there has to be thawed")},
    ),
)

PUTS: Final = (
    Call("put, locked within the cap", "PutObject", _LOCKED_PUT, PUTTING, mode="COMPLIANCE", once=True),
    Call(
        "put a second version under a name",
        "PutObject",
        _LOCKED_PUT,
        NOBODY,
        mode="COMPLIANCE",
        gaps={
            "seaweedfs": Gap(
                PUTTING,
                "its policies can't ask for `If-None-Match`",
                "the locked version stays beneath; names carry the digest, so that readers take the version that fits,"
                " and `vault verify` names the other",
            )
        },
    ),
    Call("put without a lock", "PutObject", ("s3:PutObject",), NOBODY, once=True),
    Call("put, locked in governance mode", "PutObject", _LOCKED_PUT, NOBODY, mode="GOVERNANCE", once=True),
    Call("put, locked beyond the cap", "PutObject", _LOCKED_PUT, NOBODY, mode="COMPLIANCE", beyond=True, once=True),
    Call(
        "put, locked and under a legal hold",
        "PutObject",
        (*_LOCKED_PUT, "s3:PutObjectLegalHold"),
        HOLDING,
        mode="COMPLIANCE",
        hold="ON",
        once=True,
    ),
    Call("put outside the estate's folder", "PutObject", _LOCKED_PUT, NOBODY, "other place", "COMPLIANCE", once=True),
    Call("put into another bucket", "PutObject", _LOCKED_PUT, NOBODY, "other bucket", "COMPLIANCE", once=True),
    Call("copy without a lock", "CopyObject", ("s3:GetObjectVersion", "s3:PutObject"), NOBODY),
    Call(
        "copy, locked within the cap",
        "CopyObject",
        ("s3:GetObjectVersion", *_LOCKED_PUT),
        NOBODY,
        mode="COMPLIANCE",
        gaps={
            "seaweedfs": Gap(
                PUTTING,
                "a copy with a lock is a put with a lock to it",
                "a copy under another name doesn't fit the place in its signed header and is never believed",
            )
        },
    ),
    Call(
        "start an upload in parts, locked",
        "CreateMultipartUpload",
        _LOCKED_PUT,
        NOBODY,
        mode="COMPLIANCE",
        gaps={
            "seaweedfs": Gap(
                PUTTING,
                "starting one is a put with a lock to it",
                "no part can be sent, so nothing comes of it",
            )
        },
    ),
    Call("start an upload in parts without a lock", "CreateMultipartUpload", ("s3:PutObject",), NOBODY),
    Call("send a part", "UploadPart", ("s3:PutObject",), NOBODY),
    Call("copy a part", "UploadPartCopy", ("s3:GetObjectVersion", "s3:PutObject"), NOBODY),
    Call("complete an upload in parts", "CompleteMultipartUpload", ("s3:PutObject",), NOBODY),
    Call("abort an upload in parts", "AbortMultipartUpload", ("s3:AbortMultipartUpload",), NOBODY),
    Call("list uploads in parts", "ListMultipartUploads", ("s3:ListBucketMultipartUploads",), NOBODY, "bucket"),
    Call("list the parts of an upload", "ListParts", ("s3:ListMultipartUploadParts",), NOBODY),
)

LOCKS: Final = (
    Call(
        "lengthen a lock within the cap",
        "PutObjectRetention",
        _RETENTION,
        EXTENDING,
        mode="COMPLIANCE",
        gaps={
            "aws": Gap(
                PUTTING,
                "a put with a lock asks for the same permission",
                "a lock only grows, and not beyond the cap",
            )
        },
    ),
    Call(
        "lengthen a lock beyond the cap",
        "PutObjectRetention",
        _RETENTION,
        NOBODY,
        mode="COMPLIANCE",
        beyond=True,
        gaps={
            "seaweedfs": Gap(
                EXTENDING,
                "the date is in the body, which its policies don't judge",
                "our own client asks for no more than is declared; a lock that is too long costs space, never data",
            )
        },
    ),
    Call("shorten a lock", "PutObjectRetention", _RETENTION, NOBODY, mode="COMPLIANCE", held=True),
    Call("turn compliance into governance", "PutObjectRetention", _RETENTION, NOBODY, mode="GOVERNANCE", held=True),
    Call("take a lock off", "PutObjectRetention", _RETENTION, NOBODY, held=True),
    Call("shorten a governance lock", "PutObjectRetention", _RETENTION, NOBODY, mode="GOVERNANCE", held=True),
    Call(
        "shorten a governance lock with the bypass",
        "PutObjectRetention",
        (*_RETENTION, _BYPASS),
        NOBODY,
        mode="GOVERNANCE",
    ),
    Call("place a legal hold", "PutObjectLegalHold", ("s3:PutObjectLegalHold",), HOLDING, hold="ON"),
    Call(
        "lift a legal hold",
        "PutObjectLegalHold",
        ("s3:PutObjectLegalHold",),
        NOBODY,
        hold="OFF",
        gaps={
            "seaweedfs": Gap(
                HOLDING,
                "the word is in the body, which its policies don't judge",
                "our replicator never lifts one, and places it anew while the first vault has it; the lock stays",
            )
        },
    ),
)

DELETES: Final = (
    Call("delete a version that no lock holds", "DeleteObject", _DELETE_VERSION, EXPIRING),
    Call("delete a delete marker", "DeleteObject", _DELETE_VERSION, EXPIRING),
    Call("delete a locked version", "DeleteObject", _DELETE_VERSION, NOBODY, held=True),
    Call("delete a version under a legal hold", "DeleteObject", _DELETE_VERSION, NOBODY, held=True),
    Call("delete a version locked in governance mode", "DeleteObject", _DELETE_VERSION, NOBODY, held=True),
    Call("delete it with the bypass", "DeleteObject", (*_DELETE_VERSION, _BYPASS), NOBODY),
    Call("delete without a version id", "DeleteObject", ("s3:DeleteObject",), NOBODY),
    Call("delete versions that no lock holds, many at once", "DeleteObjects", _DELETE_VERSION, EXPIRING),
    Call("delete locked versions, many at once", "DeleteObjects", _DELETE_VERSION, NOBODY, held=True),
    Call("delete without version ids, many at once", "DeleteObjects", ("s3:DeleteObject",), NOBODY),
    Call("delete the bucket", "DeleteBucket", ("s3:DeleteBucket",), NOBODY, "bucket"),
    Call("delete another, empty bucket", "DeleteBucket", ("s3:DeleteBucket",), NOBODY, "other bucket"),
)

_SET: Final = {
    "suspend versioning": ("PutBucketVersioning", "s3:PutBucketVersioning"),
    "change the default lock": ("PutObjectLockConfiguration", "s3:PutBucketObjectLockConfiguration"),
    "set a lifecycle": ("PutBucketLifecycleConfiguration", "s3:PutLifecycleConfiguration"),
    "set a lifecycle, the old way": ("PutBucketLifecycle", "s3:PutLifecycleConfiguration"),
    "take the lifecycle away": ("DeleteBucketLifecycle", "s3:PutLifecycleConfiguration"),
    "set a bucket policy": ("PutBucketPolicy", "s3:PutBucketPolicy"),
    "take the bucket policy away": ("DeleteBucketPolicy", "s3:DeleteBucketPolicy"),
    "change who may reach the bucket": ("PutBucketAcl", "s3:PutBucketAcl"),
    "change the bucket's encryption": ("PutBucketEncryption", "s3:PutEncryptionConfiguration"),
    "take the bucket's encryption away": ("DeleteBucketEncryption", "s3:PutEncryptionConfiguration"),
    "set replication": ("PutBucketReplication", "s3:PutReplicationConfiguration"),
    "take replication away": ("DeleteBucketReplication", "s3:PutReplicationConfiguration"),
    "set CORS": ("PutBucketCors", "s3:PutBucketCORS"),
    "take CORS away": ("DeleteBucketCors", "s3:PutBucketCORS"),
    "tag the bucket": ("PutBucketTagging", "s3:PutBucketTagging"),
    "take the bucket's tags away": ("DeleteBucketTagging", "s3:PutBucketTagging"),
    "send notifications": ("PutBucketNotificationConfiguration", "s3:PutBucketNotification"),
    "send notifications, the old way": ("PutBucketNotification", "s3:PutBucketNotification"),
    "log requests elsewhere": ("PutBucketLogging", "s3:PutBucketLogging"),
    "serve a web site": ("PutBucketWebsite", "s3:PutBucketWebsite"),
    "stop the web site": ("DeleteBucketWebsite", "s3:DeleteBucketWebsite"),
    "have requesters pay": ("PutBucketRequestPayment", "s3:PutBucketRequestPayment"),
    "set acceleration": ("PutBucketAccelerateConfiguration", "s3:PutAccelerateConfiguration"),
    "set ownership": ("PutBucketOwnershipControls", "s3:PutBucketOwnershipControls"),
    "take ownership away": ("DeleteBucketOwnershipControls", "s3:PutBucketOwnershipControls"),
    "open the bucket to the public": ("PutPublicAccessBlock", "s3:PutBucketPublicAccessBlock"),
    "take the block of public access away": ("DeletePublicAccessBlock", "s3:PutBucketPublicAccessBlock"),
}
_OF_OBJECTS: Final = {
    "change who may reach an object": ("PutObjectAcl", "s3:PutObjectAcl"),
    "tag an object": ("PutObjectTagging", "s3:PutObjectTagging"),
    "take an object's tags away": ("DeleteObjectTagging", "s3:DeleteObjectTagging"),
}
CONFIGURATION: Final = (
    *(Call(name, operation, (right,), NOBODY, "bucket") for name, (operation, right) in _SET.items()),
    *(Call(name, operation, (right,), NOBODY) for name, (operation, right) in _OF_OBJECTS.items()),
    Call("make a bucket", "CreateBucket", ("s3:CreateBucket",), NOBODY, "other bucket"),
    Call(
        "list all buckets",
        "ListBuckets",
        ("s3:ListAllMyBuckets",),
        NOBODY,
        "account",
        gaps={"seaweedfs": Gap(ALL, "it lists to everybody those they may list", "there is nothing to learn from it")},
    ),
)
# Questions that SeaweedFS answers to whoever may list or read, with nothing: it keeps no such thing.
SHRUGS: Final = frozenset(
    {
        "GetBucketAccelerateConfiguration",
        "GetBucketAnalyticsConfiguration",
        "GetBucketIntelligentTieringConfiguration",
        "GetBucketInventoryConfiguration",
        "GetBucketLogging",
        "GetBucketMetricsConfiguration",
        "GetBucketPolicyStatus",
        "GetBucketReplication",
        "GetBucketWebsite",
        "GetObjectAnnotation",
        "GetObjectTorrent",
        "ListBucketAnalyticsConfigurations",
        "ListBucketIntelligentTieringConfigurations",
        "ListBucketInventoryConfigurations",
        "ListBucketMetricsConfigurations",
        "ListObjectAnnotations",
    }
)
CALLS: Final = (*READS, *PUTS, *LOCKS, *DELETES, *CONFIGURATION)
SECTIONS: Final = {
    "Reading": READS,
    "Putting": PUTS,
    "Locks and holds": LOCKS,
    "Deleting": DELETES,
    "Configuration": CONFIGURATION,
}
