"""Rotation of the data key under a live capture: no pause, nothing unreadable, the log complete."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.vault.facts import facts
from dr_assets.vault.keys.life.choice import ROTATION, follow_facts
from dr_assets.vault.keys.life.rotation import rotate

pytestmark = pytest.mark.integration

ROTATIONS = 3


class Look:
    """A store that keeps whoever looks for a newer key waiting, and nobody else."""

    def __init__(self, store: Any) -> None:
        self.looking, self.free = threading.Event(), threading.Event()
        self.free.set()
        self.in_vain = False
        self._list = store.list_versions
        store.list_versions = self.list_versions

    def list_versions(self, *args: Any) -> Any:
        """As the store's, some time."""
        if threading.current_thread().name.startswith("keys-") and not self.free.is_set():
            self.looking.set()
            self.in_vain = not self.free.wait(180)
        return self._list(*args)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Begins once somebody waits; nobody does any more when it ends, however it ends."""
        self.looking.clear()
        self.free.clear()
        try:
            assert self.looking.wait(180)
            yield
        finally:
            self.free.set()


def test_a_live_capture_takes_new_keys_up_without_a_pause(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, place: Any, slots: Any
) -> None:
    """Three rotations by another process: each taken up without a restart, WAL byte for byte, each key in the log.

    While the look for the new one hangs, the capture seals and stores under the key that it has.
    """
    dsn, dataset = fresh_database(), place.dataset()
    slots(postgres_17, dataset.slot)
    vault, other = follow_facts(place.vault()), follow_facts(place.vault())
    vault.keys._take_up_s = 0.2  # instead of thirty seconds
    keys: list[str] = []
    look = Look(vault.store)
    with rig.CaptureThread(vault, dataset, dsn) as capture, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE load (id bigserial, filler text)")
        capture.wait_stored(rig.flushed(dsn))
        keys.append(vault.keys.for_writing(dataset.name).key_id)
        for _ in range(ROTATIONS):
            keys.append(rotate(other, dataset.name, "test").key_id)
            with look.held():
                capture.wait_stored(rig.write_rows(dsn, 50))
                assert not look.in_vain
            deadline = time.monotonic() + 180
            while vault.keys.for_writing(dataset.name).key_id != keys[-1]:
                assert time.monotonic() < deadline, f"never taken up: {vault.keys.trouble}"
                connection.execute("INSERT INTO load (filler) SELECT repeat('x', 200) FROM generate_series(1, 50)")
            capture.wait_stored(rig.write_rows(dsn, 200))
        assert capture.error is None
    chain = rig.assert_same_wal(other, dataset, postgres_17.data_dir)
    used = [other.header(segment).key_id for segment in chain.segments]
    assert list(dict.fromkeys(used)) == keys, "each key in its turn, and none twice"
    said = [(fact.body["previous"], fact.body["key_id"]) for fact in facts(other, dataset.name, ROTATION)]
    assert said == list(pairwise(keys))
