"""The policy as data: what the whole house agrees on once a declaration was accepted.

What belongs here: frozen values without I/O, each with its unit in its type. What stays out: reading YAML
(documents.py), the declared strings (declarations.py) and the refusals (rules.py). Environment variables appear by
*name* only, so that an estate loads offline and holds no secret.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, Protocol

from dr_assets.estate.approvals import ApprovalRule
from dr_assets.estate.key_places import FILE, FileKeys, KeyProviderPlace, SignerPlace
from dr_assets.estate.log_policy import LogPolicy
from dr_assets.estate.prove import Prove
from dr_assets.estate.reconcile import Reconcile
from dr_assets.estate.verification import VerificationPolicy

LockMode = Literal["compliance", "governance"]
Level = Literal["quick", "standard", "deep"]
DatasetKind = Literal["postgres", "kafka", "bucket"]
KafkaProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
SubjectKind = Literal["none", "key", "tag", "metadata"]
Role = Literal["writer", "reader", "roller", "replicator", "expirer"]
ROLES: Final[tuple[Role, ...]] = ("writer", "reader", "roller", "replicator", "expirer")


@dataclass(frozen=True, slots=True)
class Tier:
    """A class of data with the loss (`rpo`) and the outage (`rto`) the business accepts at most."""

    name: str
    rpo: timedelta
    rto: timedelta


TIERS: Final[dict[str, Tier]] = {
    tier.name: tier
    for tier in (
        Tier("player_ledger", rpo=timedelta(seconds=30), rto=timedelta(minutes=15)),
        Tier("game_event_stream", rpo=timedelta(minutes=2), rto=timedelta(minutes=30)),
        Tier("kyc_aml", rpo=timedelta(minutes=15), rto=timedelta(hours=1)),
        Tier("analytics_warehouse", rpo=timedelta(hours=1), rto=timedelta(hours=4)),
    )
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where something lies. Provider and region together are one failure domain."""

    provider: str
    region: str
    jurisdiction: str

    @property
    def failure_domain(self) -> tuple[str, str]:
        """Provider and region, lower-cased: what one incident can take away at once."""
        return self.provider.lower(), self.region.lower()


@dataclass(frozen=True, slots=True)
class Credentials:
    """One identity of a store, by the names of the environment variables that hold its pair of keys."""

    access_key_env: str
    secret_key_env: str


