from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from dr_assets.components import lineage_sensor
from dr_assets.components.evaluations import recorded_verdicts
from dr_assets.components.failover_judgements import judge_backpressure, judge_durability
from dr_assets.components.lineage_sensor import base_backup_needed, diverged_key, judge_lineage, timeline_key
from dr_assets.components.postgres_checks import judge_chain
from dr_assets.components.postgres_jobs import dataset_jobs
from dr_assets.components.protected_postgres import ProtectedPostgres
from dr_assets.components.reporting import backpressure_key, report_backpressure
from dr_assets.components.rpo_sensor import durability_key, judge_from_vault, rpo_key
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import PostgresDataset, ZeroLoss
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.report import CaptureReport
from dr_assets.stores.postgres.settled import settle, unsettled
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import Room
from dr_assets.vault.facts import latest_fact

AT = datetime(2026, 3, 1, tzinfo=UTC)
GIB = 1 << 30


@pytest.fixture
def zero_loss(ledger: PostgresDataset) -> PostgresDataset:
    """The ledger, declared zero loss."""
    return replace(ledger, zero_loss=ZeroLoss(timedelta(seconds=10)))


def seal_base_backup(filled: Any) -> None:
    """A base backup from where the stream ends to a little further, and the WAL of it."""
    filled.seal(
        "snapshot",
        start_lsn=format_lsn(filled.position), stop_lsn=format_lsn(filled.position + 4096),
        begin_at=filled.now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        system_id=filled.system_id, timeline=filled.timeline,
    )  # fmt: skip
    filled.store_wal()


def fail_over(filled: Any, *, unstored: int = 0) -> None:
    """The source goes on with the next timeline, `unstored` bytes behind the end of what is stored of the old one."""
    filled.later(seconds=1)
    parent, switch = filled.timeline, filled.position + unstored
    filled.begin_anew(timeline=parent + 1, skip=unstored)
    text = f"{parent}\t{format_lsn(switch)}\tno recovery target specified\n"
    body = {"system_id": filled.system_id, "timeline": parent + 1, "parent": parent, "switch_lsn": format_lsn(switch)}
    filled.seal("timeline", **body, history=text)
    filled.store_wal()


def verdicts(filled: Any, ledger: PostgresDataset) -> dict[str, str]:
    """Every check of the chain in one word."""
    judged = {**judge_from_vault(filled, ledger), **judge_lineage(filled, ledger)}
    words = {key.name: "green" if v.passed else "yellow" if v.is_warning else "red" for key, v in judged.items()}
    return {**words, "contiguous": "green" if judge_chain(filled.vault, ledger).passed else "red"}


def test_a_followed_failover_keeps_the_promises_and_asks_for_a_base_backup(
    filled: Any, ledger: PostgresDataset
) -> None:
    """The old timeline's base backup leads over the switch: all stays green but `timeline`, yellow until the next."""
    seal_base_backup(filled)
    assert base_backup_needed(filled.vault, ledger) is None
    fail_over(filled)
    said = verdicts(filled, ledger)
    assert {name: said[name] for name in ("rpo", "contiguous", "timeline", "diverged")} == {
        "rpo": "green", "contiguous": "green", "timeline": "yellow", "diverged": "green",
    }  # fmt: skip
    assert "older timeline" in str(base_backup_needed(filled.vault, ledger))
    filled.later(seconds=1)
    seal_base_backup(filled)
    assert verdicts(filled, ledger)["timeline"] == "green"
    assert base_backup_needed(filled.vault, ledger) is None


def test_a_hole_at_the_switch_is_red(filled: Any, ledger: PostgresDataset) -> None:
    """WAL between the end of the old timeline's and the switch that nobody stored: nothing leads to the new one."""
    seal_base_backup(filled)
    fail_over(filled, unstored=4096)
    said = verdicts(filled, ledger)
    assert (said["rpo"], said["contiguous"]) == ("red", "red")


def test_two_failovers_in_a_row_are_followed(filled: Any, ledger: PostgresDataset) -> None:
    """The history names every ancestor; each of them has to be stored up to where it was left."""
    seal_base_backup(filled)
    fail_over(filled)
    filled.later(seconds=1)
    first, second = format_lsn(filled.position - 4096), format_lsn(filled.position)
    filled.begin_anew(timeline=3)
    body = {"system_id": filled.system_id, "timeline": 3, "parent": 2, "switch_lsn": second}
    filled.seal("timeline", **body, history=f"1\t{first}\tx\n2\t{second}\tx\n")
    filled.store_wal()
    assert verdicts(filled, ledger)["rpo"] == "green"
    assert verdicts(filled, ledger)["contiguous"] == "green"


