"""Probes of the source: reachable, fit, its slot alive, its commits waiting for whom they should.

What belongs here: asking the source. What stays out: the judgements that the preflight makes already.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.cli.doctor.line import Line, Verdict
from dr_assets.cli.doctor.patient import Patient
from dr_assets.cli.doctor.settings import programs_for
from dr_assets.stores.postgres.dsn import describe_dsn
from dr_assets.stores.postgres.patroni import PatroniSilentError, find_members, leader
from dr_assets.stores.postgres.preflight import preflight
from dr_assets.stores.postgres.session import Connection, connect, source_errors
from dr_assets.stores.postgres.slot import SlotStatus, slot_status
from dr_assets.stores.postgres.slot_room import RED_SHARE, RoomWatch
from dr_assets.vault.retention import CLOCK_SKEW_LIMIT

_SEVERITY: Final[dict[str, Verdict]] = {"error": "bad", "warning": "warn", "advice": "ok"}


def source(patient: Patient) -> Iterator[Line]:
    """The source answers, its clock agrees, programs of its version are here, and the slot is being read."""
    dsn = patient.dsn
    with source_errors(dsn), connect(dsn, application_name="dr-assets doctor") as connection:
        version = connection.info.server_version
        yield Line("source", "ok", f"PostgreSQL {version // 10000}.{version % 10000} at {describe_dsn(dsn)}")
        yield _clock(connection)
        yield from _slot(patient, connection)
        if patient.database.zero_loss is not None:
            yield _synchronous(patient, connection)
    yield programs_for(patient, version // 10000, "the source")


def patroni(patient: Patient) -> Iterator[Line]:
    """Where the dataset names Patroni: it answers, and says who leads."""
    urls = patient.patroni()
    if not urls:
        return
    try:
        members = find_members(urls)
    except PatroniSilentError as error:
        hint = "after a failover the capture asks there who leads: see its REST endpoints, and what is between"
        yield Line("patroni", "bad", str(error), hint)
        return
    leads = leader(members)
    if leads is None:
        yield Line(
            "patroni", "bad", f"{len(members)} members, none leads", "see `patronictl list`: nobody can be captured"
        )
    else:
        yield Line("patroni", "ok", f"{len(members)} members, {leads.name} leads on timeline {leads.timeline}")


def fitness(patient: Patient) -> Iterator[Line]:
    """What `dr-assets preflight` finds."""
    findings = preflight(patient.dsn, patient.database, patient.patroni())
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
    slot = slot_status(connection, patient.database.slot)
    if slot is None:
        hint = f"start `dr-assets capture {patient.database.name}`: it creates it; if there was one, see its log"
        yield Line("slot", "bad", f"there is no slot {patient.database.slot}: nothing is being captured", hint)
        return
    if slot.is_lost:
        hint = "docs/operations.md, `Slot lost`: --accept-gap, then a base backup at once"
        yield Line("slot", "bad", f"slot {slot.name} is lost: WAL that was not captured is gone", hint)
        return
    yield _reader(patient, slot)
    yield _reserve(patient, slot)


def _reader(patient: Patient, slot: SlotStatus) -> Line:
    if slot.active:
        return Line("capture", "ok", f"streams from slot {slot.name}, PID {slot.active_pid} of the source")
    hint = f"start `dr-assets capture {patient.database.name}`, and see why it ended (journalctl, or its log)"
    return Line("capture", "bad", f"nobody reads slot {slot.name}", hint)


def _reserve(patient: Patient, slot: SlotStatus) -> Line:
    room = RoomWatch(patient.database.wal_volume_bytes).look(slot, time.monotonic())
    limit = "no limit is known" if room.limit_bytes is None else f"of {room.limit_bytes >> 20} MiB at most"
    found = f"slot {slot.name} is {slot.wal_status}, the source keeps {slot.retained_bytes >> 20} MiB for it, {limit}"
    alarm = room.alarm()
    if alarm is None and slot.wal_status != "unreserved":
        return Line("slot", "ok", found)
    nearly: Verdict = "bad" if slot.wal_status == "unreserved" or (room.share or 0.0) >= RED_SHARE else "warn"
    hint = "bring the capture or the vault back now, or raise max_slot_wal_keep_size"
    return Line("slot", nearly, alarm or found, hint)


def _synchronous(patient: Patient, connection: Connection) -> Line:
    """Commits wait for the capture, by the server's own word; its application_name is the slot's name."""
    name = patient.database.slot
    row = connection.execute(
        "SELECT sync_state FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'", (name,)
    ).fetchone()
    state = str(row[0]) if row else "away"
    if state in {"sync", "quorum"}:
        return Line("zero loss", "ok", f"commits wait for {name} ({state})")
    hint = "see synchronous_standby_names and the capture's log: a commit acknowledged now may be lost with the source"
    return Line("zero loss", "bad", f"commits do not wait for {name}: it is {state}", hint)
