from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from dr_assets.components.postgres_jobs import dataset_jobs
from dr_assets.components.restore_sensor import restore_when_stale_sensor
from dr_assets.components.rpo_sensor import standing_of
from dr_assets.components.stale import SETTLE, StaleEpisode, follow
from dr_assets.estate.model import PostgresDataset

T0 = datetime(2026, 3, 1, tzinfo=UTC)


class Ticker:
    """The sensor with its cursor kept between ticks, as the daemon keeps it."""

    def __init__(self, instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> None:
        self.cursor: str | None = None
        self.instance, self.filled = instance, filled
        job = dataset_jobs(ledger).restore_test
        self.sensor = restore_when_stale_sensor(ledger, job, lambda vault, now: standing_of(vault, ledger, now))

    def tick(self) -> list[str | None]:
        """Run keys asked for by one tick."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"vault_primary": self.filled}
        )
        result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return [request.run_key for request in result.run_requests or []]


def test_one_restore_an_episode(instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> None:
    """However long the outage lasts, one restore test is asked for; the next outage asks for another."""
    ticker = Ticker(instance, filled, ledger)
    filled.seal_snapshot()
    filled.store_wal()
    assert ticker.tick() == []
    asked = []
    for _ in range(2):
        for _ in range(5):
            filled.later(seconds=31)
            asked += ticker.tick()
        for _ in range(8):
            filled.later(seconds=10)
            filled.store_wal()
            assert ticker.tick() == []
    assert len(asked) == len(set(asked)) == 2


def test_a_lost_cursor_does_not_start_a_second_restore(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """The run key comes from the recovery point that got stale, so the daemon drops a repeated request."""
    ticker = Ticker(instance, filled, ledger)
    filled.seal_snapshot()
    filled.store_wal()
    filled.later(seconds=31)
    first = ticker.tick()
    ticker.cursor = None
    filled.later(seconds=100)
    assert ticker.tick() == first != []


def test_without_a_base_backup_there_is_nothing_to_restore(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """Stale before the first base backup asks for nothing, and for the restore as soon as there is one."""
    ticker = Ticker(instance, filled, ledger)
    filled.store_wal()
    filled.later(seconds=31)
    assert ticker.tick() == []
    filled.seal_snapshot()
    assert len(ticker.tick()) == 1


def test_a_fresh_chain_without_a_base_backup_asks_for_no_restore(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """After a failover `rpo` is red, but there is nothing newer to prove by a restore: a base backup mends it."""
    ticker = Ticker(instance, filled, ledger)
    filled.seal_snapshot()
    filled.store_wal()
    filled.begin_anew(timeline=2)
    filled.store_wal()
    assert ticker.tick() == []
    filled.later(seconds=31)
    assert len(ticker.tick()) == 1


def test_green_must_hold_before_the_episode_is_over() -> None:
    """An age that hovers around the RPO is one episode, not one for each time it dips below."""
    episode = StaleEpisode(T0, None, requested=True)
    dipped = follow(episode, stale_since=None, now=T0 + timedelta(seconds=10))
    again = follow(dipped, stale_since=T0 + timedelta(seconds=20), now=T0 + timedelta(seconds=20))
    assert again == episode
    assert follow(dipped, stale_since=None, now=T0 + timedelta(seconds=10) + SETTLE) == StaleEpisode()
    assert StaleEpisode.from_cursor(dipped.to_cursor()) == dipped
