"""Where the books are read: from the standby, or from a clone while it refuses, and from the standby again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.estate.errors import SourceError
from dr_assets.proving.prover import books
from dr_assets.proving.prover.books import Judge
from dr_assets_tests.unit.test_prover_judged import POINT


@dataclass
class Places:
    """Stands in for both places; the standby cancels its readers for as long as `cancels`."""

    cancels: bool = False
    asked: list[str] = field(default_factory=list)

    def reader_dsn(self) -> str:
        """Of the standby."""
        return "standby"

    @contextmanager
    def clone(self, _: object) -> Iterator[Any]:
        """A clone, which can always be read."""
        yield SimpleNamespace(reader_dsn=lambda: "clone", point=POINT)

    def reconcile(self, dsn: str, _: str) -> Any:
        """What adds up, where it can be read."""
        self.asked.append(dsn)
        if dsn == "standby" and self.cancels:
            raise SourceError("reconcile.unreadable", "canceling statement due to conflict with recovery", "try again")
        return SimpleNamespace(ok=True, breaks_total=0, verdict=lambda: "fine")


def test_a_standby_that_cancelled_a_reader_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment's conflict costs some copies, not one for ever; a standby that never lets read is asked ever less."""
    places: Any = Places()
    monkeypatch.setattr(books, "reconcile", places.reconcile)
    judge = Judge("casino_ledger", places.clone, lambda: datetime.now(UTC), lambda _: None)

    def place() -> str:
        return judge.books(places, POINT).place

    assert place() == "standby"
    places.cancels = True
    assert place() == "clone"
    places.cancels = False
    assert [place() for _ in range(4)] == ["clone", "clone", "standby", "standby"]

    places.cancels = True
    places.asked.clear()
    assert {place() for _ in range(300)} == {"clone"}
    assert places.asked.count("standby") == 9
