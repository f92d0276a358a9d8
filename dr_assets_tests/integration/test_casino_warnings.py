import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from dr_assets.casino import schema
from dr_assets.casino.acks import read_acks
from dr_assets.casino.loss import measure_loss
from dr_assets.casino.workload import Workload
from dr_assets.engines.postgres import PostgresServer

pytestmark = pytest.mark.integration

_CANCEL = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid <> pg_backend_pid()"


def _cancel_waits(dsn: str, stop: threading.Event) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        while not stop.wait(0.02):
            connection.execute(_CANCEL)


def test_a_cancelled_wait_is_counted_apart_from_the_acknowledged(
    postgres_server: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    """A commit that came with a WARNING is on record as warned: listed when it is lost, never an acknowledged loss."""
    server = postgres_server(settings={"fsync": False})
    dsn = server.dsn()
    schema.create(dsn, players=20)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        deadline_s = time.monotonic() + 180
        while connection.execute("SHOW synchronous_standby_names").fetchone() != ("nobody",):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        # Commits don't follow what sessions show: the checkpointer tells them, which reads it before it begins.
        connection.execute("CHECKPOINT")
        connection.execute("CHECKPOINT")
    stop = threading.Event()
    canceller = threading.Thread(target=_cancel_waits, args=(dsn, stop))
    workload = Workload(dsn, tmp_path, rate_per_s=200, workers=2)
    workload.start()
    canceller.start()
    deadline_s = time.monotonic() + 180
    while workload.stats().warned < 10:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    stats = workload.stop()
    stop.set()
    canceller.join()
    record = read_acks(tmp_path)
    assert stats.acknowledged == record.acks.num_rows == 0
    assert stats.warned == record.warned.num_rows >= 10
    loss = measure_loss(tmp_path, dsn)
    assert (loss.acknowledged, loss.lost, loss.warned, loss.warned_lost) == (0, 0, stats.warned, ())
    assert loss.unexpected == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = local")
        row = connection.execute(
            "UPDATE casino.transfers SET idempotency_key = 'gone' WHERE transfer_id = "
            "(SELECT max(transfer_id) FROM casino.transfers) RETURNING transfer_id"
        ).fetchone()
    assert row is not None
    loss = measure_loss(tmp_path, dsn)
    assert (loss.lost, [ack.transfer_id for ack in loss.warned_lost]) == (0, [row[0]])
