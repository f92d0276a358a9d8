import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dr_assets.components import bucket_erasures, bucket_parts, coverage, drill, postgres_assets, restore_test_asset
from dr_assets.definitions import defs

ROOT = Path(__file__).parents[2]
REPOSITORY = defs().get_repository_def()
GRAPH = REPOSITORY.asset_graph
DATASETS = ("game_events", "kyc", "ledger")
KEYS = sorted(GRAPH.get_all_asset_keys(), key=str)


@pytest.mark.parametrize("key", KEYS, ids=dg.AssetKey.to_user_string)
def test_every_asset_is_labelled(key: dg.AssetKey) -> None:
    """Whoever meets an asset in the catalog learns whose it is, what it is and how fresh it has to be."""
    node = GRAPH.get(key)
    assert len(key.path) == 2
    assert node.owners
    assert node.group_name == key.path[0]
    assert node.kinds
    assert node.tags
    assert node.description
    assert node.description.endswith(".")
    assert node.freshness_policy_or_from_metadata is not None


def test_the_prescribed_assets_and_checks_are_there() -> None:
    """The chain of the packaged estate: keys by dataset and artefact, each promise with its check."""
    assert [key.to_user_string() for key in KEYS] == [
        "estate/coverage",
        "estate/drill",
        "estate/recovery_point",
        "game_events/kafka_export",
        "game_events/restore_test",
        "kyc/bucket_copy",
        "kyc/erasures",
        "kyc/restore_test",
        "ledger/reconciliation",
        "ledger/restore_test",
        "ledger/roll_up",
        "ledger/snapshot",
        "ledger/wal_chain",
        "vault/checkpoint",
        "vault/key_rotation",
        "vault/replication",
        "vault/sampling",
        "vault/verification",
    ]
    checks = {f"{key.asset_key.to_user_string()}:{key.name}" for key in GRAPH.asset_check_keys}
    assert checks == {
        "ledger/wal_chain:rpo",
        "ledger/wal_chain:contiguous",
        "ledger/wal_chain:timeline",
        "ledger/wal_chain:diverged",
        "ledger/wal_chain:backpressure",
        "ledger/snapshot:verified",
        "ledger/snapshot:locked",
        "ledger/roll_up:rolled_up",
        "ledger/restore_test:restorable",
        "ledger/restore_test:ordinary",
        "ledger/reconciliation:money_adds_up",
        "ledger/reconciliation:reconciled_ledger",
        "ledger/reconciliation:reconciled_balances",
        "ledger/reconciliation:reconciled_payments",
        "ledger/reconciliation:reconciled_withdrawals",
        "ledger/reconciliation:reconciled_outbox",
        "ledger/reconciliation:reconciled_queues",
        "ledger/reconciliation:reconciled_read_models",
        "ledger/reconciliation:reconciled_crm",
        "estate/coverage:coverage",
        "estate/drill:within_objectives",
        "estate/recovery_point:consistent",
        "estate/recovery_point:orphans",
        "vault/checkpoint:consistent_primary",
        "vault/checkpoint:complete_primary",
        "vault/replication:replicated_primary_standby",
        "vault/replication:replication_lag_primary_standby",
        "vault/sampling:sampled_ledger",
        "vault/sampling:locks_ledger",
        "vault/sampling:policy_unweakened",
        "vault/verification:undamaged_primary",
        "vault/verification:overlays_primary",
        "vault/verification:covered_primary",
        "vault/key_rotation:wrapped",
        "vault/key_rotation:key_age",
        "vault/key_rotation:retired_unused",
        "vault/key_rotation:escrowed",
        "game_events/kafka_export:rpo",
        "game_events/kafka_export:contiguous",
        "game_events/kafka_export:topics_kept",
        "game_events/kafka_export:groups_restorable",
        "game_events/kafka_export:verified",
        "game_events/kafka_export:locked",
        "game_events/restore_test:restorable",
        "kyc/bucket_copy:rpo",
        "kyc/bucket_copy:complete",
        "kyc/bucket_copy:verified",
        "kyc/bucket_copy:locked",
        "kyc/restore_test:restorable",
        "kyc/erasures:erasures_applied",
        "vault/sampling:sampled_game_events",
        "vault/sampling:sampled_kyc",
        "vault/sampling:locks_game_events",
        "vault/sampling:locks_kyc",
    }