def test_a_base_backup_that_ended_behind_the_switch_leads_nowhere(filled: Any, ledger: PostgresDataset) -> None:
    """It holds pages of what was abandoned; no WAL of the new timeline makes them right."""
    seal_base_backup(filled)
    filled.position -= 4096
    filled.position += 2048
    filled.later(seconds=1)
    switch = format_lsn(filled.position)
    filled.begin_anew(timeline=2)
    body = {"system_id": filled.system_id, "timeline": 2, "parent": 1, "switch_lsn": switch}
    filled.seal("timeline", **body, history=f"1\t{switch}\tx\n")
    filled.store_wal()
    verdict = judge_from_vault(filled, ledger)[rpo_key(ledger)]
    assert not verdict.passed
    assert "ends behind where timeline 1 was left" in verdict.reason


def test_a_new_system_needs_a_base_backup_at_once(filled: Any, ledger: PostgresDataset) -> None:
    """After pg_upgrade nothing leads to the new stream, and the sensor doesn't wait for the schedule to say so."""
    seal_base_backup(filled)
    filled.later(seconds=1)
    filled.begin_anew(system_id="7300000000000000002")
    filled.store_wal()
    verdict = judge_lineage(filled, ledger)[timeline_key(ledger)]
    assert (verdict.passed, verdict.is_warning) == (False, True)
    assert "another system" in verdict.reason
    assert "no base backup follows" in str(base_backup_needed(filled.vault, ledger))


