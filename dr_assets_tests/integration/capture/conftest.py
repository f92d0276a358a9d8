"""Fixtures of the capture's tests: the rig (rig.py), a vault in memory, a vault in the session's region."""

import importlib.util
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.stores.postgres import sync_standby
from dr_assets.vault.storage.memory import MemoryStore


def _load(name: str, path: Path) -> ModuleType:
    """Test folders are no packages, so what they share is loaded by its path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def rig() -> ModuleType:
    """The module rig.py."""
    return _load("capture_rig", Path(__file__).with_name("rig.py"))


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    """A folder for key-encryption keys."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def memory_vault(rig: ModuleType, keys_dir: Path) -> Callable[..., Any]:
    """`memory_vault(dataset)`: a vault over a MemoryStore."""
    return lambda dataset, store=None: rig.make_vault(store or MemoryStore(), keys_dir, dataset)


@pytest.fixture
def place(rig: ModuleType, region: Any, bucket: Callable[[], str], keys_dir: Path) -> Any:
    """A vault in a new bucket of the session's region, and a slot name."""
    return rig.Place(
        endpoint=region.endpoint,
        access_key=region.access_key,
        secret_key=region.secret_key,
        bucket=bucket(),
        keys_dir=keys_dir,
        slot=f"dr_ledger_{secrets.token_hex(4)}",
    )


@pytest.fixture
def cluster(rig: ModuleType, postgres_server: Any, engine_dir: Path) -> Iterator[Any]:
    """A running primary without standbys (cluster.py)."""
    clusters = _load("capture_cluster", Path(__file__).with_name("cluster.py"))
    with ExitStack() as stack:
        yield clusters.Cluster(rig, stack, engine_dir, postgres_server(settings={"fsync": False}))


@pytest.fixture
def slots(rig: ModuleType) -> Any:
    """`slots(server, name)`: drop these slots after the test; a shared server must not keep WAL for them."""
    made: list[tuple[Any, str]] = []
    yield lambda server, name: made.append((server, name))
    for server, name in made:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            there = connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (name,)).fetchone()
        if there is not None:
            rig.drop_slot(server.dsn(), name)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server takes its time to read a setting."""
    monkeypatch.setattr(sync_standby, "_RELOAD_WITHIN_S", 180.0)
