"""The schema of `defs.yaml`: the strings people write, field by field.

What belongs here: the two declarations as pydantic models, which are also the schema that Dagster's components and
their editor support use. What stays out: rules over several fields (rules.py), reading files (declarations.py) and
the accepted policy (model.py).
"""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dr_assets.estate.durations import DURATION_PATTERN
from dr_assets.estate.prove import ProveDeclaration
from dr_assets.estate.reconcile import ReconcileDeclaration
from dr_assets.estate.sizes import SIZE_PATTERN

ESTATE_TYPE: Final = "dr_assets.components.ProtectedEstate"
POSTGRES_TYPE: Final = "dr_assets.components.ProtectedPostgres"
TOPICS_TYPE: Final = "dr_assets.components.ProtectedTopics"
BUCKET_TYPE: Final = "dr_assets.components.ProtectedBucket"

NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,47}$"
ENV_PATTERN: Final = r"^[A-Z][A-Z0-9_]{0,127}$"
JURISDICTION_PATTERN: Final = r"^[A-Z]{2}$"
OWNER_PATTERN: Final = r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$"
SLOT_PATTERN: Final = r"^[a-z0-9_]{1,63}$"
VERIFIER_KEY_PATTERN: Final = r"^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}$"
BUCKET_PATTERN: Final = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
PUBLIC_KEY_PATTERN: Final = r"^[0-9a-f]{64}$"
CONTRACT_PATTERN: Final = r"^([a-z][a-z0-9_]{0,47}|[^\r\n]{0,500}/[^\r\n]{0,500})$"
AGE_PATTERN: Final = r"^age1[0-9a-z]{58}$"
TOPIC_PATTERN: Final = r"^[A-Za-z0-9._*-]{1,249}$"

# What a pattern asks for, in words: pydantic itself would print the expression.
PATTERN_REASONS: Final = {
    DURATION_PATTERN: "a duration needs a positive whole number and a unit: 500ms, 30s, 15m, 24h, 35d",
    SIZE_PATTERN: "a size needs a positive whole number and a unit: 512MiB, 20GiB",
    NAME_PATTERN: "a name is lower-case letters, digits and _, starting with a letter, at most 48 of them",
    ENV_PATTERN: "this is the *name* of an environment variable (upper-case letters, digits, _), never its value",
    JURISDICTION_PATTERN: "a jurisdiction is an ISO 3166-1 alpha-2 code: MT, FR, DE",
    OWNER_PATTERN: "an owner is `team:<name>` or an e-mail address",
    SLOT_PATTERN: "a replication slot's name is lower-case letters, digits and _, at most 63 of them",
    VERIFIER_KEY_PATTERN: "a verifier key is name+8 hex digits+base64, as `dr-assets witness init` prints it",
    PUBLIC_KEY_PATTERN: "a public key is 64 lower-case hex digits, as `dr-assets approvals key` prints them",
    CONTRACT_PATTERN: "a contract is a packaged one's name, or the path of a folder, with a slash in it",
    AGE_PATTERN: "an age recipient begins with age1, as `age-keygen` prints it",
    TOPIC_PATTERN: "a topic is letters, digits, dots, _ and -, at most 249 of them; `*` stands for any of them",
    BUCKET_PATTERN: "a bucket's name is 3 to 63 lower-case letters, digits, dots and hyphens",
}

# The keys that take one of two shapes, in words: "`x` is neither …".
EITHER_OR_REASONS: Final = {
    "on_capture_loss": "`block` (commits wait for as long as it takes) nor `{degrade_after: 10s}`",
}

