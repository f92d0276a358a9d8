from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from dr_assets.cli.snapshot import to_json, to_text
from dr_assets.components import postgres_assets
from dr_assets.components.labels import SNAPSHOT_KIND_TAG
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.snapshot import SnapshotResult
from dr_assets.vault.storage import Lock

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def taken(**more: Any) -> SnapshotResult:
    """A base backup as the store's side tells of it."""
    return SnapshotResult("e/d/base/1/1/k", "b", 1, 2, 1, "1", 10, 5, 1, 2.0, 5.0, Lock("COMPLIANCE", AT), AT, **more)


@pytest.mark.parametrize("kind", ["incremental", "full", None])
def test_the_asset_takes_what_the_schedule_found_due(
    instance: dg.DagsterInstance,
    filled: Any,
    ledger: PostgresDataset,
    monkeypatch: pytest.MonkeyPatch,
    kind: str | None,
) -> None:
    """An incremental only when the run says so; by hand it is a full. The metadata shows which it became, and why."""
    monkeypatch.setenv(ledger.dsn_env, "host=localhost")
    asked: list[dict[str, Any]] = []

    def take(*_: Any, **options: Any) -> SnapshotResult:
        asked.append(options)
        if options["incremental"]:
            return taken(depth=2, parent_snapshot_id="a")
        return taken(why_full="because")

    monkeypatch.setattr(postgres_assets, "take_snapshot", take)
    tags = {} if kind is None else {SNAPSHOT_KIND_TAG: kind}
    done = dg.materialize(
        [postgres_assets.snapshot_asset(ledger)], instance=instance, resources={"vault_primary": filled}, tags=tags
    )
    (event,) = done.get_asset_materialization_events()
    shown = {name: value.value for name, value in event.materialization.metadata.items()}
    assert asked[0]["incremental"] == (kind == "incremental")
    assert asked[0]["full_if_refused"]
    assert shown["kind"] == ("incremental" if kind == "incremental" else "full")
    assert (shown.get("builds_on"), shown.get("why_full")) in {("a", None), (None, "because")}


def test_the_command_says_what_it_took_and_why() -> None:
    """People read it in a sentence, machines in fields of their own."""
    small, instead = taken(depth=2, parent_snapshot_id="a"), taken(why_full="the chain is full")
    assert "incremental 2 on a" in to_text(small)
    assert "in place of an incremental: the chain is full" in to_text(instead)
    assert {name: to_json(small)[name] for name in ("kind", "depth", "parent_snapshot_id", "why_full")} == {
        "kind": "incremental", "depth": 2, "parent_snapshot_id": "a", "why_full": None,
    }  # fmt: skip
    assert to_json(instead)["kind"] == "full"
