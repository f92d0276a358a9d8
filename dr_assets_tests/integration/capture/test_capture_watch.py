import time
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.stores.postgres.heartbeat import Heartbeat, ensure_heartbeat_table
from dr_assets.stores.postgres.session import connect
from dr_assets.stores.postgres.watch import SourceWatch

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("timeline", "beats"), [(1, True), (2, False)])
def test_beats_come_from_the_streams_own_timeline_only(
    rig: ModuleType, fresh_database: Any, timeline: int, beats: bool
) -> None:
    """A session that reached a server of another history dates nothing, writes nothing, and says so."""
    dsn = fresh_database()
    signer = rig.Signer.from_seed(rig.SEED)
    with connect(dsn, application_name="test") as connection:
        ensure_heartbeat_table(connection)
        row = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    assert row is not None
    heartbeat = Heartbeat(signer, estate="casino", dataset="ledger", system_id=str(row[0]), epoch=1)
    watch = SourceWatch(
        dsn, slot="none", system_id=str(row[0]), timeline=timeline, heartbeat=heartbeat, interval_s=0.05,
        clock=lambda: datetime.now(UTC),
    )  # fmt: skip
    watch.start()
    try:
        deadline = time.monotonic() + 180
        while not (taken := watch.take_beats()) and (beats or watch.newest.trouble is None):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        watch.stop()
    assert bool(taken) is beats
    assert beats or "timeline" in str(watch.newest.trouble)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM dr_assets.heartbeat").fetchone() == (int(beats),)


def test_a_bug_in_the_watch_ends_the_capture(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A thread that died in silence would leave a capture whose recovery point has no age any more."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    with rig.CaptureThread(memory_vault(dataset), dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        monkeypatch.setattr(Heartbeat, "write", broken)
        assert isinstance(capture.ended_with(), ZeroDivisionError)