def tick(instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> Any:
    """One tick of the lineage sensor."""
    context = dg.build_sensor_context(instance=instance, resources={"vault_primary": filled})
    return lineage_sensor.lineage_sensor(ledger, dataset_jobs(ledger)).evaluate_tick(context)


def test_the_sensor_asks_for_one_base_backup_and_waits_before_it_asks_again(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run for a new chain, none while one runs, and no second within five minutes of one that failed."""
    assert tick(instance, filled, ledger).run_requests == []
    filled.store_wal()
    (request,) = tick(instance, filled, ledger).run_requests
    run = instance.create_run_for_job(_job_of(ledger), tags=dict(request.tags))
    assert tick(instance, filled, ledger).run_requests == []
    instance.report_run_failed(run)
    assert tick(instance, filled, ledger).run_requests == []
    monkeypatch.setattr(lineage_sensor, "AGAIN_AFTER", timedelta(seconds=-1))
    assert len(tick(instance, filled, ledger).run_requests) == 1


def _job_of(ledger: PostgresDataset) -> dg.JobDefinition:
    """A job of the snapshot job's name; what it would do doesn't matter here."""

    @dg.op
    def nothing() -> None:
        """Nothing."""

    @dg.job(name=f"{ledger.name}_snapshot")
    def snapshot() -> None:
        nothing()

    return snapshot


def seal_diverged(filled: Any, commits: int) -> None:
    """The fact of a failover that left this many commits behind."""
    rows = [{"xid": 700 + n, "at": f"2026-03-10T12:00:0{n}Z", "lsn": "0/1001000"} for n in range(commits)]
    filled.seal("diverged", timeline=1, switch_lsn="0/1001000", commits=rows, commits_total=commits)


def test_commits_left_behind_are_red_until_a_person_settles_them(filled: Any, ledger: PostgresDataset) -> None:
    """Somebody was told that their money moved. Time alone heals nothing; a later failover is red again."""
    seal_diverged(filled, 0)
    assert judge_lineage(filled, ledger)[diverged_key(ledger)].passed
    filled.later(seconds=1)
    seal_diverged(filled, 3)
    filled.later(days=12)
    verdict = judge_lineage(filled, ledger)[diverged_key(ledger)]
    assert (verdict.passed, verdict.is_warning, verdict.values["commits"]) == (False, False, 3)
    assert verdict.values["commit_1"] == "xid 700 at 2026-03-10T12:00:00Z"
    with pytest.raises(PolicyError, match=r"settle\.words"):
        settle(filled.vault, "ledger", by="ann", note=" ")
    assert len(settle(filled.vault, "ledger", by="ann", note="two replayed, one refunded")) == 1
    assert judge_lineage(filled, ledger)[diverged_key(ledger)].passed
    said = latest_fact(filled.vault, "ledger", "diverged_settled")
    assert said is not None
    assert (said.body["by"], said.body["note"]) == ("ann", "two replayed, one refunded")
    with pytest.raises(PolicyError, match=r"settle\.nothing"):
        settle(filled.vault, "ledger", by="ann", note="again")
    filled.later(seconds=1)
    seal_diverged(filled, 1)
    assert [fact.body["commits_total"] for fact in unsettled(filled.vault, "ledger")] == [1]
    assert not judge_lineage(filled, ledger)[diverged_key(ledger)].passed


def test_a_vault_that_is_away_makes_the_lineage_red(filled: Any, ledger: PostgresDataset) -> None:
    """What cannot be read is not what it was."""
    filled.away = True
    judged = judge_lineage(filled, ledger)
    assert [verdict.passed for verdict in judged.values()] == [False, False]
    assert all("vault.unreachable" in verdict.reason for verdict in judged.values())


def test_durability_is_judged_for_zero_loss_alone(
    filled: Any, ledger: PostgresDataset, zero_loss: PostgresDataset
) -> None:
    """Red before commits ever waited, green while they do, red with the reason from the moment they don't.

    A capture that died seals nothing any more: what it sealed last counts no longer than its recovery point.
    """
    assert durability_key(ledger) not in judge_from_vault(filled, ledger)

    def verdict() -> tuple[bool, str]:
        judged = judge_from_vault(filled, zero_loss)[durability_key(zero_loss)]
        return judged.passed, judged.reason

    assert verdict()[0] is False
    filled.seal("durability", mode="synchronous", since="2026-03-10T12:00:00Z", reason="armed")
    filled.store_wal()
    assert verdict()[0] is True, verdict()
    filled.later(seconds=zero_loss.rpo.total_seconds() + 1)
    assert verdict()[0] is False
    assert "nobody has sealed" in verdict()[1]
    filled.store_wal()
    assert verdict()[0] is True
    filled.later(seconds=1)
    filled.seal("durability", mode="degraded", since="2026-03-10T12:00:01Z", reason="the vault is away")
    assert verdict() == (
        False,
        "since 2026-03-10T12:00:01Z commits do not wait for the vault (degraded): the vault is away",
    )
    filled.away = True
    assert verdict()[0] is False


def test_a_mode_that_nobody_knows_is_not_green(filled: Any, zero_loss: PostgresDataset) -> None:
    """Only the word for waiting is green, and only beside a recovery point."""
    assert not judge_durability(None, zero_loss, None, filled.now).passed
    filled.seal("durability", mode="synchronous", since="2026-03-10T12:00:00Z", reason="armed")
    sealed = latest_fact(filled.vault, "ledger", "durability")
    assert not judge_durability(sealed, zero_loss, None, filled.now).passed


def test_the_graph_of_a_zero_loss_dataset_has_the_check(zero_loss: PostgresDataset) -> None:
    """Declared, it is drawn; and nothing else changes."""
    definitions = ProtectedPostgres(zero_loss).build_defs(None)  # type: ignore[arg-type]  # the context isn't read
    names = {key.name for check in definitions.asset_checks or () for key in check.check_keys}
    assert {"durability", "timeline", "diverged", "backpressure"} <= names


REPORT = CaptureReport(
    dataset="ledger", state="streaming", at=AT, system_id="1", timeline=1, writer_epoch=1, stored_lsn=0x2000,
    received_lsn=0x3000, server_lsn=0x3000, recovery_point_at=AT, age_s=0.7, lag_s=0.4, linger_s=0.5, seal_s=0.01,
    slowest_put_s=0.1, in_flight_pieces=1, in_flight_bytes=10, segments_stored=7, bytes_stored=4096, upload_errors=0,
    slot=SlotStatus("dr_ledger", "physical", True, 1, "reserved", 0, 0, GIB), trouble=None,
    slot_room=Room(0, GIB, None, "the slot is lost"), spool_max_bytes=GIB,
)  # fmt: skip


@pytest.mark.parametrize(
    ("slot_share", "spool_share", "word"),
    [
        (0.1, 0.1, "green"),
        (0.5, 0.0, "yellow"),
        (0.0, 0.5, "yellow"),
        (0.8, 0.0, "red"),
        (0.0, 0.8, "red"),
        (0.6, 0.9, "red"),
    ],
)
def test_both_ends_are_alarmed_before_they_come(slot_share: float, spool_share: float, word: str) -> None:
    """Yellow from half, red from four fifths, of the slot's room and of the spool, whichever is nearer its end."""
    room = replace(REPORT.slot_room, retained_bytes=round(slot_share * GIB) + 1)  # type: ignore[type-var]  # it is one
    verdict = judge_backpressure(replace(REPORT, slot_room=room, spooled_bytes=round(spool_share * GIB) + 1))
    assert ("green" if verdict.passed else "yellow" if verdict.is_warning else "red") == word, verdict.reason


def test_a_lost_or_absent_slot_is_red() -> None:
    """There is no room to speak of when nothing keeps the WAL."""
    lost = replace(REPORT, slot=replace(REPORT.slot, wal_status="lost"))  # type: ignore[type-var]  # it is one
    for report in (lost, replace(REPORT, slot=None, slot_room=None)):
        verdict = judge_backpressure(report)
        assert (verdict.passed, verdict.is_warning) == (False, False)


def test_a_capture_that_has_not_looked_at_its_source_yet_alarms_nobody() -> None:
    """No verdict is written before the first look; a slot that went later is red at once."""
    key = backpressure_key(REPORT.dataset)
    with dg.DagsterInstance.ephemeral() as instance:
        report_backpressure(instance, replace(REPORT, slot=None, slot_room=None))
        assert recorded_verdicts(instance, [key]) == {}
        report_backpressure(instance, replace(REPORT, slot=None))
        assert not recorded_verdicts(instance, [key])[key].passed
