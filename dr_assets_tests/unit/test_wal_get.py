import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from dr_assets.cli import wal as command
from dr_assets.cli.app import app
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.lineage import TIMELINE
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

SEGMENT = 1 << 20
SYSTEM = 7001
SEGMENT_NAME = "000000010000000000000000"


class _Declared:
    """As much of a declaration as the command looks at."""

    name = "ledger"
    vault = "primary"


@pytest.fixture
def vault() -> Vault:
    """One and a half segments of timeline 1."""
    vault = throwaway_vault()
    previous = None
    for first in range(0, SEGMENT + SEGMENT // 2, SEGMENT // 4):
        prepared = vault.prepare(
            dataset="ledger", stream="wal", kind="wal", system_id=str(SYSTEM), timeline=1, first=first,
            last=first + SEGMENT // 4, begin_at=vault.clock(), end_at=vault.clock(),
            plaintext=_page(first) + b"\1" * (SEGMENT // 4 - 40), previous=previous,
            extra={"acknowledged_to": f"{first:016X}"},
        )  # fmt: skip
        vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
        previous = prepared.header.digest
    return vault


def _page(first: int) -> bytes:
    """A long page header, of which only the segment size is looked at."""
    return bytes(24) + SYSTEM.to_bytes(8, "little") + SEGMENT.to_bytes(4, "little") + bytes([first >> 18, 0x20, 0, 0])


@pytest.fixture
def get(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`get(name)`: the command's exit code, run in a data directory, of a standby unless said otherwise."""
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "pg_control").write_bytes(SYSTEM.to_bytes(8, "little") + bytes(100))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the command's own would end this process
    monkeypatch.setattr(command, "estate_of", lambda _: cast("Estate", None))
    monkeypatch.setattr(command, "postgres_of", lambda *_: cast("PostgresDataset", _Declared()))
    monkeypatch.setattr(command, "vault_of", lambda *_, **__: vault)

    def run(name: str, *more: str, standby: bool = True) -> int:
        (tmp_path / "standby.signal").unlink(missing_ok=True)
        if standby:
            (tmp_path / "standby.signal").touch()
        args = [
            "wal",
            "get",
            "ledger",
            name,
            "RECOVERYXLOG",
            "--segment-bytes",
            str(SEGMENT),
            "--patience-s",
            "0",
            *more,
        ]
        return CliRunner().invoke(app, args).exit_code

    return run


def test_a_whole_segment_and_an_unfinished_one_are_written(get: Callable[..., int]) -> None:
    """Exit 0 and a file of full size: the unfinished one has zeros behind what is stored."""
    assert get(SEGMENT_NAME) == 0
    assert Path("RECOVERYXLOG").stat().st_size == SEGMENT
    assert get(SEGMENT_NAME[:-1] + "1") == 0
    data = Path("RECOVERYXLOG").read_bytes()
    assert len(data) == SEGMENT
    assert data[SEGMENT // 2 - 1] == 1
    assert not any(data[SEGMENT // 2 :])


@pytest.mark.parametrize("name", [SEGMENT_NAME[:-1] + "2", "00000002.history", "0" * 24, SEGMENT_NAME + ".backup"])
def test_what_is_not_stored_is_said_with_1_and_leaves_nothing(get: Callable[..., int], name: str) -> None:
    """A standby asks again later, or looks elsewhere."""
    assert get(name) == command.NOT_STORED
    assert not list(Path().glob("RECOVERYXLOG*"))


def test_damage_stops_the_server(get: Callable[..., int], vault: Vault) -> None:
    """More than 125, so that nobody is promoted over WAL that is there and cannot be read."""
    assert isinstance(vault.store, MemoryStore)
    first = next(iter(vault.objects("ledger", "wal")))
    row = vault.store.rows[str(first.key)][0]
    assert row.data is not None
    row.data = row.data[:-200] + bytes(200)
    assert get(SEGMENT_NAME) == command.STOP
    assert not list(Path().glob("RECOVERYXLOG*"))


def test_a_hole_stops_the_server(get: Callable[..., int], vault: Vault) -> None:
    """What lies behind it was acknowledged once."""
    assert isinstance(vault.store, MemoryStore)
    del vault.store.rows[str(list(vault.objects("ledger", "wal"))[2].key)]
    assert get(SEGMENT_NAME) == command.STOP


@pytest.mark.parametrize(("vanished_from", "name"), [(SEGMENT, "1"), (SEGMENT + SEGMENT // 4, "1"), (0, "0")])
def test_acknowledged_wal_that_vanished_stops_the_server(
    get: Callable[..., int], vault: Vault, vanished_from: int, name: str
) -> None:
    """Neither "not stored" nor zeros: a standby would be promoted without commits that were acknowledged."""
    assert isinstance(vault.store, MemoryStore)
    stored = SEGMENT + SEGMENT // 2
    record_capture(vault, "ledger", "position", Anchor(str(SYSTEM), 1, 0, stored, None, None, 1, None))
    assert get(SEGMENT_NAME[:-1] + "1") == 0
    assert get(SEGMENT_NAME[:-1] + "2") == command.NOT_STORED
    for obj in list(vault.objects("ledger", "wal")):
        if obj.key.first >= vanished_from:
            del vault.store.rows[str(obj.key)]
    Path("RECOVERYXLOG").unlink()
    assert get(SEGMENT_NAME[:-1] + name) == command.STOP
    assert not list(Path().glob("RECOVERYXLOG*"))


def test_what_was_acknowledged_behind_a_switch_is_not_missed(get: Callable[..., int], vault: Vault) -> None:
    """The old primary's WAL beyond the switch belongs to nobody's way."""
    record_switch(vault, SEGMENT + SEGMENT // 2)
    record_capture(vault, "ledger", "position", Anchor(str(SYSTEM), 1, 0, 2 * SEGMENT, None, None, 1, None))
    assert get(SEGMENT_NAME[:-1] + "1") == 0


def test_an_old_timeline_ends_where_a_newer_one_of_unknown_origin_is_stored(
    get: Callable[..., int], vault: Vault
) -> None:
    """Two histories contradict one another: what is before the newer one's first piece is given, nothing behind it."""
    prepared = vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id=str(SYSTEM), timeline=2, first=SEGMENT + SEGMENT // 4,
        last=2 * SEGMENT, begin_at=vault.clock(), end_at=vault.clock(), plaintext=bytes(3 * SEGMENT // 4),
    )  # fmt: skip
    record_switch(vault, SEGMENT + SEGMENT // 4)
    vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
    assert get(SEGMENT_NAME[:-1] + "1") == 0
    record_switch(vault, SEGMENT + SEGMENT // 2)
    assert get(SEGMENT_NAME) == 0
    assert get(SEGMENT_NAME[:-1] + "1") == command.STOP


def record_switch(vault: Vault, position: int) -> None:
    """A capture's word on where timeline 2 left timeline 1."""
    history = f"1\t0/{position:X}\tno recovery target specified\n"
    body: dict[str, Json] = {"system_id": str(SYSTEM), "timeline": 2, "parent": 1, "history": history}
    body |= {"switch_lsn": f"0/{position:X}", "followed_at": "2026-03-01T00:00:00.000000Z"}
    record_fact(vault, "ledger", TIMELINE, body)


def test_a_vault_that_is_away_lets_a_standby_wait_and_stops_a_recovery(
    get: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery would take 1 for the end of all WAL and promote."""

    def away(*_: object, **__: object) -> None:
        raise VaultError("vault.unreachable", "nobody answers", "look at it")

    monkeypatch.setattr(MemoryStore, "list_level", away)
    monkeypatch.setattr(MemoryStore, "list_versions", away)
    assert get(SEGMENT_NAME) == command.NOT_STORED
    assert get(SEGMENT_NAME, standby=False) == command.STOP


def test_wrong_settings_stop_the_server(get: Callable[..., int]) -> None:
    """Another segment size than the cluster's, or no cluster to ask for."""
    assert get(SEGMENT_NAME, "--segment-bytes", str(2 * SEGMENT)) == command.STOP
    (Path("global") / "pg_control").unlink()
    assert get(SEGMENT_NAME) == command.STOP
