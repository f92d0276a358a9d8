import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPT = Path(__file__).parents[3] / "scripts" / "crash_rounds.py"


def test_three_kills_are_restored_from_the_vault_alone(engine_dir: Path, weed_programs: object) -> None:
    """Primary, primary with capture, store: no hole restored over, books that add up, loss within what was in flight.

    The long run is scripts/crash_rounds.py; this is its code with one round of each kind.
    """
    assert weed_programs
    spec = importlib.util.spec_from_file_location("crash_rounds", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["crash_rounds"] = script
    spec.loader.exec_module(script)
    table = script.run(engine_dir, 3, rate=200, seed=1, tell=lambda _: None)
    assert table["ok"], table
    assert [row["kind"] for row in table["rounds"]] == ["primary", "primary+capture", "store"]
    assert all(row["acknowledged"] > 0 and row["wal_compared_bytes"] > 0 for row in table["rounds"])
    assert table["final"]["acknowledged"] == sum(row["acknowledged"] for row in table["rounds"])
