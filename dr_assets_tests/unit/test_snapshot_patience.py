import threading
from collections.abc import Callable

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres import patience
from dr_assets.stores.postgres.patience import patiently


def caller(code: str, times: int) -> tuple[list[int], Callable[[], int]]:
    """A call that fails `times` times with `code`, then says 7; with the list of its tries."""
    tries: list[int] = []

    def call() -> int:
        tries.append(1)
        if len(tries) <= times:
            raise VaultError(code, "away", "wait")
        return 7

    return tries, call


def test_a_store_that_is_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call again, until it works."""
    monkeypatch.setattr(patience, "_BACKOFF_BEGIN_S", 0.001)
    tries, call = caller("vault.unreachable", 3)
    assert patiently(call, threading.Event()) == 7
    assert len(tries) == 4


@pytest.mark.parametrize("code", ["vault.refused_credentials", "vault.tampered", "vault.key_conflict"])
def test_what_another_try_cannot_change_is_raised_at_once(code: str) -> None:
    """A refused credential or damage is not tried again."""
    tries, call = caller(code, 3)
    with pytest.raises(VaultError, match=code):
        patiently(call, threading.Event())
    assert len(tries) == 1


def test_an_abandoned_or_late_call_is_not_tried_again() -> None:
    """Whoever gave up does not keep threads waiting, and patience ends."""
    gone = threading.Event()
    gone.set()
    for event, give_up_s in ((gone, 60.0), (threading.Event(), -1.0)):
        tries, call = caller("vault.unreachable", 3)
        with pytest.raises(VaultError):
            patiently(call, event, give_up_s=give_up_s)
        assert len(tries) == 1
