"""Whether a source can be protected, and what exactly to change when it can't.

What belongs here: asking the server and judging each answer, one finding a fault, each with the statement that mends
it. What stays out: changing anything, and the capture itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from psycopg import sql

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.dsn import describe_dsn, require_safe_transport
from dr_assets.stores.postgres.managed import managed_service
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.preflight_sync import judge_zero_loss
from dr_assets.stores.postgres.protocol import (
    MIN_SERVER_VERSION,
    ConnectionLostError,
    ReplicationConnection,
    ServerRefusedError,
)
from dr_assets.stores.postgres.session import Connection, connect, source_errors
from dr_assets.stores.postgres.slot import SlotStatus, slot_status
from dr_assets.stores.postgres.standbys import judge_standbys
from dr_assets.stores.postgres.summaries import SUMMARY_SETTINGS, judge_summaries

Severity = Literal["error", "warning", "advice"]

SLOT_LOST: Final = "source.slot_lost"
# One sender for the stream and one for a base backup at the same time.
_SENDERS_NEEDED = 2


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One thing that is not as it should be. `hint` holds the statement or the line that changes it.

    error: protection is impossible. warning: it works until the day described. advice: something is made easier.
    """

    code: str
    severity: Severity
    found: str
    hint: str

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.found}. {self.hint}"


@dataclass(frozen=True, slots=True)
class _Source:
    """What the checks look at, read once."""

    dataset: PostgresDataset
    connection: Connection
    user: str
    settings: dict[str, str]
    slot: SlotStatus | None
    slots_used: int
    senders_used: int

    def number(self, setting: str) -> int:
        return int(self.settings[setting])


def preflight(dsn: str, dataset: PostgresDataset, patroni: Sequence[str] = ()) -> list[PreflightFinding]:
    """Every finding, errors first; an empty list means nothing stands in the way.

    Raises SourceError when the server can't be asked at all, PolicyError for an unreadable DSN.
    """
    try:
        require_safe_transport(dsn)
    except PolicyError as error:
        if error.code != "source.no_tls":
            raise
        return [PreflightFinding(error.code, "error", error.found, error.hint)]
    nodes = Nodes(dsn, patroni)
    primary = _dsn_of_primary(dsn, nodes)
    with source_errors(primary), connect(primary, application_name="dr-assets preflight") as connection:
        findings = _too_old(connection) or _judge(primary, dataset, connection, nodes)
    return sorted(findings, key=lambda finding: ("error", "warning", "advice").index(finding.severity))


def _dsn_of_primary(dsn: str, nodes: Nodes) -> str:
    """The DSN of the server that a capture would go to; where it could not, of the one to ask why."""
    if not nodes.are_several:
        return dsn
    try:
        with nodes.open_primary(application_name="dr-assets preflight", connect_timeout_s=5) as connection:
            return connection.dsn
    except ConnectionLostError:
        return nodes.told_leader or dsn


