"""The estate's recovery point and its restore, with real engines: what is left of one that was killed under load."""

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dr_assets.casino.events import stored_events
from dr_assets.casino.kyc import read_documents
from dr_assets.cli.app import app
from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.recovery.estate_restore import ESTATE_RESTORE, ORPHANS, STATE
from dr_assets.recovery.point import LATEST
from dr_assets.recovery.stores import RECOVERY_POINT, recovery_point
from dr_assets.vault.facts import latest_fact


def run(lived: Any, *args: str, **env: str | None) -> tuple[int, dict[str, Any], str]:
    """The command line: exit code, what it printed as JSON, and what it said to people or refused with."""
    done = CliRunner().invoke(app, [*args, "--json"], env={**lived.env, **env})
    told = done.stderr + (f"{done.exception}" if done.exception is not None else "")
    if isinstance(done.exception, DrError):
        return done.exception.exit_code, {}, told
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {}, told


def targets(lived: Any, bucket: str) -> list[str]:
    """Options that say where to: a broker that was empty, a bucket in the second region's store."""
    return [
        "--topics-into", lived.broker.bootstrap, "--plaintext", "--bucket-into", bucket,
        "--endpoint-env", "TO_ENDPOINT", "--access-key-env", "TO_KEY", "--secret-key-env", "TO_SECRET",
    ]  # fmt: skip


def store_of(lived: Any) -> dict[str, str]:
    """Those variables."""
    region = lived.embedded.region_b
    return {"TO_ENDPOINT": region.endpoint, "TO_KEY": region.access_key, "TO_SECRET": region.secret_key}


def test_three_stores_agree_within_two_seconds(lived: Any) -> None:
    """After a kill of everything under load the moment is young, no store is further from it than 2 s.

    The one that is stored least far holds the whole back, no other is beyond it, and a bucket never does.
    """
    point = recovery_point(lived.estate, lived.vaults())
    assert set(point.stores) == {"ledger", "game_events", "kyc"}
    assert abs(point.skew_ms) <= 2000, point.to_json()
    assert point.is_consistent
    assert point.held_back_by in {"ledger", "game_events"}
    assert point.at == min(point.stores[name].newest_at for name in ("ledger", "game_events"))
    assert all(one.at <= point.at for one in point.stores.values())
    assert lived.killed_at - timedelta(seconds=30) < point.at <= lived.killed_at
    ends: Any = point.stores["game_events"].position["ends"]
    assert sum(ends.values()) > 0


def test_the_second_region_alone_tells_the_same(lived: Any) -> None:
    """Each store's position is the same by the second region's vault, the first one not asked."""
    away = dict.fromkeys((name for name in lived.env if name.startswith("DR_VAULT_PRIMARY")), "http://127.0.0.1:1")
    code, said, told = run(lived, "recovery-point", "--vault", "standby", **away)
    assert code == 0, told
    here = recovery_point(lived.estate, lived.vaults()).to_json()
    assert said["at"] == here["at"]
    for there, own in zip(said["stores"], here["stores"], strict=True):
        assert (there["dataset"], there["at"], there["position"]) == (own["dataset"], own["at"], own["position"])


def test_strict_lets_documents_hold_the_money_back_and_a_moment_beyond_is_refused(lived: Any) -> None:
    """Strict is the oldest of all three, skew 0; a moment that nobody reaches is refused with the store's name."""
    loose = recovery_point(lived.estate, lived.vaults())
    strict = recovery_point(lived.estate, lived.vaults(), strict=True)
    assert strict.at == min(one.newest_at for one in loose.stores.values())
    assert {one.skew_ms for one in strict.stores.values()} == {0}
    with pytest.raises(PolicyError) as refused:
        recovery_point(lived.estate, lived.vaults(), lived.killed_at + timedelta(hours=1))
    assert refused.value.code == "recovery_point.beyond"
    earlier = strict.at - timedelta(milliseconds=700)
    asked = recovery_point(lived.estate, lived.vaults(), earlier)
    assert (asked.at, asked.held_back_by, asked.skew_ms) == (earlier, None, 0)
    assert asked.stores["ledger"].beyond["span_ms"]


