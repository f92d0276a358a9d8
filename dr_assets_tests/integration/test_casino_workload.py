import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from dr_assets.casino import schema
from dr_assets.casino.acks import AckLog, acknowledged, read_acks
from dr_assets.casino.loss import measure_loss
from dr_assets.casino.workload import Workload
from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import SourceError

pytestmark = pytest.mark.integration


def _until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(0.05)


def _transfers(dsn: str, run: str) -> dict[int, str]:
    with psycopg.connect(dsn) as connection:
        return dict(
            connection.execute(
                "SELECT transfer_id, idempotency_key FROM casino.transfers WHERE idempotency_key LIKE %s", (f"{run}/%",)
            ).fetchall()
        )


def _process(dsn: str, ack_dir: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dr_assets.casino", "--dsn-env", "CASINO_TEST_DSN", "--ack-dir", str(ack_dir), *options],
        env={**os.environ, "CASINO_TEST_DSN": dsn},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_record_is_exactly_what_the_database_has(fresh_database: Callable[..., str], tmp_path: Path) -> None:
    """Undisturbed, acknowledged commits and the run's transfers are one set, and nothing was refused as illegal."""
    dsn = fresh_database()
    schema.create(dsn, players=50)
    workload = Workload(dsn, tmp_path, rate_per_s=300, workers=4)
    workload.start()
    _until(lambda: workload.stats().acknowledged >= 400, "400 commits")
    stats = workload.stop()
    acks = {ack.transfer_id: ack.idempotency_key for ack in acknowledged(tmp_path)}
    assert acks == _transfers(dsn, workload.run_id)
    assert stats.acknowledged == len(acks)
    assert (stats.unknown, stats.source_lost, stats.relay_refused) == (0, False, {})
    assert set(stats.refused) <= {"23514"}  # a player without enough money, nothing else
    assert stats.published > 0
    assert measure_loss(tmp_path, dsn).lost == 0


def test_a_killed_primary_ends_the_workload_and_no_acknowledged_commit_is_lost(
    postgres_server: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    """SIGKILL mid-load: workers note what they don't know and end by themselves; after recovery the difference is 0."""
    server = postgres_server(17)
    schema.create(server.dsn(), players=50)
    workload = Workload(server.dsn(), tmp_path, rate_per_s=400, workers=6)
    workload.start()
    _until(lambda: workload.stats().acknowledged >= 200, "200 commits")
    server.kill()
    _until(lambda: not workload.running, "the workers' end")
    stats = workload.stop()
    assert stats.source_lost
    assert stats.unknown >= 1
    server.start()
    loss = measure_loss(tmp_path, server.dsn())
    assert (loss.lost, loss.loss_window_ms, loss.first_lost) == (0, 0.0, None)
    assert loss.acknowledged == stats.acknowledged
    assert loss.unknown == stats.unknown
    assert loss.unexpected == loss.unexpected_unknown <= loss.unknown


def test_with_reconnect_the_workload_comes_back_and_repeats_under_the_same_key(
    postgres_server: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    """After a crash and restart the unknown attempts are settled: each transfer is acknowledged once, or replayed.

    Replayed is no promise: such an answer may be read from what is there, which waits for no standby.
    """
    server = postgres_server(17)
    schema.create(server.dsn(), players=50)
    workload = Workload(server.dsn(), tmp_path, rate_per_s=300, workers=4, reconnect=True)
    workload.start()
    _until(lambda: workload.stats().acknowledged >= 100, "100 commits")
    server.kill()
    _until(lambda: workload.stats().unknown >= 4, "all workers to notice")
    before = workload.stats().acknowledged
    server.start()
    _until(lambda: workload.stats().acknowledged >= before + 100, "traffic after the crash")
    stats = workload.stop()
    acks = [ack.idempotency_key for ack in acknowledged(tmp_path)]
    assert len(acks) == len(set(acks)) == stats.acknowledged
    replayed = read_acks(tmp_path).replayed["idempotency_key"].to_pylist()
    assert len(replayed) == stats.replayed >= 1
    assert not set(acks) & set(replayed)
    assert {*acks, *replayed} == set(_transfers(server.dsn(), workload.run_id).values())
    loss = measure_loss(tmp_path, server.dsn())
    assert (loss.lost, loss.unexpected, loss.replayed) == (0, 0, stats.replayed)


def test_the_process_reports_each_second_and_ends_on_sigterm(
    fresh_database: Callable[..., str], tmp_path: Path
) -> None:
    """Lines of JSON while it runs; SIGTERM finishes what is under way, exit 0, the last line has the total."""
    dsn = fresh_database()
    schema.create(dsn, players=20)
    process = _process(dsn, tmp_path, "--rate", "100", "--workers", "2")
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read().splitlines()
    assert process.wait(timeout=180) == 0
    reports = [json.loads(line) for line in [*lines, *rest]]
    assert {"acknowledged", "rate_per_s", "latency_p50_ms", "unknown", "cpu_share"} <= set(reports[0])
    assert reports[-1]["acknowledged"] == read_acks(tmp_path).acks.num_rows > 0
    assert reports[-1]["workers_alive"] == 0


def test_a_killed_workload_leaves_a_readable_record(fresh_database: Callable[..., str], tmp_path: Path) -> None:
    """SIGKILL of the workload: all that it had noted is in the database; at most one commit a worker went unnoted."""
    dsn = fresh_database()
    schema.create(dsn, players=20)
    process = _process(dsn, tmp_path, "--rate", "300", "--workers", "3")
    try:
        _until(lambda: read_acks(tmp_path).acks.num_rows >= 100, "100 commits")
    finally:
        process.kill()
        process.communicate()
    loss = measure_loss(tmp_path, dsn)
    assert loss.acknowledged >= 100
    assert loss.lost == 0
    assert loss.unexpected <= 3


def test_loss_is_counted_by_id_and_key(fresh_database: Callable[..., str], tmp_path: Path) -> None:
    """Commits beyond the restored end are lost, also when a new transfer got the number; the first opens the window."""
    dsn = fresh_database()
    schema.create(dsn, players=20)
    workload = Workload(dsn, tmp_path, rate_per_s=200, workers=2)
    workload.start()
    _until(lambda: workload.stats().acknowledged >= 50, "50 commits")
    kept = workload.stop().acknowledged
    taken = max(_transfers(dsn, workload.run_id))
    with AckLog(tmp_path, "lost", 0) as log:
        log.acknowledged(taken, 1)  # the number exists again, under another key
        time.sleep(0.02)
        log.acknowledged(taken + 1_000_000, 2)
    loss = measure_loss(tmp_path, dsn)
    assert (loss.acknowledged, loss.lost, loss.unexpected) == (kept + 2, 2, 0)
    assert loss.first_lost is not None
    assert loss.last_lost is not None
    assert (loss.first_lost.idempotency_key, loss.last_lost.idempotency_key) == ("lost/000/1", "lost/000/2")
    assert loss.last_acknowledged_ns == loss.last_lost.at_ns
    assert loss.loss_window_ms == pytest.approx((loss.last_lost.at_ns - loss.first_lost.at_ns) / 1e6)
    crashed_at = replace(loss.first_lost, at_ns=loss.first_lost.at_ns + 1_500_000_000).acknowledged_at
    assert measure_loss(tmp_path, dsn, crashed_at=crashed_at).loss_window_ms == pytest.approx(1500, abs=0.01)


def test_a_restored_database_without_the_casino_is_an_error_not_a_loss(
    fresh_database: Callable[..., str], tmp_path: Path
) -> None:
    """Nothing to compare with is not "everything lost", and not "nothing lost" either."""
    with pytest.raises(SourceError) as caught:
        measure_loss(tmp_path, fresh_database())
    assert caught.value.code == "casino.unreadable"
    with pytest.raises(SourceError) as caught:
        Workload(fresh_database(), tmp_path).start()
    assert caught.value.code == "casino.missing"