def require_ready(findings: list[PreflightFinding], dsn: str) -> None:
    """Raise one SourceError (`source.not_ready`) that lists the errors, if there are any."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        listed = "\n".join(f"  {finding}" for finding in errors)
        raise SourceError(
            "source.not_ready",
            f"{describe_dsn(dsn)} can't be protected as it is:\n{listed}",
            "make these changes, then run `dr-assets preflight` again",
        )


def _too_old(connection: Connection) -> list[PreflightFinding]:
    version = connection.info.server_version
    if version >= MIN_SERVER_VERSION:
        return []
    hint = "upgrade: replication commands and backup manifests that we rely on came with 15"
    return [PreflightFinding("source.version", "error", f"PostgreSQL {version // 10000} is older than 15", hint)]


def _judge(dsn: str, dataset: PostgresDataset, connection: Connection, nodes: Nodes) -> list[PreflightFinding]:
    source = _read(dataset, connection)
    findings = [finding for check in _CHECKS for finding in check(source)]
    findings += [PreflightFinding(*each) for each in judge_zero_loss(connection, dataset, source.user)]
    findings += [
        PreflightFinding(*each)
        for each in judge_standbys(connection, nodes, dataset.slot, zero_loss=dataset.zero_loss is not None)
    ]
    return findings + list(_replication(dsn, source))


def _read(dataset: PostgresDataset, connection: Connection) -> _Source:
    settings = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(_SETTINGS),))
    slots = connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone()
    senders = connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone()
    user = connection.execute("SELECT current_user::text").fetchone()
    return _Source(
        dataset=dataset,
        connection=connection,
        user=str(user[0] if user else ""),
        settings={str(name): str(value) for name, value in settings},
        slot=slot_status(connection, dataset.slot),
        slots_used=_count(slots),
        senders_used=_count(senders),
    )


_SETTINGS = (
    "wal_level", "max_wal_senders", "max_replication_slots", "max_slot_wal_keep_size", "full_page_writes", "fsync",
    "track_commit_timestamp", "data_checksums", *SUMMARY_SETTINGS,
)  # fmt: skip


def _primary(source: _Source) -> Iterator[PreflightFinding]:
    row = source.connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if row and row[0]:
        yield PreflightFinding(
            "source.standby", "error", "this server is a standby", "connect to the primary: heartbeats must be written"
        )


def _wal_level(source: _Source) -> Iterator[PreflightFinding]:
    if source.settings["wal_level"] == "minimal":
        yield PreflightFinding(
            "source.wal_level", "error", "wal_level is minimal", _alter("wal_level", "replica", restart=True)
        )


def _senders(source: _Source) -> Iterator[PreflightFinding]:
    allowed = source.number("max_wal_senders")
    ours = 1 if source.slot and source.slot.active else 0
    free = allowed - source.senders_used + ours
    found = f"max_wal_senders is {allowed}, {source.senders_used} in use"
    enough = source.senders_used - ours + _SENDERS_NEEDED
    if free < 1:
        yield PreflightFinding(
            "source.no_wal_sender", "error", found, _alter("max_wal_senders", max(10, enough), restart=True)
        )
    elif free < _SENDERS_NEEDED:
        hint = f"a base backup beside the capture needs one more: {_alter('max_wal_senders', enough, restart=True)}"
        yield PreflightFinding("source.few_wal_senders", "warning", found, hint)


def _slots(source: _Source) -> Iterator[PreflightFinding]:
    allowed = source.number("max_replication_slots")
    if source.slot is None and allowed - source.slots_used < 1:
        yield PreflightFinding(
            "source.no_slot",
            "error",
            f"max_replication_slots is {allowed}, {source.slots_used} in use",
            _alter("max_replication_slots", max(10, source.slots_used + 1), restart=True)
            + ", or drop a slot that nobody needs with pg_drop_replication_slot()",
        )


def _slot_state(source: _Source) -> Iterator[PreflightFinding]:
    slot = source.slot
    if slot is None:
        return
    if slot.slot_type != "physical":
        hint = "give the dataset another slot name in its declaration"
        yield PreflightFinding("source.slot_kind", "error", f"slot {slot.name} is {slot.slot_type}", hint)
    elif slot.is_lost:
        hint = "WAL that was not captured is gone; take a new base backup and start the capture with --accept-gap"
        yield PreflightFinding(SLOT_LOST, "error", f"slot {slot.name} is lost", hint)
    elif slot.wal_status == "unreserved":
        hint = "start the capture now: the next checkpoint may remove WAL that it has not read"
        yield PreflightFinding("source.slot_unreserved", "warning", f"slot {slot.name} is unreserved", hint)


def _slot_limit(source: _Source) -> Iterator[PreflightFinding]:
    limit_mb = source.number("max_slot_wal_keep_size")
    if limit_mb < 0:
        found = "max_slot_wal_keep_size is -1: while the vault is away, WAL fills this server's disk without a limit"
        hint = _alter("max_slot_wal_keep_size", "100GB", restart=False) + ", with what the disk can spare"
        if source.dataset.wal_volume_bytes is None:
            hint += "; or declare the disk's size as `wal_volume:`: now nothing can warn before it is full"
    else:
        found = f"max_slot_wal_keep_size is {limit_mb} MB: once the capture is that far behind, its slot is lost"
        hint = "make it larger than the WAL written during the longest outage of the vault that you want to survive"
    yield PreflightFinding("source.slot_limit", "warning", found, hint)


def _rights(source: _Source) -> Iterator[PreflightFinding]:
    query = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user"
    row = source.connection.execute(query).fetchone()
    if not (row and row[0]):
        yield PreflightFinding(
            "source.no_replication_right",
            "error",
            f"{source.user} has no REPLICATION right",
            _statement("ALTER ROLE {} REPLICATION", source.user),
        )


def _heartbeat(source: _Source) -> Iterator[PreflightFinding]:
    row = source.connection.execute(_HEARTBEAT_RIGHTS).fetchone()
    if row and row[0]:
        return
    database = source.connection.info.dbname
    yield PreflightFinding(
        "source.no_heartbeat_right",
        "error",
        f"{source.user} may not write the heartbeat table dr_assets.heartbeat in {database}",
        _statement("CREATE SCHEMA dr_assets AUTHORIZATION {}", source.user),
    )


_HEARTBEAT_RIGHTS = """
SELECT CASE
    WHEN to_regclass('dr_assets.heartbeat') IS NOT NULL
        THEN has_schema_privilege('dr_assets', 'USAGE')
             AND has_table_privilege('dr_assets.heartbeat', 'INSERT')
             AND has_table_privilege('dr_assets.heartbeat', 'SELECT')
             AND has_table_privilege('dr_assets.heartbeat', 'UPDATE')
    WHEN to_regnamespace('dr_assets') IS NOT NULL THEN has_schema_privilege('dr_assets', 'CREATE')
    ELSE has_database_privilege(current_database(), 'CREATE')
