import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.cli import capture as command
from dr_assets.cli import main
from dr_assets.components.postgres_checks import judge_chain
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import Json

pytestmark = pytest.mark.integration


def _stop_at_once() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


@pytest.fixture
def capture_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`dr-assets capture` of this vault, dataset and DSN, stopped as soon as it streams: exit code and stderr."""

    def call(vault: Any, dataset: Any, dsn: str, *options: str) -> tuple[int, str]:
        for name, value in (
            ("estate_of", None),
            ("note_policy", None),
            ("dataset_of", dataset),
            ("dsn_of", dsn),
            ("vault_of", vault),
        ):
            monkeypatch.setattr(command, name, lambda *_, value=value, **__: value)
        monkeypatch.setattr(command, "stop_on_signals", _stop_at_once)
        monkeypatch.setattr(sys, "argv", ["dr-assets", "capture", dataset.name, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


def _base_backup(vault: Any, dataset: Any) -> None:
    """The fact that a base backup leaves, of where the chain begins."""
    anchor = latest_anchor(vault, dataset.name)
    assert anchor is not None
    body: dict[str, Json] = {
        "start_lsn": format_lsn(anchor.begin),
        "system_id": anchor.system_id,
        "timeline": anchor.timeline,
    }
    record_fact(vault, dataset.name, "snapshot", body)


def test_a_lost_slot_is_sealed_refused_and_accepted_on_demand(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, capture_command: Callable[..., tuple[int, str]]
) -> None:
    """The command a hint names exists; `contiguous` is red from the loss on, until a base backup of the new chain."""
    server = postgres_server(
        settings={"fsync": False, "max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    )
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    _base_backup(vault, dataset)
    assert judge_chain(vault, dataset).passed
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(5):
            rig.write_rows(dsn, 20)
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
    code, said = capture_command(vault, dataset, dsn)
    assert code == 3
    assert "source.slot_lost" in said
    assert "--accept-gap" in said
    assert [fact.body["available"] for fact in facts(vault, dataset.name, "gap")] == [None]
    assert not judge_chain(vault, dataset).passed
    assert capture_command(vault, dataset, dsn, "--accept-gap")[0] == 0
    assert not judge_chain(vault, dataset).passed
    _base_backup(vault, dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    assert judge_chain(vault, dataset).passed
