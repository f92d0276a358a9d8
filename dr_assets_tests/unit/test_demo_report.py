from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from dr_assets.demo.report import DemoReport, NegativeControls, json_schema, judge, show

DOCS = Path(__file__).parents[2] / "docs"
GOOD = DemoReport(
    ok=False,
    broken_promises=[],
    crashed_at=datetime(2026, 11, 21, 23, 4, tzinfo=UTC),
    commits_acknowledged=12_492,
    commits_lost=3,
    commits_per_s=398.0,
    loss_window_ms=41.0,
    recovery_point_age_s=0.4,
    recovery_duration_s=6.5,
    recovery_phases_s={"fetch_base": 1.0, "replay": 2.0},
    rpo_s=30,
    rto_s=900,
    ledger_breaks=0,
    rows_reconciled=40_000,
    pitr_target=datetime(2026, 11, 21, 23, 3, tzinfo=UTC),
    pitr_reached=True,
    negative_controls=NegativeControls(planted=5, caught=5, missed=[]),
    objects_total=92,
    objects_locked=92,
    objects_damaged=0,
    snapshot_mb=43.0,
    snapshot_mb_s=80.0,
    restore_mb_s=12.0,
    kafka_broker="Apache Kafka 4.2.0",
    kafka_rpo_s=120,
    kafka_rto_s=1800,
    kafka_acknowledged=12_000,
    kafka_lost=40,
    kafka_records=11_970,
    kafka_records_erased=4,
    kafka_offsets_identical=True,
    kafka_groups_identical=True,
    kafka_recovery_point_age_s=0.6,
    kafka_recovery_duration_s=12.0,
    kyc_rpo_s=900,
    kyc_rto_s=3600,
    kyc_documents=200,
    kyc_documents_due=198,
    kyc_documents_restored=198,
    kyc_documents_identical=True,
    kyc_persons_erased=1,
    kyc_persons_gone=1,
    kyc_recovery_point_age_s=31.0,
    kyc_recovery_duration_s=6.0,
    engines={"postgres": "17.10 (wheel)"},
)


def test_the_committed_schema_is_the_codes() -> None:
    """docs/report.schema.json is what the code writes: whoever validates against it reads today's report."""
    assert (DOCS / "report.schema.json").read_text() == json_schema()


def test_every_field_is_documented() -> None:
    """docs/demo.md has a word about each field of the report."""
    text = (DOCS / "demo.md").read_text()
    assert [name for name in DemoReport.model_fields if f"`{name}`" not in text] == []


def test_a_written_report_meets_its_schema(tmp_path: Path) -> None:
    """What lands on disk is valid JSON of the schema, and reads back equal."""
    path = tmp_path / "report.json"
    judge(GOOD).write(path)
    written = DemoReport.model_validate_json(path.read_text())
    jsonschema.validate(written.model_dump(mode="json"), DemoReport.model_json_schema())
    assert written == judge(GOOD)


def test_a_good_run_keeps_every_promise() -> None:
    """Numbers within the objectives give ok and no broken promise."""
    assert (judge(GOOD).ok, judge(GOOD).broken_promises) == (True, [])


@pytest.mark.parametrize(
    "bad",
    [
        {"recovery_point_age_s": 30.1},
        {"recovery_duration_s": 900.5},
        {"loss_window_ms": 30_001.0},
        {"commits_acknowledged": 0},
        {"ledger_breaks": 1},
        {"rows_reconciled": 0},
        {"pitr_reached": False},
        {"negative_controls": NegativeControls(planted=5, caught=4, missed=["altered_balance"])},
        {"negative_controls": NegativeControls(planted=0, caught=0, missed=[])},
        {"objects_locked": 91},
        {"objects_total": 0, "objects_locked": 0},
        {"objects_damaged": 1},
        {"kafka_recovery_point_age_s": 120.1},
        {"kafka_recovery_duration_s": 1800.5},
        {"kafka_offsets_identical": False},
        {"kafka_lost": 12_000},
        {"kafka_records": 11_959},
        {"kafka_records_erased": 0},
        {"kafka_groups_identical": False},
        {"kyc_recovery_point_age_s": 900.1},
        {"kyc_recovery_duration_s": 3600.5},
        {"kyc_documents_identical": False},
        {"kyc_documents_restored": 197},
        {"kyc_documents_due": 0, "kyc_documents_restored": 0},
        {"kyc_persons_gone": 0},
        {"kyc_persons_erased": 0, "kyc_persons_gone": 0},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_each_promise_can_be_broken(bad: dict[str, object]) -> None:
    """One bad number alone breaks exactly one promise, and nothing to look at is never a kept promise."""
    judged = judge(GOOD.model_copy(update=bad))
    assert (judged.ok, len(judged.broken_promises)) == (False, 1)


def test_a_broken_promise_is_shown_as_such() -> None:
    """The table on the terminal says which promise broke."""
    console = Console(record=True, width=140)
    show(judge(GOOD.model_copy(update={"ledger_breaks": 1})), console)
    assert "BROKEN" in console.export_text()