@dataclass(frozen=True, slots=True)
class VaultPlace:
    """One object store that holds sealed copies; the `_env` fields are names of environment variables.

    `roles` are identities with one duty each (docs/roles.md); what has none is done with the vault's own pair.
    `replication`: as a replica it is filled by our own replicator, or by the stores, of which each object is proven.
    """

    name: str
    location: Location
    bucket: str
    endpoint_env: str
    access_key_env: str
    secret_key_env: str
    s3_region: str = "us-east-1"
    roles: Mapping[Role, Credentials] = field(default_factory=dict)
    replication: Literal["own", "store"] = "own"

    def credentials(self) -> tuple[Credentials, ...]:
        """The vault's own pair and that of every declared role."""
        return Credentials(self.access_key_env, self.secret_key_env), *self.roles.values()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How often a full base backup is due, how often an incremental one, and how many may follow one full."""

    every: timedelta
    incremental_every: timedelta | None = None
    incrementals_max: int = 24


@dataclass(frozen=True, slots=True)
class ZeroLoss:
    """The capture is a synchronous standby: a commit is acknowledged only once the vault holds it.

    `degrade_after` is how long commits wait for a capture or vault that is away before the source goes on without
    them; None lets them wait for as long as it takes (`block`).
    """

    degrade_after: timedelta | None


@dataclass(frozen=True, slots=True)
class Spool:
    """A folder (by the variable's name) on the capture's disk for sealed pieces that the vault can't take yet."""

    dir_env: str
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Regime:
    """What a law or a standard asks for: `days`, `mode`, and where that is written (`source`).

    `confirmed` is who took responsibility for this reading, and when; None means unconfirmed. `opposes_erasure`: no
    person of its datasets may be erased until so many days after the end of the relationship with them.
    """

    name: str
    days: int
    mode: LockMode
    source: str
    confirmed: str | None = None
    opposes_erasure: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """How long data is kept (`days`) and for how long its lock holds (`lock_days`, never shorter).

    Both, and the mode, are the strictest of what the dataset declares and of its `regimes`.
    """

    lock: LockMode
    days: int
    lock_days: int
    regimes: tuple[Regime, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often stored objects are read back (`every`), and in what time each of them was, at least once."""

    every: timedelta = timedelta(days=1)
    whole_in: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Cold:
    """Base backups' parts older than `after` lie in the class `storage_class`, from which `thaw` brings them back."""

    storage_class: Literal["GLACIER", "DEEP_ARCHIVE"]
    after: timedelta
    thaw: Literal["Expedited", "Standard", "Bulk"] = "Standard"


@dataclass(frozen=True, slots=True)
class RestoreTest:
    """When a restore into a sandbox is due, and the contract its money is reconciled against."""

    cron: str
    contract: str
    level: Level = "standard"


@dataclass(frozen=True, slots=True)
class Drill:
    """When a drill is due, and the age of the last one at which it counts as overdue."""

    cron: str
    overdue_after: timedelta


class Scheduled(Protocol):
    """Something that falls due by a cron line in UTC."""

    @property
    def cron(self) -> str:
        """The line."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(ABC):
    """One protected source with its promises, whatever kind it is of: what holds for each of them.

    `source` and `line` point at the declaration it came from. `linger` is how long the capture may gather what it
    received before it seals it. What only one kind of source has is in the classes below.
    """

    name: str
    kind: DatasetKind
    tier: Tier
    rpo: timedelta
    rto: timedelta
    retention: Retention
    location: Location
    vault: str
    replicas: tuple[str, ...]
    restore_test: Scheduled
    drill: Drill
    owners: tuple[str, ...]
    exception: str | None
    linger: timedelta
    source: Path
    line: int
    sampling: Sampling = Sampling()
    cold: Cold | None = None
    key_providers: tuple[str, ...] | None = None

    @property
    @abstractmethod
    def base_every(self) -> timedelta:
        """How often a restore gets a new beginning; locks hold that much longer, for the last that needs the old."""

    @abstractmethod
    def env_names(self) -> set[str]:
        """The environment variables that its source is found by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresDataset(Dataset):
    """A Postgres database: base backups and its WAL.

    `wal_volume_bytes` is the size of the source's volume that pg_wal lies on, None when nobody declared it.
    """

    kind: Literal["postgres"] = "postgres"
    dsn_env: str
    slot: str
    snapshot: Snapshot
    restore_test: RestoreTest
    zero_loss: ZeroLoss | None = None
    spool: Spool | None = None
    wal_volume_bytes: int | None = None
    patroni_env: str | None = None
    prove: Prove | None = None
    reconcile: Reconcile | None = None

    @property
    def base_every(self) -> timedelta:
        """The age at which a full base backup is due."""
        return self.snapshot.every

    def env_names(self) -> set[str]:
        """Connection string, spool, Patroni, and where outsiders' files lie."""
        spool = {self.spool.dir_env} if self.spool else set()
        spool |= self.reconcile.env_names() if self.reconcile else set()
        return {self.dsn_env} | spool | ({self.patroni_env} if self.patroni_env else set())


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How a Kafka cluster is spoken to; CA file, name and password by the names of their variables."""

    protocol: KafkaProtocol = "PLAINTEXT"
    ca_file_env: str | None = None
    mechanism: SaslMechanism | None = None
    username_env: str | None = None
    password_env: str | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.protocol in {"SSL", "SASL_SSL"}

    def env_names(self) -> set[str]:
        """The variables that it names."""
        return {name for name in (self.ca_file_env, self.username_env, self.password_env) if name}


@dataclass(frozen=True, slots=True)
class KafkaRestoreTest:
    """When a restore of the topics into a throwaway broker is due."""

    cron: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicsDataset(Dataset):
    """Topics of a Kafka cluster with what continues them: groups' offsets, configuration, ACLs.

    `topics`, `exclude` and `groups` are names or patterns with `*`. Compacted topics are exported anew from their
    first offset every `compacted_every`: what compaction took away between two exports is no loss, it was replaced.
    `erase_key` is an expression with a group `subject`: whose record it is, by its key; None: no erasure reaches them.
    """

    kind: Literal["kafka"] = "kafka"
    bootstrap_env: str
    topics: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("*",)
    security: KafkaSecurity = KafkaSecurity()
    schema_registry_env: str | None = None
    compacted_every: timedelta = timedelta(days=7)
    restore_test: KafkaRestoreTest
    erase_key: str | None = None

    @property
    def base_every(self) -> timedelta:
        """The interval at which compacted topics are exported anew."""
        return self.compacted_every

    def env_names(self) -> set[str]:
        """The cluster's addresses, its schema registry and what is shown to enter."""
        registry = {self.schema_registry_env} if self.schema_registry_env else set()
        return {self.bootstrap_env} | registry | self.security.env_names()

    def covers(self, topic: str) -> bool:
        """Whether a topic of this name is captured."""
        return matches(topic, self.topics) and not matches(topic, self.exclude)

    def covers_group(self, group: str) -> bool:
        """Whether the offsets of a group of this name are captured."""
        return matches(group, self.groups)


@dataclass(frozen=True, slots=True)
class SubjectRule:
    """Whose a document is: read from its key (`pattern`, with a group `subject`), from a tag or its metadata (`name`).

    `none`: documents of nobody in particular, sealed without anybody's key, and no erasure reaches them.
    """

    kind: SubjectKind = "none"
    pattern: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class BucketRestoreTest:
    """When a restore of the bucket into a throwaway one is due."""

    cron: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketDataset(Dataset):
    """A bucket of documents, or the part of it below `prefix`.

    Every `copy_every` its listing is compared with what is stored, every `full_every` a whole inventory is written
    anew. `events_queue_env` names a queue (as SQS speaks) that tells of changes sooner.
    """

    kind: Literal["bucket"] = "bucket"
    bucket: str
    prefix: str = ""
    endpoint_env: str
    access_key_env: str
    secret_key_env: str
    s3_region: str = "us-east-1"
    subject: SubjectRule
    events_queue_env: str | None = None
    copy_every: timedelta = timedelta(minutes=5)
    full_every: timedelta = timedelta(days=7)
    restore_test: BucketRestoreTest

    @property
    def base_every(self) -> timedelta:
        """The interval at which a whole inventory is written."""
        return self.full_every

    def env_names(self) -> set[str]:
        """The source's address and keys, and the queue that tells of changes."""
        queue = {self.events_queue_env} if self.events_queue_env else set()
        return {self.endpoint_env, self.access_key_env, self.secret_key_env} | queue


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is one of these; `*` in them stands for any characters, nothing else has a meaning of its own."""
    return any(re.fullmatch(".*".join(map(re.escape, one.split("*"))), name, re.DOTALL) for one in patterns)


@dataclass(frozen=True, slots=True)
class Licence:
    """The regulator whose licence this is, and the jurisdictions (ISO 3166-1 alpha-2) it lets data lie in."""

    authority: str
    jurisdictions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alerts:
    """Names of the environment variables that hold the webhooks; a name without a value is a channel switched off."""

    slack_webhook_env: str | None = None
    webhook_env: str | None = None


@dataclass(frozen=True, slots=True)
class Subjects:
    """The ring of people's keys (docs/keys.md): a bucket of this name beside each of these vaults.

    `id_key_env` names the variable of the file with the key of subject ids. Erasure is final after `erasure_grace`.
    `escrow_recipient`: an offline age identity that opens each person's record, too, as long as that record exists.
    `relationships_env` names the variable of a file that says when the relationship with whom ended.
    """

    vaults: tuple[str, ...]
    bucket: str
    id_key_env: str
    erasure_grace: timedelta = timedelta(days=30)
    most_at_once: int = 50
    most_a_day: int = 100
    escrow_recipient: str | None = None
    relationships_env: str | None = None


@dataclass(frozen=True, slots=True)
class Estate:
    """Everything declared: one licence, its vaults, its datasets.

    `keys_dir_env` is empty where no provider is a folder, `signing_key_env` where the signing key isn't in a file but
    at `signer`. A dataset without `key_providers` is wrapped by all of them.
    """

    name: str
    licence: Licence
    vaults: dict[str, VaultPlace]
    datasets: dict[str, Dataset]
    alerts: Alerts
    keys_dir_env: str
    trust_file_env: str
    signing_key_env: str
    owners: tuple[str, ...]
    subjects: Subjects | None = None
    rotate_every: timedelta = timedelta(days=90)
    log: LogPolicy = field(default_factory=LogPolicy)
    verification: VerificationPolicy = field(default_factory=VerificationPolicy)
    providers: tuple[KeyProviderPlace, ...] = ()
    signer: SignerPlace | None = None
    approvals: ApprovalRule | None = None
    regimes: tuple[Regime, ...] = ()

    @property
    def key_providers(self) -> tuple[KeyProviderPlace, ...]:
        """Who wraps data keys; an estate that names only a folder has one, called `file`."""
        return self.providers or (KeyProviderPlace(FILE, FileKeys(self.keys_dir_env)),)

    def postgres(self) -> dict[str, PostgresDataset]:
        """The Postgres databases among the datasets."""
        return {name: one for name, one in self.datasets.items() if isinstance(one, PostgresDataset)}

    def topics(self) -> dict[str, TopicsDataset]:
        """The Kafka topics among the datasets."""
        return {name: one for name, one in self.datasets.items() if isinstance(one, TopicsDataset)}

    def buckets(self) -> dict[str, BucketDataset]:
        """The buckets among the datasets."""
        return {name: one for name, one in self.datasets.items() if isinstance(one, BucketDataset)}

    def only(self, *names: str) -> "Estate":
        """The same estate with no other datasets than these."""
        return replace(self, datasets={name: self.datasets[name] for name in names})

    def key_envs(self) -> set[str]:
        """The variables that key-encryption keys, signing key and trust file are found by."""
        names = {name for one in self.key_providers for name in one.place.env_names()} | {self.trust_file_env}
        return names | (set(self.signer.env_names()) if self.signer else {self.signing_key_env})

    def secret_key_envs(self) -> list[str]:
        """Those of `key_envs` whose values are secrets: PINs, tokens, the secret halves of pairs."""
        places = [*(one.place for one in self.key_providers), *([self.signer] if self.signer else [])]
        return [name for place in places for name in place.secret_envs()]

    def env_names(self) -> tuple[str, ...]:
        """Every environment variable the estate may ask for, sorted: what a resident process is given."""
        names = self.key_envs()
        if self.subjects:
            names |= {name for name in (self.subjects.id_key_env, self.subjects.relationships_env) if name}
        names |= self.log.env_names()
        names |= {name for name in (self.alerts.slack_webhook_env, self.alerts.webhook_env) if name}
        names |= {name for dataset in self.datasets.values() for name in dataset.env_names()}
        for place in self.vaults.values():
            names |= {place.endpoint_env}
            names |= {name for pair in place.credentials() for name in (pair.access_key_env, pair.secret_key_env)}
        return tuple(sorted(names))
