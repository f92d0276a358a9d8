"""Probes of what the vault holds: could the dataset be restored now, how much would be lost, was it ever proven.

What belongs here: the same rules as the checks in Dagster, read for a person. What stays out: the store (vaults.py).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from dr_assets.cli.doctor.line import EXIT_CODES, Line, Verdict
from dr_assets.cli.doctor.patient import Patient
from dr_assets.cli.doctor.settings import programs_for, room_for
from dr_assets.estate import cadence
from dr_assets.estate.durations import format_duration
from dr_assets.stores.objective import age_text, ahead_of
from dr_assets.stores.postgres.backlog import backlogs
from dr_assets.stores.postgres.capture_facts import GAP
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.objective import rpo_trouble, stream_of
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.stores.postgres.settled import unsettled
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import parse_time

_OK: Final[Verdict] = "ok"
_COLOURS: Final[dict[str, Verdict]] = {"green": "ok", "yellow": "warn", "red": "bad"}
PASSED: Final = "passed"


def recovery_point(patient: Patient) -> Iterator[Line]:
    """Its age against the RPO, by the rule of the check `rpo`."""
    vault, dataset = patient.vault(), patient.database
    point, base = stored_recovery_point(vault, dataset), latest_fact(vault, dataset.name, "snapshot")
    now = vault.clock()
    left = {} if point is None else left_on_the_way(vault, dataset.name, stream_of(point), base)
    trouble = rpo_trouble(dataset, point, base, left, now)
    if trouble is not None:
        hint = "docs/operations.md, `rpo`: is the capture streaming, the vault taking, a base backup there?"
        yield Line("recovery point", "bad", trouble, hint)
    elif point is not None and point.at is not None:
        rpo = format_duration(dataset.rpo)
        yield Line("recovery point", "ok", f"{age_text(now, point.at)} ({format_lsn(point.lsn)}), RPO {rpo}")


def base_backup(patient: Patient) -> Iterator[Line]:
    """The newest one is recent, and a restore of it to the newest point can be planned, run and has room."""
    vault, dataset = patient.vault(), patient.database
    newest = latest_fact(vault, dataset.name, "snapshot")
    take = f"run `dr-assets snapshot {dataset.name}`"
    if newest is None:
        yield Line("base backup", "bad", "there is none: nothing can be restored", take)
        return
    yield _cadence(patient, newest, vault.clock(), take)
    plan = plan_restore(vault, dataset.name, Target("latest"))
    found = f"{plan.base.snapshot_id}, {len(plan.pieces)} pieces of WAL to {format_lsn(plan.chain_end)}"
    if plan.notes:
        yield Line("restore plan", "warn", f"{found}; {'; '.join(plan.notes)}", "read the notes; see docs/restore.md")
    else:
        yield Line("restore plan", "ok", f"{found}, {plan.fetch_bytes >> 20} MiB to fetch")
    yield programs_for(patient, plan.base.major, "the newest base backup")
    yield room_for(patient, plan.base.size_bytes + plan.wal_bytes)


def gaps(patient: Patient) -> Iterator[Line]:
    """WAL that is known to be lost since the newest base backup."""
    vault, dataset = patient.vault(), patient.database
    gap, base = latest_fact(vault, dataset.name, GAP), latest_fact(vault, dataset.name, "snapshot")
    if gap is None:
        yield Line("gaps", "ok", "none on record")
    elif base is not None and base.at > gap.at:
        yield Line("gaps", "ok", f"the newest, of {gap.at:%Y-%m-%d %H:%M} UTC, lies before the newest base backup")
    else:
        found = f"{gap.body.get('why')} (behind {gap.body.get('chain_end')}, on record {gap.at:%Y-%m-%d %H:%M} UTC)"
        yield Line(
            "gaps", "bad", found, f"run `dr-assets snapshot {dataset.name}`: nothing newer can be restored before"
        )


def left_behind(patient: Patient) -> Iterator[Line]:
    """Commits that a failover left behind and nobody has settled."""
    found = unsettled(patient.vault(), patient.database.name)
    if not found:
        yield Line("diverged", "ok", "no commit that a failover left behind waits for a person")
        return
    total = sum(int(str(fact.body["commits_total"])) for fact in found)
    hint = f"`dr-assets settle {patient.database.name}` lists them; docs/operations.md, `diverged`"
    yield Line("diverged", "bad", f"{total} commit(s) were left behind by {len(found)} failover(s)", hint)


def roll_up(patient: Patient) -> Iterator[Line]:
    """How much WAL waits for its full segment."""
    vault, name = patient.vault(), patient.database.name
    now = vault.clock()
    waiting = backlogs(vault, name)
    oldest = max((backlog.age(now) for backlog in waiting), default=timedelta(0))
    micros = sum(backlog.micros for backlog in waiting)
    found = f"{micros} micro-segments wait, the oldest for {oldest.total_seconds():.0f} s"
    verdict = max((_COLOURS[backlog.colour(now)] for backlog in waiting), key=EXIT_CODES.__getitem__, default=_OK)
    hint = "" if verdict == "ok" else f"run `dr-assets roll-up {name}`, and see why Dagster's {name}_roll_up did not"
    yield Line("roll-up", verdict, found, hint)


def proofs(patient: Patient) -> Iterator[Line]:
    """The newest restore test, reconciliation and drill passed and are not overdue."""
    dataset = patient.database
    window = cadence.with_grace(cadence.longest_interval(dataset.restore_test.cron))
    for kind in ("restore_test", "reconciliation"):
        yield _proof(patient, kind, window.total_seconds(), f"run Dagster's job {dataset.name}_restore_test")
    yield _proof(patient, "drill", dataset.drill.overdue_after.total_seconds(), "run Dagster's job estate_drill")


def _cadence(patient: Patient, newest: Fact, now: datetime, take: str) -> Line:
    every = patient.database.snapshot.every
    begun = parse_time(str(newest.body.get("begin_at")), str(newest.key))
    found = f"the newest is of {begun:%Y-%m-%d %H:%M} UTC, one is due every {format_duration(every)}"
    if now - begun <= cadence.with_grace(every):
        return Line("base backup", "ok", found)
    hint = f"{take}, and see why Dagster's schedule {patient.database.name}_snapshot did not"
    return Line("base backup", "warn", found, hint)


def _proof(patient: Patient, kind: str, window_s: float, run: str) -> Line:
    vault = patient.vault()
    fact, name, now = latest_fact(vault, patient.database.name, kind), kind.replace("_", " "), vault.clock()
    if fact is None:
        return Line(name, "bad", "never done: nothing counts as backed up until it was restored", run)
    if fact.body.get("outcome") != PASSED:
        why = fact.body.get("reason") or "no reason given"
        return Line(name, "bad", f"the newest, of {fact.at:%Y-%m-%d %H:%M} UTC, {fact.body.get('outcome')}: {why}", run)
    ahead = ahead_of(now, fact.at)
    if ahead is not None:
        return Line(name, "bad", f"the newest is {ahead}", "synchronise the clocks (NTP), then do it again")
    if (now - fact.at).total_seconds() > window_s:
        return Line(name, "bad", f"the newest is of {fact.at:%Y-%m-%d %H:%M} UTC: overdue", run)
    return Line(name, "ok", f"passed {fact.at:%Y-%m-%d %H:%M} UTC")