@pytest.mark.parametrize("key", sorted(GRAPH.asset_check_keys, key=str), ids=lambda key: key.name)
def test_every_check_says_what_it_promises(key: dg.AssetCheckKey) -> None:
    """Integrity, lock and continuity block what comes after them; every check has a description."""
    spec = GRAPH.get(key)
    assert spec.description
    blocking = {"contiguous", "verified", "locked", "restorable", "money_adds_up", "replicated_primary_standby"}
    blocking |= {"consistent_primary", "undamaged_primary", "complete"}
    assert spec.blocking is (key.name in blocking)


def test_restores_share_one_host() -> None:
    """Whatever restores is in the same pool, so that two restores never share disks while they are timed."""
    jobs = ("ledger_restore_test", "estate_drill", "ledger_snapshot", "game_events_restore_test", "kyc_restore_test")
    pools = {job: {getattr(node.definition, "pool", None) for node in REPOSITORY.get_job(job).nodes} for job in jobs}
    assert all("restore_host" in pools[job] for job in jobs if job.endswith("restore_test"))
    assert pools["estate_drill"] == {"restore_host"}
    assert "restore_host" not in pools["ledger_snapshot"]


def test_everything_that_watches_is_switched_on() -> None:
    """A sensor or schedule that waits for somebody to switch it on watches nothing."""
    sensors = {sensor.name: sensor.default_status.value for sensor in REPOSITORY.sensor_defs}
    schedules = {schedule.name: schedule.default_status.value for schedule in REPOSITORY.schedule_defs}
    assert sensors == dict.fromkeys(
        [
            "alerts",
            "drill_due",
            "game_events_lineage",
            "kyc_copy_due",
            "ledger_lineage",
            "recovery_point",
            *(f"{dataset}_{what}" for dataset in DATASETS for what in ("restore_when_stale", "rpo")),
        ],
        "RUNNING",
    )
    expected = ["estate_coverage", "estate_recovery_point", "ledger_roll_up", "ledger_snapshot"]
    expected += [f"{dataset}_{what}" for dataset in DATASETS for what in ("drill", "restore_test")]
    expected += ["game_events_kafka_export", "game_events_kafka_verify", "kyc_bucket_verify", "kyc_erasures"]
    expected += ["ledger_wal_chain", "vault_replication"]
    expected += ["vault_sampling", "vault_checkpoint"]
    expected += ["vault_key_rotation", "vault_key_checks"]
    expected += ["vault_verify_index", "vault_verify_sample", "vault_verify_full"]
    assert schedules == dict.fromkeys(expected, "RUNNING")


@pytest.mark.parametrize(
    "module",
    [postgres_assets, coverage, drill, restore_test_asset, bucket_parts, bucket_erasures],
    ids=lambda module: module.__name__,
)
def test_asset_bodies_are_short(module: object) -> None:
    """An asset's body plans, acts and records: at most 25 lines; the work is elsewhere."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert bodies
    assert {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in bodies
        if (node.end_lineno or 0) - node.lineno >= 25
    } == {}


def test_definitions_load_without_environment_or_network(tmp_path: Path) -> None:
    """Dagster's own checks, of YAML and of definitions, pass where no variable is set and no database runs."""
    programs = Path(sys.executable).parent
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [programs / "dg", "check", "defs"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All component YAML validated successfully." in done.stdout


def test_definitions_load_without_what_only_proofs_need() -> None:
    """Every run, daemon and UI loads them: what adds up money, judges statistics and talks to brokers comes later."""
    code = "import sys; from dr_assets.definitions import defs; defs(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"scipy.stats", "sqlglot", "duckdb", "pyarrow", "kafka"}
