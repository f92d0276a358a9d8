import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from scripts.crash.compare import window_ms
from scripts.crash.kinds import KINDS, Kind, laid_out, named
from scripts.crash.table import Round, failed

SCRIPT = Path(__file__).parents[3] / "scripts" / "crash_rounds.py"
ROUNDS = "primary;outage;primary+capture, zero loss"


@pytest.fixture
def script() -> ModuleType:
    """scripts/crash_rounds.py as a module."""
    spec = importlib.util.spec_from_file_location("crash_rounds", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crash_rounds"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.integration
@pytest.mark.slow
def test_kills_are_restored_from_the_vault_alone(script: ModuleType, tmp_path: Path, weed_programs: object) -> None:
    """The primary, all in an outage of the store, all with zero loss: books that add up, no more lost than under way.

    The long run is scripts/crash_rounds.py; this is its code with one round of three kinds.
    """
    assert weed_programs
    table = script.run(tmp_path / "state", 3, rate=200, seed=1, tell=lambda _: None, kinds=named(ROUNDS))
    assert table["ok"], table
    assert [row["kind"] for row in table["rounds"]] == ROUNDS.split(";")
    assert all(row["acknowledged"] > 0 and row["wal_compared_bytes"] > 0 for row in table["rounds"])
    assert table["zero_loss_lost"] == 0
    assert table["final"]["acknowledged"] == sum(row["acknowledged"] for row in table["rounds"])
    assert table["final"]["verified_objects"] > 0


def test_a_hundred_rounds_hold_every_kind_by_its_share() -> None:
    """And a short run sees each kind once before any twice."""
    laid = laid_out(100)
    assert sum(kind.share for kind in KINDS) == 100
    assert {kind.name: laid.count(kind) for kind in KINDS} == {kind.name: kind.share for kind in KINDS}
    assert laid[: len(KINDS)] == list(KINDS)


def test_a_loss_before_a_fail_over_is_measured_to_that_death() -> None:
    """What was lost with the first primary has nothing to do with the time until the second one died."""
    first, second = (datetime(2026, 1, 1, 12, 0, at_s, tzinfo=UTC) for at_s in (10, 20))
    lost = {
        (1, "a"): int(first.timestamp() * 1e9) - 300_000_000,
        (2, "b"): int(second.timestamp() * 1e9) - 200_000_000,
    }
    assert window_ms(lost, [first, second]) == 300.0
    assert window_ms({}, [first, second]) == 0.0


def test_a_round_without_an_end_has_failed_and_the_others_are_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another estate; and a second run takes the finished batch from its folder instead of running it again."""
    estates: list[Path] = []
    ran: list[int] = []

    @contextmanager
    def scene(folder: Path, *, rate: float) -> Iterator[None]:
        assert rate == 7.0
        estates.append(folder)
        yield

    def one(_: None, number: int, kind: Kind, seed: int) -> Round:
        ran.append(number)
        if number == 1:
            raise RuntimeError("waited in vain")
        row: Round = failed(number, kind, seed, ValueError())
        row.failures.clear()
        return row

    sound = {"acknowledged": 1, "lost": 0, "verified_objects": 1, "verify_errors": []}
    monkeypatch.setattr(script, "open_scene", scene)
    monkeypatch.setattr(script, "run_round", one)
    monkeypatch.setattr(script, "_final", lambda *_: sound)
    for _ in range(2):
        table = script.run(tmp_path, 4, rate=7.0, seed=3, tell=lambda _: None)
        assert [bool(row["failures"]) for row in table["rounds"]] == [False, True, False, False]
        assert (table["ok"], table["final"]["acknowledged"]) == (False, 1)
    assert ran == [0, 1, 2, 3]
    assert len(estates) == 2