DurationText = Annotated[str, Field(pattern=DURATION_PATTERN)]
SizeText = Annotated[str, Field(pattern=SIZE_PATTERN)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
EnvName = Annotated[str, Field(pattern=ENV_PATTERN)]
Jurisdiction = Annotated[str, Field(pattern=JURISDICTION_PATTERN)]
Owner = Annotated[str, Field(pattern=OWNER_PATTERN)]
Text = Annotated[str, Field(min_length=1)]


class Declared(BaseModel):
    """What people write: nothing more than is known, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LocationDeclaration(Declared):
    """Where a source or a vault lies."""

    provider: Text
    region: Text
    jurisdiction: Jurisdiction


class SnapshotDeclaration(Declared):
    """Cadence of full and of incremental base backups (PostgreSQL 17 and later), and how many follow one full."""

    every: DurationText
    incremental_every: DurationText | None = None
    incrementals_max: Annotated[int, Field(ge=1, le=24)] = 24


class CaptureLossDeclaration(Declared):
    """How long commits wait for a capture that is away before the source goes on without it."""

    degrade_after: DurationText


class SpoolDeclaration(Declared):
    """Where sealed pieces wait while the vault is away, and how much of them."""

    dir_env: EnvName
    max: SizeText


class RetentionDeclaration(Declared):
    """How long data is kept, and how its lock holds."""

    lock: Literal["compliance", "governance"]
    days: Annotated[int, Field(ge=1, le=36500)]
    lock_days: Annotated[int, Field(ge=1, le=36500)] | None = None
    regimes: list[Name] = []


class RegimeDeclaration(Declared):
    """What a law or a standard asks for, as the estate reads it; `confirmed` says who confirmed that, and when."""

    days: Annotated[int, Field(ge=1, le=36500)]
    mode: Literal["compliance", "governance"]
    source: Text
    confirmed: Text | None = None
    opposes_erasure: bool = False


class SamplingDeclaration(Declared):
    """How often stored objects are read back, and in what time all of them were."""

    every: DurationText = "24h"
    whole_in: DurationText = "30d"


class ColdDeclaration(Declared):
    """From what age on base backups may lie in a class that has to be thawed first."""

    storage_class: Literal["GLACIER", "DEEP_ARCHIVE"]
    after: DurationText
    thaw: Literal["Expedited", "Standard", "Bulk"] = "Standard"


class RestoreTestDeclaration(Declared):
    """When to restore into a sandbox, and what the money is reconciled against: a packaged contract or a folder.

    A relative folder is found from the declaration's own.
    """

    cron: Text
    contract: Annotated[str, Field(pattern=CONTRACT_PATTERN)]
    level: Literal["quick", "standard", "deep"] = "standard"


class DrillDeclaration(Declared):
    """When to drill, and when a missing drill is overdue."""

    cron: Text
    overdue_after: DurationText


class DatasetDeclaration(Declared):
    """What every protected source declares: its promises, its places, its proofs. `base`: what a restore begins at."""

    base: ClassVar[str]

    dataset: Name
    tier: Text
    retention: RetentionDeclaration
    location: LocationDeclaration
    drill: DrillDeclaration
    owners: Annotated[list[Owner], Field(min_length=1)]
    rpo: DurationText | None = None
    rto: DurationText | None = None
    vault: Name = "primary"
    replicas: list[Name] = []
    key_providers: Annotated[list[Name], Field(min_length=1)] | None = None
    linger: DurationText = "500ms"
    sampling: SamplingDeclaration = SamplingDeclaration()
    exception: str | None = None

    @property
    def restore_cron(self) -> str:
        """When a restore test is due."""
        raise NotImplementedError  # each kind of source's own

    @property
    def base_every(self) -> str:
        """How often a restore gets a new beginning: what lengthens locks."""
        raise NotImplementedError  # each kind of source's own

    @property
    def is_followed(self) -> bool:
        """Whether a beginning is needed by the next ones as well: by incrementals."""
        return False


class PostgresDeclaration(DatasetDeclaration):
    """One protected Postgres database."""

    base: ClassVar[str] = "a base backup"

    dsn_env: EnvName
    snapshot: SnapshotDeclaration
    restore_test: RestoreTestDeclaration
    slot: Annotated[str, Field(pattern=SLOT_PATTERN)] | None = None
    durability: Literal["asynchronous", "zero_loss"] = "asynchronous"
    on_capture_loss: Literal["block"] | CaptureLossDeclaration | None = None
    spool: SpoolDeclaration | None = None
    wal_volume: SizeText | None = None
    patroni_env: EnvName | None = None
    cold: ColdDeclaration | None = None
    prove: ProveDeclaration | None = None
    reconcile: ReconcileDeclaration | None = None

    @property
    def restore_cron(self) -> str:
        """When a restore test is due."""
        return self.restore_test.cron

    @property
    def base_every(self) -> str:
        """How often a full base backup is due."""
        return self.snapshot.every

    @property
    def is_followed(self) -> bool:
        """Incrementals need the full before them."""
        return self.snapshot.incremental_every is not None


class LicenceDeclaration(Declared):
    """The regulator and the jurisdictions it lets data lie in."""

    authority: Text
    jurisdictions: Annotated[list[Jurisdiction], Field(min_length=1)]


class RoleDeclaration(Declared):
    """One identity of a store, by the names of the variables that hold its pair of keys."""

    access_key_env: EnvName
    secret_key_env: EnvName


class RolesDeclaration(Declared):
    """Identities with one duty each; what has none is done with the vault's own pair."""

    writer: RoleDeclaration | None = None
    reader: RoleDeclaration | None = None
    roller: RoleDeclaration | None = None
    replicator: RoleDeclaration | None = None
    expirer: RoleDeclaration | None = None


class VaultDeclaration(Declared):
    """One object store with locked copies; credentials by the name of their environment variables."""

    location: LocationDeclaration
    bucket: Annotated[str, Field(pattern=BUCKET_PATTERN)]
    endpoint_env: EnvName
    access_key_env: EnvName
    secret_key_env: EnvName
    s3_region: Text = "us-east-1"
    roles: RolesDeclaration = RolesDeclaration()
    replication: Literal["own", "store"] = "own"


class KeyPlaceDeclaration(Declared):
    """One place that keeps keys; key_rules.py says what each kind needs. Secrets by the name of their variables."""

    kind: Literal["file", "pkcs11", "aws_kms", "openbao"]
    key: Text | None = None
    dir_env: EnvName | None = None
    module_env: EnvName | None = None
    token: Text | None = None
    pin_env: EnvName | None = None
    library_envs: list[EnvName] | None = None
    region: Text | None = None
    endpoint_env: EnvName | None = None
    access_key_env: EnvName | None = None
    secret_key_env: EnvName | None = None
    address_env: EnvName | None = None
    mount: Text | None = None
    token_env: EnvName | None = None
    role_id_env: EnvName | None = None
    secret_id_env: EnvName | None = None
    ca_env: EnvName | None = None


class KeysDeclaration(Declared):
    """Where key-encryption keys, the signer's key and the trusted signers are found.

    `dir_env` is one provider of kind `file`; `signing_key_env` is a signer in a file.
    """

    trust_file_env: EnvName
    dir_env: EnvName | None = None
    providers: Annotated[dict[Name, KeyPlaceDeclaration], Field(min_length=1)] | None = None
    signing_key_env: EnvName | None = None
    signer: KeyPlaceDeclaration | None = None
    rotate_every: DurationText = "90d"


class SubjectsDeclaration(Declared):
    """The ring of people's keys: a bucket of this name beside each of these vaults, and how erasure becomes final."""

    vaults: list[Name]
    bucket: Annotated[str, Field(pattern=BUCKET_PATTERN)]
    id_key_env: EnvName
    erasure_grace: DurationText = "30d"
    most_at_once: Annotated[int, Field(ge=1, le=1000)] = 50
    most_a_day: Annotated[int, Field(ge=1, le=1000)] = 100
    escrow_recipient: Annotated[str, Field(pattern=AGE_PATTERN)] | None = None
    relationships_env: EnvName | None = None


class AlertsDeclaration(Declared):
    """Webhooks by the name of their environment variables."""

    slack_webhook_env: EnvName | None = None
    webhook_env: EnvName | None = None


class WitnessDeclaration(Declared):
    """A witness of the log (docs/witness.md): its address by variable, and its public verifier key."""

    name: Name
    url_env: EnvName
    key: Annotated[str, Field(pattern=VERIFIER_KEY_PATTERN)]


class TimestampDeclaration(Declared):
    """A time-stamping authority (RFC 3161): its address and the PEM file of believed roots, by variable."""

    url_env: EnvName
    roots_env: EnvName
    every: DurationText = "1h"


class AnchorDeclaration(Declared):
    """An EVM chain in which the log's root is written now and then; address and paying key by variable."""

    url_env: EnvName
    key_env: EnvName
    chain_id: Annotated[int, Field(ge=1)]
    confirmations: Annotated[int, Field(ge=1, le=10_000)] = 12
    every: DurationText = "24h"


class LogDeclaration(Declared):
    """Who outside vouches for the transparency log."""

    witnesses: list[WitnessDeclaration] = []
    quorum: Annotated[int, Field(ge=0)] | None = None
    cosigned_within: DurationText = "1h"
    timestamp: TimestampDeclaration | None = None
    anchor: AnchorDeclaration | None = None


class VerificationDeclaration(Declared):
    """When every vault that is captured into is verified, as cron lines in UTC (docs/verify.md)."""

    index: str = "40 4 * * *"
    sample: str = "40 16 * * *"
    full: str = "40 5 * * 0"
    share: Annotated[float, Field(gt=0, le=1)] = 0.05


class ApproverDeclaration(Declared):
    """Somebody whose signature counts, by name and raw Ed25519 public key."""

    name: Name
    public_key: Annotated[str, Field(pattern=PUBLIC_KEY_PATTERN)]


class ApprovalsDeclaration(Declared):
    """How many of whom have to sign before anything is deleted (docs/approvals.md)."""

    approvers: Annotated[list[ApproverDeclaration], Field(min_length=2)]
    needed: Annotated[int, Field(ge=2)] = 2
    valid_for: DurationText = "72h"


class EstateDeclaration(Declared):
    """What all datasets share: licence, vaults, keys, alerts."""

    estate: Name
    licence: LicenceDeclaration
    vaults: Annotated[dict[Name, VaultDeclaration], Field(min_length=1)]
    keys: KeysDeclaration
    owners: Annotated[list[Owner], Field(min_length=1)]
    alerts: AlertsDeclaration = AlertsDeclaration()
    subjects: SubjectsDeclaration | None = None
    log: LogDeclaration | None = None
    approvals: ApprovalsDeclaration | None = None
    verification: VerificationDeclaration = VerificationDeclaration()
    regimes: dict[Name, RegimeDeclaration] = {}
