"""The embedded estate: every server that the demo needs, on loopback, stopped and gone when the context ends.

What belongs here: starting and wiring engines, roles, and the environment that the declarations name. What stays
out: what the demo does with them (story.py), and the engines themselves (engines/).
"""

import os
import secrets
import shlex
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dr_assets.casino import schema
from dr_assets.casino.events import create_topics
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.placement import engine_home
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import FilerSync, Identity, SeaweedRegion
from dr_assets.estate.model import Estate
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.vault.connect import init_vault
from dr_assets.vault.roles.documents import documents
from dr_assets.vault.subjects.connect import declared_of, init_ring

PRIMARY_MAJOR = 17
# A ledger's primary: durable, and with a slot that can't fill the disk unnoticed.
PRIMARY_SETTINGS: dict[str, str | int | float | bool] = {
    "wal_level": "replica",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "max_slot_wal_keep_size": "8GB",
    "track_commit_timestamp": True,
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
}
_ENGINE_FOLDERS = ("primary", "broker", "documents", "region-a", "region-b", "dagster-db")
_CASINO_DSN_ENV = "CASINO_DSN"


@dataclass
class EmbeddedEstate:
    """The casino's ledger, broker and documents, two regions with replication, and Dagster's own storage.

    `home` is where people look (`.demo/`); the data of engines lies elsewhere when an unprivileged child can't reach
    it, which `note` is then told. `env` holds what the declarations name, secrets included: give it to children,
    never print it.
    """

    estate: Estate
    home: Path
    note: Callable[[str], None]
    env: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def ack_dir(self) -> Path:
        """Where the workload records what was acknowledged to it."""
        return self.home / "acks"

    @property
    def sandbox(self) -> Path:
        """Where restores go: beside the engines' data, so that the engines' user reaches it."""
        return self.primary.data_dir.parent / "sandbox"

    @property
    def logs(self) -> Path:
        """Logs of the children that run as ourselves."""
        return self.home / "logs"

    def child_env(self, *, minds_people: bool = False) -> dict[str, str]:
        """Our own environment plus the estate's: for children that run as ourselves.

        Not the administrator's keys where duties have keys of their own: no child could do what isn't its duty. Who
        `minds_people` has them all the same: what is done daily for the ring of their keys is nobody else's right.
        """
        if minds_people:
            return {**os.environ, **self.env}
        places = [place for place in self.estate.vaults.values() if place.roles]
        own = {name for place in places for name in (place.access_key_env, place.secret_key_env)}
        return {name: value for name, value in {**os.environ, **self.env}.items() if name not in own}

    def describe_engines(self) -> dict[str, str]:
        """Version and origin of every program that ran."""
        return {
            "postgres": _version(self.primary.programs.version, self.primary.programs.origin),
            "seaweedfs": _version(self.region_a.programs.version, self.region_a.programs.origin),
            "kafka": self.broker.describe(),
        }

    def kill_sources(self) -> None:
        """The casino's servers die at once, and nothing of them is left: what comes back comes from the vault."""
        sources = (self.primary, self.broker, self.documents)
        for source in sources:
            source.kill()
        for source in sources:
            shutil.rmtree(source.data_dir)

    def _start(self, stack: ExitStack) -> None:
        data = self._clean_home()
        weed, programs = find_programs("weed"), find_programs("postgres", PRIMARY_MAJOR)
        self.region_a = SeaweedRegion(data / "region-a", "region-a", weed, identities=self._identities("primary"))
        self.region_b = SeaweedRegion(data / "region-b", "region-b", weed, identities=self._identities("standby"))
        self.primary = PostgresServer(data / "primary", programs, settings=PRIMARY_SETTINGS, name="ledger-primary")
        self.dagster_db = PostgresServer(data / "dagster-db", programs, name="dagster-storage")
        self.documents = SeaweedRegion(data / "documents", "documents", weed)
        found = find_broker(resolve=False)
        self.note(f"broker: {found.why}")
        self.broker = found.server(data / "broker", name="game-events")
        for engine in (self.region_a, self.region_b, self.primary, self.dagster_db, self.documents, self.broker):
            stack.enter_context(engine)
        with ThreadPoolExecutor() as pool:  # they wait for themselves, not for each other
            ready = [pool.submit(self._make_vaults), pool.submit(self._make_ledger)]
            ready += [pool.submit(self._make_dagster_storage), pool.submit(self._make_broker)]
            ready.append(pool.submit(self._make_documents))
        for future in ready:
            future.result()
        self.sync = stack.enter_context(FilerSync(self.region_a, self.region_b))
        self._write_env_file()
        for text in dict.fromkeys([*self.primary.notes, *self.region_a.notes, *self.broker.notes]):
            self.note(text)

    def _clean_home(self) -> Path:
        """Removes what an earlier run left, engine data first; the lock of the run itself stays."""
        place = engine_home(self.home)
        if place.why:
            self.note(place.why)
        data = place.path
        for folder in {self.home, data}:
            for name in (*_ENGINE_FOLDERS, *(f"{name}.run" for name in _ENGINE_FOLDERS), "sandbox"):
                shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("acks", "logs", "keys", "dagster_home", "spool", "work"):
            shutil.rmtree(self.home / name, ignore_errors=True)
            (self.home / name).mkdir(mode=0o700)
        for name in ("env", "report.json"):
            (self.home / name).unlink(missing_ok=True)
        return data

    def _make_vaults(self) -> None:
        """Regions, keys and buckets; both buckets exist before anything is copied from one region to the other."""
        keys = self.home / "keys"
        self.env |= {
            self.estate.keys_dir_env: str(keys),
            self.estate.trust_file_env: str(keys / "trust.json"),
            self.estate.signing_key_env: str(keys / "signing.pem"),
        }
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda region: region.start(), (self.region_a, self.region_b)))
        for vault, region in (("primary", self.region_a), ("standby", self.region_b)):
            place = self.estate.vaults[vault]
            self.env |= {
                place.endpoint_env: region.endpoint,
                place.access_key_env: region.access_key,
                place.secret_key_env: region.secret_key,
            }
            init_vault(self.estate, vault, self.env)
        self.env[declared_of(self.estate).id_key_env] = str(keys / "subject-ids")
        init_ring(self.estate, self.env)

    def _identities(self, vault: str) -> list[Identity]:
        """New keys for each declared role of a vault, with the rights of that duty; the children find them in `env`."""
        policies = documents(self.estate, vault, "seaweedfs", now=datetime.now(UTC))
        made: list[Identity] = []
        for role, pair in self.estate.vaults[vault].roles.items():
            made.append(Identity.throwaway(role, policies[role]))
            self.env |= {pair.access_key_env: made[-1].access_key, pair.secret_key_env: made[-1].secret_key}
        return made

    def _make_ledger(self) -> None:
        """The casino's owner and the capture's role, apart: the capture reads the log and writes its heartbeat."""
        self.primary.init()
        self.primary.start()
        owner = _create_role(self.primary, "casino", "LOGIN")
        capture = _create_role(self.primary, "dr_capture", "LOGIN REPLICATION IN ROLE pg_monitor")
        with psycopg.connect(self.primary.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE ledger OWNER casino")
            connection.execute("GRANT CREATE ON DATABASE ledger TO dr_capture")
        target = conninfo_to_dict(self.primary.dsn("ledger"))
        self.env[self.estate.postgres()["ledger"].dsn_env] = _dsn(target, "dr_capture", capture)
        self.env[_CASINO_DSN_ENV] = _dsn(target, "casino", owner)
        schema.create(self.env[_CASINO_DSN_ENV])

    def _make_broker(self) -> None:
        self.broker.start()
        self.env[self.estate.topics()["game_events"].bootstrap_env] = self.broker.bootstrap
        create_topics(self.broker.bootstrap)

    def _make_documents(self) -> None:
        """The casino's own store, with nothing locked: whoever loses it has lost it."""
        self.documents.start()
        kyc = self.estate.buckets()["kyc"]
        self.documents.create_bucket(kyc.bucket, object_lock=False)
        self.documents.client().put_bucket_versioning(Bucket=kyc.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.env |= {
            kyc.endpoint_env: self.documents.endpoint,
            kyc.access_key_env: self.documents.access_key,
            kyc.secret_key_env: self.documents.secret_key,
        }

    def _make_dagster_storage(self) -> None:
        self.dagster_db.init()
        self.dagster_db.start()
        password = _create_role(self.dagster_db, "dagster", "LOGIN")
        with psycopg.connect(self.dagster_db.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE dagster OWNER dagster")
        target = conninfo_to_dict(self.dagster_db.dsn())
        dagster_home = self.home / "dagster_home"
        shutil.copy(Path(__file__).parents[2] / "dagster.yaml", dagster_home)
        self.env |= {
            "DAGSTER_HOME": str(dagster_home),
            # The first drills and restore tests start together: a busy laptop answers the daemon later than its 60 s.
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "600",
            WORK_DIR_ENV: str(self.home / "work"),
            "DAGSTER_PG_HOST": str(target["host"]),
            "DAGSTER_PG_PORT": str(target["port"]),
            "DAGSTER_PG_DB": "dagster",
            "DAGSTER_PG_USER": "dagster",
            "DAGSTER_PG_PASSWORD": password,
        }

    def _write_env_file(self) -> None:
        """`.demo/env`, for a person's shell: `set -a; . .demo/env; set +a`. It holds secrets: mode 0600."""
        path = self.home / "env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(self.env.items())))


def _create_role(server: PostgresServer, name: str, attributes: str) -> str:
    """Creates a role and returns its generated password."""
    password = secrets.token_urlsafe(24)
    statement = sql.SQL("CREATE ROLE {} PASSWORD {} {}").format(
        sql.Identifier(name),
        sql.Literal(password),
        sql.SQL(attributes),
    )
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement)
    return password


def _dsn(target: Mapping[str, str | int | None], user: str, password: str) -> str:
    return make_conninfo("", host=target["host"], port=target["port"], dbname="ledger", user=user, password=password)


def _version(version: tuple[int, int], origin: str) -> str:
    return f"{version[0]}.{version[1]} ({origin})"
