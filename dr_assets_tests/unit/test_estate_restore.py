"""An estate's restore when something that nobody foresaw ends a dataset: its own failure, on record, no other's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.recovery.estate_restore import STATE, EstateRestore, EstateRestored, Outcome
from dr_assets.recovery.restorers import Ground, Targets
from dr_assets.stores.bucket.source import Place
from dr_assets.vault.throwaway import throwaway_vault

ESTATE = load_estate(default_defs_dir())
AT = "2026-03-10T12:00:00.000000Z"


def restore_of(into: Path, estate: Any) -> EstateRestore:
    """A restore of an estate whose vault holds nothing, to a moment that a point told of each dataset."""
    nowhere: Any = None  # nothing gets so far
    places = {name: Place(nowhere, f"{name}-new") for name in estate.buckets()}
    targets = Targets(into, dict.fromkeys(estate.topics(), "192.0.2.1:9092"), places)
    point: Any = {"at": AT, "stores": [{"dataset": name, "at": AT} for name in estate.datasets]}
    vault = throwaway_vault(estate=estate.name)
    return EstateRestore(point, dict.fromkeys(estate.datasets, vault), Ground(estate, {}, targets))


def two_buckets() -> Any:
    """An estate of two of a kind, restored in turn."""
    kyc = ESTATE.buckets()["kyc"]
    return replace(ESTATE, datasets={"kyc": kyc, "photos": replace(kyc, name="photos")})


def test_what_nobody_foresaw_ends_one_dataset_and_no_other_of_its_kind(tmp_path: Path) -> None:
    """An error of the disk, no DrError, is that dataset's own failure in state file and notes; the next gets its turn.

    Its own words stay in a file that only its owner reads: what is sealed names the kind of error alone.
    """
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "kyc").write_text("in the way")
    heard: list[tuple[str, str]] = []
    done = restore_of(tmp_path, two_buckets()).run(lambda one: heard.append((one.dataset, one.state)))
    assert {one.dataset: one.state for one in done.outcomes} == {"kyc": "failed", "photos": "failed"}
    assert ("photos", "begun") in heard
    reason = done.outcomes[0].reason
    assert reason.startswith("estate.unforeseen: builtins.FileExistsError (File exists)")
    trace = tmp_path / "beside" / "kyc.failed.txt"
    assert str(trace) in reason
    assert "Traceback" in trace.read_text()
    assert trace.stat().st_mode & 0o077 == 0
    assert not done.is_whole
    assert "not whole: kyc, photos" in done.notes[0]
    said = json.loads((tmp_path / STATE).read_text())
    assert [one["state"] for one in said["outcomes"]] == ["failed", "failed"]


def test_topics_that_cant_be_looked_at_again_leave_the_orphans_uncounted_and_the_rest_whole(tmp_path: Path) -> None:
    """What is whole stays whole, the run ends with a result, and says why nobody counted orphans."""
    estate = ESTATE.only("game_events")
    whole = Outcome("game_events", "kafka", "whole", "restored and checked")
    state = {"point": {}, "outcomes": [whole.to_json()]}
    (tmp_path / STATE).write_text(json.dumps(state))
    done = restore_of(
        tmp_path, estate
    ).run()  # another host without TLS, and nobody who said that it may be so: refused
    assert isinstance(done, EstateRestored)
    assert done.is_whole
    assert done.orphans is None
    assert "orphans are not counted: game_events" in done.notes[0]
