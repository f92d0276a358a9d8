import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dr_assets.stores.postgres.capture_loop import CaptureLoop, LoopParts
from dr_assets.stores.postgres.durability_facts import DURABILITY, DurabilityFacts
from dr_assets.stores.postgres.resume import StoredEnd
from dr_assets.stores.postgres.sync_standby import Change
from dr_assets.stores.sealing.aside import Aside
from dr_assets.vault.facts import facts
from dr_assets.vault.throwaway import throwaway_vault


def settled(aside: Aside) -> None:
    """Wait until what was given is done."""
    deadline_s = time.monotonic() + 180
    while not aside.is_idle:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_each_change_is_sealed_once_though_the_clock_went_back_between_two() -> None:
    """By number and by time each looks newer than the other; neither is sealed again."""
    vault, aside = throwaway_vault(), Aside("durability")
    now = vault.clock()
    log = [
        Change(10, "synchronous", now + timedelta(seconds=2), "0/1", "armed", "capture"),
        Change(11, "degraded", now + timedelta(seconds=1), "0/2", "away", "capture"),
    ]
    sealing = DurabilityFacts(vault, "ledger", "7", aside)
    assert sealing.sealed().mode is None
    for _ in range(4):
        sealed = sealing.sealed()
        unsealed = [row for row in log if row.seq > sealed.seq or row.since > sealed.since]
        if unsealed:
            sealing.seal(unsealed)
        settled(aside)
    aside.close(30)
    assert [fact.body["seq"] for fact in facts(vault, "ledger", DURABILITY)] == [10, 11]
    assert (sealing.sealed().seq, sealing.sealed().mode) == (11, "degraded")


def test_a_bug_in_sealing_a_change_ends_the_capture() -> None:
    """What is not the vault's being away must not pass for sealed, nor wait for the capture's end to be seen."""
    vault, aside = throwaway_vault(), Aside("durability")
    sealing = DurabilityFacts(vault, "ledger", "7", aside)
    sealing.seal([Change(1, cast("Any", object()), vault.clock(), "0/1", "armed", "capture")])
    settled(aside)
    fine = SimpleNamespace(error=None)
    dataset = SimpleNamespace(linger=timedelta(0), wal_volume_bytes=None)
    parts = SimpleNamespace(
        guard=fine, watch=fine, listening=fine, facts=fine, beside=fine, standbys=fine, durability=sealing,
        dataset=dataset, options=SimpleNamespace(position_fact_every_s=60.0),
    )  # fmt: skip
    loop = CaptureLoop(cast("LoopParts", parts), StoredEnd(0, 0, None, None, 0, None), 1)
    ended: list[BaseException] = []
    scripted = cast("Any", loop)  # nothing comes in and nothing is to be stored: only what failed beside counts
    scripted._round = lambda: None
    scripted._drain_after = lambda error, _: ended.append(error)
    stop = threading.Event()
    late = threading.Timer(180, stop.set)
    late.start()
    with pytest.raises(type(sealing.error or AssertionError())):
        loop.run(stop)
    late.cancel()
    assert ended == [sealing.error]
