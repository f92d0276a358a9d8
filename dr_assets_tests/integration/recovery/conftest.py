"""An estate that lived under load and lost all its sources at once: its two vaults are what is left.

What belongs here: that life, lived once for all tests of this folder, and where to restore to. What stays out: what is
promised of the restore.
"""

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.casino.kyc import documents, put_documents
from dr_assets.demo.children import Children
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.supervise import Child
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.stores.bucket.copy import copy
from dr_assets.stores.bucket.position import recovery_point as copied
from dr_assets.stores.bucket.site import open_site, open_source
from dr_assets.stores.bucket.source import Place, place_of
from dr_assets.stores.kafka.position import stored_recovery_point as topics_point
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.vault.connect import open_vault
from dr_assets.vault.vault import Vault

HERE = Path(__file__).parent
WAIT_S = 240.0


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below this folder: one worker runs them all, so that the estate lives once."""
    for item in items:
        if HERE in item.path.parents and "lived" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.xdist_group("estate"))


@dataclass
class Lived:
    """What is left: the vaults, and what was known when everything was killed. `env` holds what the estate names."""

    embedded: EmbeddedEstate
    killed_at: datetime
    broker: Any = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def estate(self) -> Any:
        """The declared estate."""
        return self.embedded.estate

    @property
    def env(self) -> dict[str, str]:
        """For commands and restores."""
        return {**os.environ, **self.embedded.env}

    def vault(self, name: str = "primary", *, signing: bool = False) -> Vault:
        """One region's."""
        return open_vault(self.estate, name, self.env, signing=signing)

    def vaults(self, name: str = "primary") -> dict[str, Vault]:
        """The same for every dataset."""
        opened = self.vault(name)
        return dict.fromkeys(self.estate.datasets, opened)

    def new_bucket(self) -> tuple[str, Place]:
        """An empty bucket in the second region's store, which has nothing to do with the lost one."""
        region, name = self.embedded.region_b, f"restored-{secrets.token_hex(4)}"
        region.create_bucket(name, object_lock=False)
        return name, place_of(region.endpoint, name, access_key=region.access_key, secret_key=region.secret_key)


def _newest(lived: EmbeddedEstate, vault: Vault) -> list[datetime | None]:
    estate = lived.estate
    wal = stored_recovery_point(vault, estate.postgres()["ledger"])
    packs = topics_point(vault, estate.topics()["game_events"])
    kyc = copied(vault, "kyc")
    return [None if one is None else one.at for one in (wal, packs, kyc)]


def _together(lived: EmbeddedEstate, vault: Vault) -> bool:
    """Whether the newest listing is hardly older than what is stored of the streams: copying keeps up just now."""
    wal, packs, kyc = _newest(lived, vault)
    return None not in {wal, packs, kyc} and kyc > min(wal, packs) - timedelta(seconds=1)  # type: ignore[operator, type-var]  # none of them is None


@pytest.fixture(scope="session")
def lived(engines_dir: Path, requires: Callable[..., None]) -> Iterator[Lived]:
    """The estate, captured under load with documents copied without a pause, then killed all at once."""
    requires("postgres", 17)
    requires("weed")
    home = engines_dir / "lived"
    home.mkdir(mode=0o711)
    stop = threading.Event()
    with ExitStack() as stack:
        embedded = stack.enter_context(EmbeddedEstate(load_estate(default_defs_dir()), home, lambda _: None))
        estate, env, children = embedded.estate, {**os.environ, **embedded.env}, Children(embedded)
        vault = open_vault(estate, "primary", env)
        load = stack.enter_context(children.workload(rate_per_s=100))
        captures = [stack.enter_context(children.capture(name, metrics_port=0)) for name in ("ledger", "game_events")]
        ledger = estate.postgres()["ledger"]
        wait_until(lambda: stored_recovery_point(vault, ledger) is not None, timeout_s=WAIT_S, what="the first WAL")
        take_snapshot(vault, ledger, env[ledger.dsn_env])
        kyc = estate.buckets()["kyc"]
        site = open_site(estate, kyc, vault, env, home / "copying")
        copier = threading.Thread(target=_copy_on, args=(site, env, embedded, stop), name="copier")
        copier.start()
        began = datetime.now(UTC) + timedelta(seconds=3)  # past the first listing, which stamps whole seconds
        wait_until(
            lambda: all(at is not None and at > began for at in _newest(embedded, vault)),
            timeout_s=WAIT_S, what="something of everything in the vault",
        )  # fmt: skip
        _wait_together(embedded, vault, captures)
        killed_at = datetime.now(UTC)
        embedded.kill_sources()
        stop.set()
        copier.join(WAIT_S)
        for child in (load, *captures):
            child.kill()
        wait_until(
            lambda: _newest(embedded, open_vault(estate, "standby", env)) == _newest(embedded, vault),
            timeout_s=WAIT_S, what="the second region",
        )  # fmt: skip
        left = Lived(embedded, killed_at)
        broker = stack.enter_context(find_broker(resolve=False).server(home / "restored-broker", name="restored"))
        broker.start()
        left.broker = broker
        yield left


def _wait_together(lived: EmbeddedEstate, vault: Vault, captures: list[Child]) -> None:
    """Until documents are as new as money, and stay so: from then on the captures stand still.

    On a busy machine a copy takes longer than the captures need for two seconds more; then they wait for the next one.
    """
    with suppress(EngineError):
        wait_until(lambda: _together(lived, vault), timeout_s=60, what="documents as new as money", every_s=0.2)
    for capture in captures:
        capture.send_signal(signal.SIGSTOP)
    time.sleep(1)  # what they had sent by then is taken
    wait_until(lambda: _together(lived, vault), timeout_s=WAIT_S, what="documents as new as the captures' end")


def _copy_on(site: Any, env: dict[str, str], embedded: EmbeddedEstate, stop: threading.Event) -> None:
    """A player's documents come, and are copied, again and again."""
    client, player = embedded.documents.client(), 0
    place = open_source(site, env)
    while not stop.is_set():
        player += 1
        with suppress(Exception):  # its end is the kill; before it, a busy store is asked again
            if player % 3 == 1:
                put_documents(client, site.dataset.bucket, documents([player % 20 + 1], seed=player))
            copy(site, place)
