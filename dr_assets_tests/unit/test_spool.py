"""The spool's folder and files, without a server."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.spool import SpoolFolder
from dr_assets.stores.postgres.spool_recovery import SpoolRecovery
from dr_assets.vault.facts import facts
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


def store(vault: Vault, prepared: Prepared) -> None:
    """Into the vault."""
    vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))


def captured(vault: Vault, begin: int, end: int, header: str | None) -> None:
    """A capture said that its chain is [begin, end)."""
    record_capture(vault, "ledger", "started", Anchor("7700", 1, begin, end, header, None, 1, AT))


def test_what_an_older_chain_lacks_is_put_behind_it(folder: SpoolFolder) -> None:
    """A newer chain that ends farther holds nothing of what came before its begin, so no fact may say so.

    What neither chain's pieces lead to is dropped as not continued, what the newer one covers as stored.
    """
    vault = throwaway_vault()
    old = piece(vault, 0x100)
    spooled = [piece(vault, 0x200, old.header.digest)]
    spooled.append(piece(vault, 0x300, spooled[0].header.digest))
    lonely = piece(vault, 0x500, "0" * 64)
    new = piece(vault, 0x1000)
    for prepared in (old, new):
        store(vault, prepared)
    for prepared in (*spooled, lonely, new):
        assert folder.keep(prepared.seal())
    captured(vault, 0x100, 0x200, old.header.digest)
    captured(vault, 0x1000, 0x1100, new.header.digest)
    assert SpoolRecovery(vault, "ledger", folder).put_back(drop_rest=True) == 2
    assert [obj.key.first for obj in vault.objects("ledger", "wal")] == [0x100, 0x200, 0x300, 0x1000]
    assert [
        (str(fact.body["reason"]).split(":")[0], fact.body["pieces"]) for fact in facts(vault, "ledger", "spool")
    ] == [
        ("the vault holds these positions already", 1),
        ("it does not continue what the vault holds", 1),
    ]
    assert folder.names() == []


def test_what_is_of_another_history_is_not_put_beside_the_newer_chain(folder: SpoolFolder) -> None:
    """It continues the older chain by its header, and reaches into the newer one."""
    vault = throwaway_vault()
    old, new = piece(vault, 0x100), piece(vault, 0x280)
    for prepared in (old, new):
        store(vault, prepared)
    captured(vault, 0x280, 0x380, new.header.digest)
    assert folder.keep(piece(vault, 0x200, old.header.digest).seal())
    assert SpoolRecovery(vault, "ledger", folder).put_back(drop_rest=False) == 0
    assert len(folder.names()) == 1


def test_another_estates_pieces_are_refused_and_left_alone(folder: SpoolFolder) -> None:
    """Two estates with a dataset of one name and one folder for both: neither takes the pieces of the other."""
    assert folder.keep(piece(throwaway_vault(estate="sportsbook"), 0x100).seal())
    with pytest.raises(PolicyError, match="sportsbook/ledger") as raised:
        SpoolRecovery(throwaway_vault(), "ledger", folder)
    assert raised.value.code == "spool.foreign"
    assert len(folder.names()) == 1


def test_a_stop_leaves_the_rest_on_the_disk(folder: SpoolFolder) -> None:
    """Neither put nor dropped: the next start goes on with it."""
    vault = throwaway_vault()
    first = piece(vault, 0x100)
    pieces = [first, piece(vault, 0x200, first.header.digest), piece(vault, 0x900, "0" * 64)]
    for prepared in pieces:
        assert folder.keep(prepared.seal())
    assert SpoolRecovery(vault, "ledger", folder, stopped=lambda: True).put_back(drop_rest=True) == 0
    assert len(folder.names()) == 3
    assert SpoolRecovery(vault, "ledger", folder).put_back(drop_rest=True) == 2
