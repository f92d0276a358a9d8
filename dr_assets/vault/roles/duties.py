"""What each duty may do: the one table from which every policy document, test and page is made.

What belongs here: rights as data, and the bounds that an estate's declarations set. What stays out: any store's way of
writing them down (documents.py).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, get_args

from dr_assets.estate.model import Estate, Role
from dr_assets.vault.retention import Kind, LockRules

LIST: Final = ("s3:ListBucket", "s3:ListBucketVersions")
STATE: Final = ("s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning")
READ: Final = ("s3:GetObject", "s3:GetObjectLegalHold", "s3:GetObjectRetention", "s3:GetObjectVersion")
# A put with a lock in its headers asks for both.
PUT: Final = ("s3:PutObject", "s3:PutObjectRetention")
HOLD: Final = ("s3:PutObjectLegalHold",)
THAW: Final = ("s3:RestoreObject",)
DELETE: Final = ("s3:DeleteObjectVersion",)

# What no role may ever do: refused by name, so that a right given elsewhere by mistake does not count.
NEVER: Final = (
    "s3:BypassGovernanceRetention",
    "s3:DeleteBucket",
    "s3:DeleteBucketPolicy",
    "s3:DeleteObject",
    "s3:PutBucketAcl",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutObjectAcl",
    "s3:PutReplicationConfiguration",
)
# What roles may do to people's keys: make one, open. Deleting one is for the vault's own pair (docs/keys.md).
PEOPLE: Final[dict[Role, tuple[str, ...]]] = {
    "writer": ("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"),
    "roller": ("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"),
    "reader": ("s3:GetObject", "s3:GetObjectVersion"),
}
PEOPLE_STAY: Final = ("s3:DeleteBucket", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutBucketVersioning")
SKEW_DAYS: Final = 2  # of the cap: whole days are compared, by the store's clock


@dataclass(frozen=True, slots=True)
class Duty:
    """One role's rights, on the bucket and on the estate's objects.

    `below` is the folder it may put into, `extends` that it may lengthen a lock without putting anything.
    """

    what: str
    on_bucket: tuple[str, ...]
    on_objects: tuple[str, ...]
    below: str = ""
    extends: bool = False

    @property
    def puts(self) -> bool:
        """Whether it puts objects at all."""
        return "s3:PutObject" in self.on_objects

    @property
    def denied(self) -> tuple[str, ...]:
        """What is refused by name: what none may, and what other duties are for."""
        others = (*DELETE, *HOLD, *PUT)
        return tuple(sorted({*NEVER, *(right for right in others if right not in self.on_objects)}))


WRITER: Final = Duty("capture, facts and the log: puts with a lock, reads back, lists", LIST + STATE, READ + PUT)
DUTIES: Final[dict[Role, Duty]] = {
    "writer": WRITER,
    "reader": Duty(
        "restore, verify, status: lists and reads every version and its lock, has what is cold thawed",
        LIST + STATE,
        READ + THAW,
    ),
    "roller": Duty(
        "roll-up and base backups: as the writer, and lengthens locks", LIST + STATE, READ + PUT, extends=True
    ),
    "replicator": Duty(
        "into the second region: reads, puts with a lock, lengthens it, places holds",
        LIST + STATE,
        READ + PUT + HOLD,
        extends=True,
    ),
    "expirer": Duty("expiry: lists, and deletes by version id what no lock holds", LIST, DELETE),
}
# In the vault that it copies from, a replicator only reads, and leaves its own facts.
REPLICATOR_AT_SOURCE: Final = Duty(
    "out of the first region: reads, and puts the facts of what is proven", LIST + STATE, READ + PUT, below="vault/"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects, and the bounds of their locks: text, so that a template's placeholders fit as well.

    `cap_days` is the longest lock in days; `mode` is COMPLIANCE, or `*` where some dataset asks for governance only.
    """

    bucket: str
    estate: str
    cap_days: str
    mode: str


def duty_of(role: Role, *, at_source: bool = False) -> Duty:
    """The rights of a role in one vault; `at_source`: that others are copied from."""
    return REPLICATOR_AT_SOURCE if role == "replicator" and at_source else DUTIES[role]


def cap_of(estate: Estate) -> timedelta:
    """The longest lock that any kind of object of any dataset gets: what a put beyond it is, is a mistake or an attack.

    Raises PolicyError `vault.lock_too_long`, `vault.no_retention`.
    """
    rules = LockRules.of(estate)
    longest = max(rules.length(name, kind) for name in estate.datasets for kind in get_args(Kind))
    return timedelta(days=longest.days + SKEW_DAYS)


def scope_of(estate: Estate, vault_name: str) -> Scope:
    """The bounds of one declared vault. Raises as `cap_of`."""
    modes = {dataset.retention.lock for dataset in estate.datasets.values()}
    mode = "COMPLIANCE" if modes == {"compliance"} else "*"
    return Scope(estate.vaults[vault_name].bucket, estate.name, str(cap_of(estate).days), mode)


def is_source(estate: Estate, vault_name: str) -> bool:
    """Whether some dataset is first written here and copied on."""
    return any(dataset.vault == vault_name and dataset.replicas for dataset in estate.datasets.values())
