"""What a replay makes of the outbox's rows, without a broker: which it refuses, and which it marks as published."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.recovery.outbox import _require_unique
from dr_assets.recovery.outbox_mark import _PRESENT, load_mark
from dr_assets.recovery.outbox_plan import load_plan


def _rows(**changed: Any) -> pa.Table:
    """Two events of transfer 1 in two topics, one of transfer 2; `changed` is of the last."""
    event = {"created_us": 5, "published": False, "payload": "{}"}
    rows = [
        event | {"transfer_id": 1, "position": 1, "topic": "bets", "idempotency_key": "a"},
        event | {"transfer_id": 1, "position": 2, "topic": "mails", "idempotency_key": "a"},
        event | {"transfer_id": 2, "position": 3, "topic": "bets", "idempotency_key": "b"} | changed,
    ]
    return pa.Table.from_pylist(rows)


def test_a_transfer_is_marked_when_all_its_events_are_there() -> None:
    """One topic has the event and the other lacks it: a mark would be for both, and the second one lost for good."""
    with duckdb_engine(None, "64MB", 1) as engine:
        engine.load("outbox", _rows())
        engine.load("held", pa.table({"topic": ["bets", "bets"], "idempotency_key": ["a", "b"]}))
        assert engine.rows(_PRESENT)["transfer"].to_pylist() == ["2"]
        engine.keep("held", "SELECT topic, idempotency_key FROM outbox")
        assert engine.rows(_PRESENT)["transfer"].to_pylist() == ["1", "2"]


@pytest.mark.parametrize("name", ["topic", "idempotency_key", "payload", "position", "published", "created_us"])
def test_an_event_without_a_value_is_refused(name: str) -> None:
    """It could be neither found, nor placed, nor sent: said before anything is, and not passed over."""
    with duckdb_engine(None, "64MB", 1) as engine:
        engine.load("outbox", _rows())
        _require_unique(engine)
    with duckdb_engine(None, "64MB", 1) as engine:
        engine.load("outbox", _rows(**{name: None}))
        with pytest.raises(PolicyError, match=r"outbox\.not_unique"):
            _require_unique(engine)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"outbox_plan": 1}'])
def test_a_file_that_is_no_plan_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    """Also one that lacks its digest alone."""
    path = tmp_path / "plan.json"
    whole = {
        "outbox_plan": 1, "dataset": "ledger", "contract": "c", "cluster_id": "x", "partitioner": "murmur2",
        "key": {"header": "k", "json_path": None, "is_key": False}, "made_at": "2026-01-01T00:00:00+00:00",
        "snapshot_at": "2026-01-01T00:00:00+00:00", "snapshot_lsn": None, "since": None, "rows": 0, "topics": [],
        "groups": [], "entries": [],
    }  # fmt: skip
    path.write_text(json.dumps(whole) if content == "{}" else content)
    with pytest.raises(PolicyError) as caught:
        load_plan(path)
    assert caught.value.code == "outbox.plan_unreadable"


def test_marking_by_a_contract_that_is_not_there_says_so() -> None:
    """The contract's own error, whoever asks first."""
    with pytest.raises(PolicyError) as caught:
        load_mark("casino_leger")
    assert caught.value.code == "reconciliation.contract_unknown"
