"""The spool's folder and files, without a server."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.spool import SpoolFolder
from dr_assets.vault.format.segment import Prepared
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOM = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SpoolFolder]:
    """An empty spool."""
    spool = SpoolFolder(tmp_path, "ledger", ROOM)
    yield spool
    spool.close()


def piece(vault: Vault, first: int, previous: str | None = None, *, dataset: str = "ledger") -> Prepared:
    """256 bytes of WAL from `first` on, behind the header `previous`."""
    return vault.prepare(
        dataset=dataset, stream="wal", kind="wal", system_id="7700", timeline=1, first=first, last=first + 0x100,
        begin_at=AT, end_at=AT, plaintext=bytes([first >> 8 & 0xFF]) * 0x100, previous=previous, writer_epoch=1,
    )  # fmt: skip


def test_a_disk_that_turns_read_only_is_told_and_ends_nothing(folder: SpoolFolder) -> None:
    """Neither a write nor a removal raises; what could not be removed still counts as used."""
    vault = throwaway_vault()
    kept, refused = piece(vault, 0x100).seal(), piece(vault, 0x200).seal()
    assert folder.keep(kept)
    used = folder.size_bytes
    read_only = OSError(30, "Read-only file system")
    with mock.patch("os.open", side_effect=read_only), mock.patch.object(Path, "unlink", side_effect=read_only):
        assert not folder.keep(refused)
        assert "Read-only" in str(folder.trouble)
        folder.trouble = None
        folder.drop(kept.key)
        assert "Read-only" in str(folder.trouble)
    assert folder.holds(kept.key)
    assert folder.size_bytes == used
    folder.drop(kept.key)
    assert folder.size_bytes == 0


def test_a_folder_that_somebody_else_owns_is_refused(tmp_path: Path) -> None:
    """Its owner could take pieces away, or put others there. Nothing is written into it."""
    (tmp_path / "ledger").mkdir(mode=0o755)
    with mock.patch("os.geteuid", return_value=os.geteuid() + 1), pytest.raises(PolicyError, match="owns it") as raised:
        SpoolFolder(tmp_path, "ledger", ROOM)
    assert raised.value.code == "spool.unusable"
    assert list((tmp_path / "ledger").iterdir()) == []