END
"""


def _durability(source: _Source) -> Iterator[PreflightFinding]:
    if source.settings["full_page_writes"] == "off":
        hint = _alter("full_page_writes", "on", restart=False)
        found = "full_page_writes is off: a torn page after a crash is not repaired"
        yield PreflightFinding("source.full_page_writes", "warning", found, hint)
    if source.settings["fsync"] == "off":
        hint = _alter("fsync", "on", restart=False)
        found = "fsync is off: a crash of the host can rewind WAL that was already captured"
        yield PreflightFinding("source.fsync", "warning", found, hint)
    if source.settings["data_checksums"] == "off":
        found = "data_checksums is off: a damaged page is backed up unnoticed"
        hint = "stop the server and run pg_checksums --enable --pgdata=<data directory>"
        yield PreflightFinding("source.data_checksums", "warning", found, hint)


def _commit_times(source: _Source) -> Iterator[PreflightFinding]:
    if source.settings["track_commit_timestamp"] == "off":
        found = "track_commit_timestamp is off: a restored database can't tell when its last transaction committed"
        hint = _alter("track_commit_timestamp", "on", restart=True)
        yield PreflightFinding("source.commit_timestamp", "advice", found, hint)


def _incrementals(source: _Source) -> Iterator[PreflightFinding]:
    finding = judge_summaries(source.dataset.snapshot, source.settings)
    if finding is not None:
        yield PreflightFinding(finding.code, "warning", finding.found, finding.hint)


_CHECKS: tuple[Callable[[_Source], Iterator[PreflightFinding]], ...] = (
    _primary, _wal_level, _senders, _slots, _slot_state, _slot_limit, _rights, _heartbeat, _durability, _commit_times,
    _incrementals,
)  # fmt: skip


def _replication(dsn: str, source: _Source) -> Iterator[PreflightFinding]:
    """Try it: pg_hba.conf and a service's own rules can't be read reliably from inside."""
    try:
        with ReplicationConnection.open(dsn, application_name="dr-assets preflight") as replication:
            replication.identify_system()
    except (SourceError, ConnectionLostError, ServerRefusedError) as error:
        service = managed_service(source.connection)
        if service is not None:
            yield _managed(service)
        elif isinstance(error, SourceError):
            yield PreflightFinding("source.no_replication", "error", error.found, error.hint)
        else:
            hint = (
                "allow it in pg_hba.conf (`host replication <user> <address> scram-sha-256`); behind a pooler use the "
                "server's own address; a service that offers no physical replication can't be protected this way"
            )
            yield PreflightFinding("source.no_replication", "error", str(error), hint)


def _managed(service: str) -> PreflightFinding:
    return PreflightFinding(
        "source.managed",
        "error",
        f"this is {service}, which does not offer PostgreSQL's replication protocol",
        "its WAL can't be captured from outside; use the service's own backups, or move to a server that you run",
    )


def _alter(setting: str, value: str | int, *, restart: bool) -> str:
    then = "restart the server" if restart else "SELECT pg_reload_conf()"
    return f"run: ALTER SYSTEM SET {setting} = '{value}', then {then}"


def _statement(template: str, name: str) -> str:
    return f"run as a superuser: {template.format(sql.Identifier(name).as_string(None))}"


def _count(row: tuple[object, ...] | None) -> int:
    return row[0] if row and isinstance(row[0], int) else 0