def test_the_estate_comes_back_whole_after_a_dataset_failed(lived: Any, engine_dir: Path) -> None:
    """A failure keeps nothing of the others from becoming whole, and the same command goes on with what lacks.

    Then: topics with their offsets, documents, a ledger whose money adds up, no orphan but outbox rows to be replayed,
    the outcome of each dataset sealed; a further run restores nothing again.
    """
    into, (bucket, place) = engine_dir / "estate", lived.new_bucket()
    planned, said, told = run(
        lived, "restore", "--estate", "--plan", "--into", str(into), *targets(lived, bucket), **store_of(lived)
    )
    assert planned == 0, told
    assert {one["dataset"] for one in said["plan"]} == {"ledger", "game_events", "kyc"}
    assert all(one["fetch_bytes"] > 0 for one in said["plan"])
    assert not into.exists()

    (engine_dir / "estate").mkdir(mode=0o711)
    (into / "ledger").mkdir()
    (into / "ledger" / "in-the-way").touch()
    code, said, told = run(
        lived, "restore", "--estate", "--to", LATEST, "--into", str(into), *targets(lived, bucket), **store_of(lived)
    )
    assert code == 1, told
    states = {one["dataset"]: one["state"] for one in said["outcomes"]}
    assert states == {"ledger": "failed", "game_events": "whole", "kyc": "whole"}, said
    assert said["orphans"] is None
    assert "not whole: ledger" in said["notes"][0]

    (into / "ledger" / "in-the-way").unlink()
    code, again, told = run(
        lived, "restore", "--estate", "--to", LATEST, "--into", str(into), *targets(lived, bucket), **store_of(lived)
    )
    assert code == 0, (again, told)
    assert again["whole"]
    assert again["money_adds_up"]
    assert again["point"] == said["point"]
    took = {one["dataset"]: one["duration_s"] for one in said["outcomes"]}
    assert all(one["duration_s"] == took[one["dataset"]] for one in again["outcomes"] if one["dataset"] != "ledger")
    counts = again["orphans"]["counts"]
    assert again["orphans"]["skipped"] == {}
    assert {name for name, count in counts.items() if count} <= {"outbox_without_event", "posting_without_event"}, (
        counts
    )
    assert len((into / ORPHANS).read_text().splitlines()) == 1 + again["orphans"]["total"]

    ends = {store["dataset"]: store for store in again["point"]["stores"]}["game_events"]["position"]["ends"]
    held = Counter(f"{each.event.topic}/{each.event.partition}" for each in stored_events(lived.broker.bootstrap))
    assert dict(held) == {place: end for place, end in ends.items() if end}
    assert len(read_documents(place.client, bucket)) > 1
    fact = latest_fact(lived.vault(), "vault", ESTATE_RESTORE)
    assert fact is not None
    assert fact.body["whole"] is True
    assert fact.body["point"] == again["point"]

    code, third, told = run(
        lived, "restore", "--estate", "--into", str(into), *targets(lived, bucket), **store_of(lived)
    )
    assert code == 0, told
    assert [one["duration_s"] for one in third["outcomes"]] == [one["duration_s"] for one in again["outcomes"]]
    assert json.loads((into / STATE).read_text())["point"] == again["point"]


def test_a_point_is_sealed_and_a_dataset_without_a_target_refused(lived: Any, engine_dir: Path) -> None:
    """`recovery-point --record` leaves a signed fact; a restore that lacks a target touches nothing and says which."""
    code, said, told = run(lived, "recovery-point", "--record")
    assert code == 0, told
    fact = latest_fact(lived.vault(), "vault", RECOVERY_POINT)
    assert fact is not None
    assert fact.body["at"] == said["at"]
    into = engine_dir / "none"
    code, _, told = run(lived, "restore", "--estate", "--into", str(into))
    assert code == 2
    assert "estate.no_target" in told
    assert not into.exists()


def test_one_verb_restores_any_kind(lived: Any, engine_dir: Path) -> None:
    """`restore DATASET` restores a database, and hands topics and documents to their own verbs; no other's options."""
    into = engine_dir / "one"
    at = recovery_point(lived.estate, lived.vaults()).at.isoformat()
    code, said, told = run(lived, "restore", "ledger", "--to", at, "--level", "quick", "--into", str(into))
    assert code == 0, told
    assert said["data_dir"] == str(into / "data")
    assert (into / "data" / "PG_VERSION").is_file()
    code, said, told = run(lived, "restore", "kyc", "--plan")
    assert code == 0, told
    assert said["picked"]["versions"] > 0
    code, said, told = run(
        lived, "restore", "game_events", "--into", "127.0.0.1:1", "--plaintext", "--timeline", "2", "--plan"
    )
    assert code == 2
    assert "cli.wrong_kind" in told
    code, _, told = run(lived, "restore")
    assert (code, "cli.what_to_restore" in told) == (2, True)
