import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from dr_assets.stores.postgres.pieces import Piece
from dr_assets.stores.sealing import putters as putters_module
from dr_assets.stores.sealing.linked import Body, Chain
from dr_assets.stores.sealing.metrics import NoMetrics
from dr_assets.stores.sealing.putters import Putters
from dr_assets.vault.throwaway import throwaway_vault

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_store_that_hangs_is_told_though_no_put_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and answers nothing: silence past the limit is trouble, an answer ends it."""
    vault = throwaway_vault()
    vault.keys.for_writing("ledger")
    answer, put = threading.Event(), vault.store.put

    def hangs(*args: Any) -> Any:
        assert answer.wait(180)
        return put(*args)

    monkeypatch.setattr(vault.store, "put", hangs)
    monkeypatch.setattr(putters_module, "HANGS_AFTER_S", 0.1)
    putters = Putters(
        vault, dataset="ledger", lock_of=lambda: vault.locks.lock("ledger", "wal", vault.clock()), count=1,
        give_up_s=60, is_only_copy=lambda: False, metrics=NoMetrics(),
    )  # fmt: skip
    body = Body((b"four",))
    linked = Chain(None).link(
        body,
        lambda plaintext, sha256, previous: vault.prepare(
            dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=0, last=4, begin_at=AT,
            end_at=AT, plaintext=plaintext, plaintext_sha256=sha256, previous=previous,
        ),
    )  # fmt: skip
    assert putters.silence() is None
    putters.submit(linked, Piece(0, 4, AT, AT, body, ()))
    deadline_s = time.monotonic() + 180
    while putters.silence() is None:
        assert time.monotonic() < deadline_s
    assert putters.trouble is None
    answer.set()
    while not putters.outcomes():
        assert time.monotonic() < deadline_s
    assert putters.silence() is None
    putters.close()
