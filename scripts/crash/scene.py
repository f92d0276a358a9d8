"""The estate that rounds run in: a primary with the casino, an object store with the vault, the packaged policy.

What belongs here: servers and what points at them. What stays out: what is done to them (faults.py, rounds.py).
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dr_assets.casino import schema
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import Estate, PostgresDataset, Spool, ZeroLoss
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.wal_feed import WalFeed
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.vault import Vault
from scripts.crash.feeder import Feeder
from scripts.crash.kinds import Kind

DATASET: Final = "ledger"
SPOOL_ENV: Final = "DR_CRASH_SPOOL"
SPOOL_BYTES_ENV: Final = "DR_CRASH_SPOOL_BYTES"
_SPOOL_BYTES: Final = 256 << 20
_SETTINGS: Final[dict[str, str | int | bool]] = {
    "track_commit_timestamp": True,
    "wal_keep_size": "1GB",  # the vault's bytes are compared with the server's own files
    "hot_standby_feedback": True,
}


@dataclass
class Scene:
    """One estate. `walked` is by timeline how far the chain was checked, with the digest of the header there.

    `gone` are keys of commits that a fail-over left behind on the old timeline.
    """

    folder: Path
    server: PostgresServer
    region: SeaweedRegion
    estate: Estate
    env: dict[str, str]
    vault: Vault
    rate: float
    stack: ExitStack
    walked: dict[int, tuple[int, str | None]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    standby: PostgresServer | None = None
    feeder: Feeder | None = None
    rounds: int = 0
    retired: list[PostgresServer] = field(default_factory=list)

    def dataset(self, kind: Kind) -> PostgresDataset:
        """The declared ledger, in the mode of a kind of round."""
        spool_bytes = int(self.env[SPOOL_BYTES_ENV]) if kind.spool else 0
        return with_mode(self.estate.datasets[DATASET], zero_loss=kind.zero_loss, spool_bytes=spool_bytes)

    @property
    def dsn(self) -> str:
        """The casino's database on the primary."""
        return self.server.dsn("casino")

    @property
    def cluster_dsn(self) -> str:
        """The casino's database wherever the primary is: both hosts, in one string."""
        return of_several([self.server, *([self.standby] if self.standby else [])])

    def flushed(self) -> int:
        """How far the primary's WAL is flushed."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        return parse_lsn(str(row[0] if row else ""))

    def synchronize(self, slot: str | None) -> None:
        """Have commits wait for the standby of this name, or for none: on the primary and on who may be the next one.

        ALTER SYSTEM is not replicated, so a standby that is not told commits without waiting once it is promoted.
        """
        for server in filter(None, (self.server, self.standby)):
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                names = sql.Literal(f'"{slot}"' if slot else "")
                connection.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(names))
                connection.execute("SELECT pg_reload_conf()")

    def add_standby(self, number: int, *, fed: bool = False) -> PostgresServer:
        """A second server that streams from the primary, or is `fed` by the vault, and has caught up once."""
        name, box = f"node{number}", self.folder / f"box{number}"
        settings = {"restore_command": Feeder.command(box), "wal_retrieve_retry_interval": "1s"} if fed else {}
        standby = PostgresServer.standby_of(
            self.server, self.folder / name, slot=None if fed else name, name=name, settings=settings
        )
        self.stack.enter_context(standby)
        self.standby = standby
        if fed:
            standby.settings["primary_conninfo"] = ""
            system_id = standby.pg_controldata()["Database system identifier"]
            feed = WalFeed(self.vault, DATASET, system_id, segment_bytes=16 << 20)
            self.feeder = Feeder(feed, box, standby.user)
            self.stack.enter_context(self.feeder)
        standby.start()
        if not fed:
            flushed = self.flushed()
            wait_until(lambda: standby_at(standby) >= flushed, "the standby to catch up")
        return standby

    def switched(self) -> None:
        """The standby is the primary now."""
        if self.standby is None:
            raise RuntimeError("nobody to switch to")
        self.retired.append(self.server)
        self.server, self.standby = self.standby, None
        self.env["LEDGER_DSN"] = self.dsn


def with_mode(
    dataset: PostgresDataset, *, zero_loss: bool, spool_bytes: int = 0, degrade_after_s: float | None = None
) -> PostgresDataset:
    """A declared dataset in one of the modes that rounds are run in."""
    degrade_after = None if degrade_after_s is None else timedelta(seconds=degrade_after_s)
    return dataclasses.replace(
        dataset,
        zero_loss=ZeroLoss(degrade_after) if zero_loss else None,
        spool=Spool(SPOOL_ENV, spool_bytes) if spool_bytes else None,
    )


def of_several(servers: list[PostgresServer]) -> str:
    """One connection string over several servers of the same passwords, which leads to the one that takes writes."""
    every = [conninfo_to_dict(server.dsn("casino")) for server in servers]
    if len(every) == 1:
        return servers[0].dsn("casino")
    several = {name: ",".join(str(one[name]) for one in every) for name in ("host", "port")}
    return make_conninfo("", **{**every[0], **several, "target_session_attrs": "read-write"})


def standby_at(standby: PostgresServer) -> int:
    """How far a standby has received or, where it doesn't stream, replayed."""
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0')::text"
        ).fetchone()
    return parse_lsn(str(row[0] if row else ""))


def one_region() -> Estate:
    """The packaged declarations without replicas: a new data key waits for every region, and here is one."""
    estate = load_estate(default_defs_dir()).only("ledger")
    alone = {name: replace(dataset, replicas=()) for name, dataset in estate.datasets.items()}
    return replace(estate, datasets=alone)


@contextmanager
def open_scene(folder: Path, *, rate: float, players: int = 500) -> Iterator[Scene]:
    """A primary with the casino, an object store with the vault, and the packaged declarations over both."""
    with ExitStack() as stack:
        server = PostgresServer(folder / "primary", find_programs("postgres", 17), settings=_SETTINGS)
        region = SeaweedRegion(folder / "region", "crash", find_programs("weed"))
        stack.enter_context(server)
        stack.enter_context(region)
        server.init()
        server.start()
        region.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE casino")
        schema.create(server.dsn("casino"), players=players)
        estate = one_region()
        env = _environment(folder, server, region)
        init_vault(estate, "primary", env)
        yield Scene(folder, server, region, estate, env, open_vault(estate, "primary", env), rate, stack)


def _environment(folder: Path, server: PostgresServer, region: SeaweedRegion) -> dict[str, str]:
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "keys").mkdir(mode=0o700)
    (folder / "spool").mkdir(mode=0o700)
    return {
        "LEDGER_DSN": server.dsn("casino"),
        "DR_VAULT_PRIMARY_ENDPOINT": region.endpoint,
        "DR_VAULT_PRIMARY_ACCESS_KEY": region.access_key,
        "DR_VAULT_PRIMARY_SECRET_KEY": region.secret_key,
        "DR_KEYS_DIR": str(secrets / "keys"),
        "DR_TRUST_FILE": str(secrets / "trust.json"),
        "DR_SIGNING_KEY": str(secrets / "signing.pem"),
        SPOOL_ENV: str(folder / "spool"),
        SPOOL_BYTES_ENV: str(_SPOOL_BYTES),
    }


def wait_until(wanted: Callable[[], bool], what: str, *, timeout_s: float = 180) -> None:
    """Until something is so. Raises RuntimeError when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not wanted():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(0.05)
