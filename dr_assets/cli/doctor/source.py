"""Probes of the source: reachable, fit, its slot alive, its commits waiting for whom they should.

What belongs here: asking the source. What stays out: the judgements that the preflight makes already.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.cli.doctor.line import Line, Verdict
from dr_assets.cli.doctor.patient import Patient
from dr_assets.cli.doctor.settings import programs_for
from dr_assets.stores.postgres.dsn import describe_dsn
from dr_assets.stores.postgres.preflight import preflight
from dr_assets.stores.postgres.session import Connection, connect, source_errors
from dr_assets.stores.postgres.slot import SlotStatus, slot_status
from dr_assets.vault.retention import CLOCK_SKEW_LIMIT

_SEVERITY: Final[dict[str, Verdict]] = {"error": "bad", "warning": "warn", "advice": "ok"}
# Below this share of what a slot may keep back, the next hour of a busy night can lose it.
_SLOT_ALARM: Final = 0.25


def source(patient: Patient) -> Iterator[Line]:
    """The source answers, its clock agrees, programs of its version are here, and the slot is being read."""
    dsn = patient.dsn
    with source_errors(dsn), connect(dsn, application_name="dr-assets doctor") as connection:
        version = connection.info.server_version
        yield Line("source", "ok", f"PostgreSQL {version // 10000}.{version % 10000} at {describe_dsn(dsn)}")
        yield _clock(connection)
        yield from _slot(patient, connection)
        if patient.dataset.zero_loss is not None:
            yield _synchronous(patient, connection)
    yield programs_for(patient, version // 10000, "the source")


def fitness(patient: Patient) -> Iterator[Line]:
    """What `dr-assets preflight` finds."""
    findings = preflight(patient.dsn, patient.dataset)
    for finding in findings:
        yield Line("preflight", _SEVERITY[finding.severity], f"{finding.code}: {finding.found}", finding.hint)
    if not findings:
        yield Line("preflight", "ok", "nothing stands in the way")


def _clock(connection: Connection) -> Line:
    before = datetime.now(UTC)
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    at = row[0] if row else None
    if not isinstance(at, datetime):
        raise TypeError(at)
    skew = max(before - at, at - datetime.now(UTC), timedelta(0))
    found = f"the source's clock differs from this host's by {skew / timedelta(seconds=1):.1f} s at most"
    if skew <= CLOCK_SKEW_LIMIT:
        return Line("source clock", "ok", found)
    return Line("source clock", "bad", found, "synchronise both with NTP: the recovery point's age is told by them")


def _slot(patient: Patient, connection: Connection) -> Iterator[Line]:
    slot = slot_status(connection, patient.dataset.slot)
    if slot is None:
        hint = f"start `dr-assets capture {patient.dataset.name}`: it creates it; if there was one, see its log"
        yield Line("slot", "bad", f"there is no slot {patient.dataset.slot}: nothing is being captured", hint)
        return
    if slot.is_lost:
        hint = "docs/operations.md, `Slot lost`: --accept-gap, then a base backup at once"
        yield Line("slot", "bad", f"slot {slot.name} is lost: WAL that was not captured is gone", hint)
        return
    yield _reader(patient, slot)
    yield _reserve(slot)


def _reader(patient: Patient, slot: SlotStatus) -> Line:
    if slot.active:
        return Line("capture", "ok", f"streams from slot {slot.name}, PID {slot.active_pid} of the source")
    hint = f"start `dr-assets capture {patient.dataset.name}`, and see why it ended (journalctl, or its log)"
    return Line("capture", "bad", f"nobody reads slot {slot.name}", hint)


def _reserve(slot: SlotStatus) -> Line:
    kept = f"slot {slot.name} is {slot.wal_status}, the source keeps {slot.retained_bytes >> 20} MiB for it"
    if slot.safe_bytes is None:
        return Line("slot", "ok", f"{kept}, without a limit")
    found = f"{kept} and may write {slot.safe_bytes >> 20} MiB more until it can be lost"
    whole = slot.safe_bytes + slot.retained_bytes
    if slot.wal_status in {"reserved", "extended"} and slot.safe_bytes >= _SLOT_ALARM * whole:
        return Line("slot", "ok", found)
    return Line("slot", "bad", found, "bring the capture or the vault back now, or raise max_slot_wal_keep_size")


def _synchronous(patient: Patient, connection: Connection) -> Line:
    """Commits wait for the capture, by the server's own word; its application_name is the slot's name."""
    name = patient.dataset.slot
    row = connection.execute(
        "SELECT sync_state FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'", (name,)
    ).fetchone()
    state = str(row[0]) if row else "away"
    if state in {"sync", "quorum"}:
        return Line("zero loss", "ok", f"commits wait for {name} ({state})")
    hint = "see synchronous_standby_names and the capture's log: a commit acknowledged now may be lost with the source"
    return Line("zero loss", "bad", f"commits do not wait for {name}: it is {state}", hint)
