import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.parts import PartsPlace, PartWriter
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

PART = 1000


def writer(vault: Vault) -> PartWriter:
    """Parts of 1000 bytes of a base backup `x`."""
    lock = vault.locks.lock("ledger", "part", vault.clock() + timedelta(seconds=1))
    return PartWriter(vault, PartsPlace("ledger", "x", "7", 1, lock), part_bytes=PART)


def stored(vault: Vault) -> list[bytes]:
    """The plaintext of every part, in order."""
    return [vault.open(obj).plaintext for obj in vault.objects("ledger", "base-x")]


def test_archives_are_cut_into_parts_that_belong_to_one_archive_each() -> None:
    """The parts of an archive, joined in order, are the archive; an empty archive has none."""
    vault = throwaway_vault()
    archives = {"one.tar": b"1" * 2500, "empty.tar": b"", "base.tar": b"2" * 1700, "backup_manifest": b"3"}
    with writer(vault) as parts:
        for name, data in archives.items():
            parts.begin(name)
            for at in range(0, len(data), 300):
                parts.add(memoryview(data)[at : at + 300])
        made, listed = parts.finish()
    pieces = stored(vault)
    assert [archive.name for archive in made] == list(archives)
    for archive in made:
        data = b"".join(pieces[archive.first_part : archive.last_part])
        assert data == archives[archive.name]
        assert archive.size_bytes == len(data)
    assert [part.key for part in listed] == [str(obj.key) for obj in vault.objects("ledger", "base-x")]
    assert parts.stored_bytes == sum(part.size_bytes for part in listed)


def test_a_slow_store_slows_the_stream_instead_of_filling_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be put, only so many parts as there are threads, and one, are taken."""
    vault = throwaway_vault()
    open_gate, put = threading.Event(), Vault.put

    def gated(self: Vault, *args: Any) -> Any:
        assert open_gate.wait(600)
        return put(self, *args)

    monkeypatch.setattr(Vault, "put", gated)
    taken = 0

    def feed() -> None:
        nonlocal taken
        for _ in range(100):
            parts.add(bytes(PART))
            taken += 1

    with writer(vault) as parts:
        parts.begin("base.tar")
        thread = threading.Thread(target=feed)
        thread.start()
        before, deadline_s = -1, time.monotonic() + 180
        while taken < 4 or before != taken:
            assert time.monotonic() < deadline_s, taken
            before = taken
            time.sleep(0.2)
        assert taken <= 9
        open_gate.set()
        thread.join(180)
        assert len(parts.finish()[1]) == 100


def test_the_first_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that cannot be put is raised by a later call, not swallowed, and threads end."""
    vault = throwaway_vault()

    def failing(self: Vault, *args: Any) -> Any:
        raise VaultError("vault.refused_credentials", f"{self} said no to {len(args)}", "look")

    monkeypatch.setattr(Vault, "put", failing)

    def feed() -> None:
        with writer(vault) as parts:
            parts.begin("base.tar")
            for _ in range(100):
                parts.add(bytes(PART))

    with pytest.raises(VaultError, match="said no"):
        feed()
    assert not any(thread.name.startswith("part") for thread in threading.enumerate())
