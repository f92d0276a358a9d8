"""Fixtures for every test that wants a real engine: few starts a session, own databases and buckets a test.

What belongs here: servers, databases, buckets, engine folders, `requires`. What stays out: anything about the vault,
Dagster or a store; those rooms' tests bring their own fixtures.
"""

import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from _pytest.nodeid import NodeId
from hypothesis import settings
from psycopg import sql

from dr_assets.engines import ports
from dr_assets.engines.openbao import BaoServer, find_bao
from dr_assets.engines.placement import shared_folder
from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.engines.programs import Programs, find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.engines.softhsm import CONF_ENV, SoftHsm, find_module
from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.pkcs11_token import token_at
from dr_assets_tests.clusters import copy_cluster

WAL_KEPT: Mapping[str, Setting] = {"wal_keep_size": "512MB"}


def pytest_configure() -> None:
    """Give each worker a share of the ports: a server that restarts must find its own free, whatever others start.

    None of hypothesis's examples has a deadline, on CI or not: a loaded machine takes its time.
    """
    settings.register_profile("patient", settings.default, deadline=None)
    settings.load_profile("patient")
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = (ports.HIGHEST - ports.LOWEST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports.LOWEST += worker * share
    ports.HIGHEST = ports.LOWEST + share


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `xdist_group` group: xdist 3.8 writes the group behind an attribute that pytest 9.2 no longer reads."""
    for item in items:
        if named := getattr(item, "_nodeid", None):
            item._id = NodeId.parse(named)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A command that a test runs in this process takes its signals: what comes later gets them back.

    Whoever starts the tests in the background of a shell has SIGINT ignored, and so would every child.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _wide_tables() -> Iterator[None]:
    """No word of a table is folded: how wide its columns are may depend on a random name or number.

    Its own MonkeyPatch: the tests' is undone in the order in which they ask for it.
    """
    with pytest.MonkeyPatch.context() as own:
        own.setenv("COLUMNS", "200")
        yield


@pytest.fixture(scope="session")
def requires() -> Callable[..., None]:
    """`requires("postgres", 15)`, `requires("weed")`, `requires("setpriv")`: skip with the reason where it lacks.

    With CI=true a lack is a failure: there a silent skip would look like a pass.
    """

    def check(name: str, major: int | None = None) -> None:
        if name in {"postgres", "weed"}:
            try:
                find_programs("postgres" if name == "postgres" else "weed", major)
            except PolicyError as error:
                _lacks(str(error))
        elif name in {"bao", "softhsm"}:
            try:
                find_bao() if name == "bao" else find_module()
            except PolicyError as error:
                _lacks(str(error))
        elif name == "root":
            if os.geteuid() != 0:
                _lacks("has to be root, to run something as another user")
        elif shutil.which(name) is None:
            _lacks(f"the program {name} is not on PATH")

    return check


@pytest.fixture(scope="session")
def lacks() -> Callable[[str], None]:
    """`lacks(reason)`: skip with that reason, or fail on CI."""
    return _lacks


def _lacks(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing on CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engines_dir(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A folder for the session's engines that the engines' user can pass through (pytest's own is closed to it)."""
    # Should this process be killed, the clean-up finds it: it stands in for a path below the project, made up.
    folder = shared_folder("tests", pytestconfig.rootpath / "tests" / secrets.token_hex(8))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def engine_dir(engines_dir: Path) -> Iterator[Path]:
    """A fresh folder for one test's engines, removed after it."""
    folder = engines_dir / secrets.token_hex(4)
    folder.mkdir()
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_programs(requires: Callable[..., None]) -> Callable[[int], Programs]:
    """`postgres_programs(17)`: that major version's programs, or a skip."""

    def find(major: int) -> Programs:
        requires("postgres", major)
        return find_programs("postgres", major)

    return find


@pytest.fixture(scope="session")
def weed_programs(requires: Callable[..., None]) -> Programs:
    """SeaweedFS's program, or a skip."""
    requires("weed")
    return find_programs("weed")


@pytest.fixture(scope="session")
def init_cluster(engines_dir: Path, postgres_programs: Callable[[int], Programs]) -> Callable[[PostgresServer], None]:
    """`init_cluster(server)`: as `server.init()`, but most of the work is done once a session and major version."""
    templates: dict[int, PostgresServer] = {}

    def init(server: PostgresServer) -> None:
        major = server.programs.major
        if major not in templates:
            templates[major] = PostgresServer(engines_dir / f"template-pg{major}", postgres_programs(major))
            templates[major].init()
        copy_cluster(templates[major], server)

    return init


@pytest.fixture
def postgres_server(
    engine_dir: Path, postgres_programs: Callable[[int], Programs], init_cluster: Callable[[PostgresServer], None]
) -> Iterator[Callable[..., PostgresServer]]:
    """`postgres_server(major=17, settings={...}, start=True)`: a server of the test's own, stopped after it."""
    with ExitStack() as stack:

        def make(
            major: int = 17, settings: Mapping[str, Setting] | None = None, *, start: bool = True
        ) -> PostgresServer:
            name = f"pg{major}-{secrets.token_hex(3)}"
            # A test that compares with the server's own WAL must find it there, whatever was checkpointed meanwhile.
            kept = {} if "max_slot_wal_keep_size" in (settings or {}) else WAL_KEPT
            server = PostgresServer(engine_dir / name, postgres_programs(major), settings={**kept, **(settings or {})})
            stack.enter_context(server)
            init_cluster(server)
            if start:
                server.start()
            return server

        yield make


@pytest.fixture(scope="session")
def session_postgres(
    engines_dir: Path, postgres_programs: Callable[[int], Programs], init_cluster: Callable[[PostgresServer], None]
) -> Iterator[Callable[[int], PostgresServer]]:
    """`session_postgres(17)`: one running server a session and major version; don't stop it, use `fresh_database`.

    `wal_level` is `logical`, `track_commit_timestamp` on; fsync is off, which a kill of processes cannot notice.
    """
    servers: dict[int, PostgresServer] = {}
    with ExitStack() as stack:

        def get(major: int = 17) -> PostgresServer:
            if major not in servers:
                server = PostgresServer(
                    engines_dir / f"session-pg{major}",
                    postgres_programs(major),
                    settings={
                        "wal_level": "logical",
                        "track_commit_timestamp": True,
                        "fsync": False,
                        "max_wal_senders": 20,
                        "max_replication_slots": 20,
                        **WAL_KEPT,
                    },
                )
                stack.enter_context(server)
                init_cluster(server)
                server.start()
                servers[major] = server
            return servers[major]

        yield get


@pytest.fixture(scope="session")
def postgres_17(session_postgres: Callable[[int], PostgresServer]) -> PostgresServer:
    """The session's Postgres 17."""
    return session_postgres(17)


@pytest.fixture
def fresh_database(
    session_postgres: Callable[[int], PostgresServer],
) -> Iterator[Callable[..., str]]:
    """`fresh_database(major=17)`: the DSN of a new, empty database on the session's server, dropped after the test."""
    made: list[tuple[PostgresServer, str]] = []

    def make(major: int = 17) -> str:
        server, name = session_postgres(major), f"test_{secrets.token_hex(6)}"
        _execute(server, sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
        made.append((server, name))
        return server.dsn(name)

    yield make
    for server, name in made:
        _execute(server, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _execute(server: PostgresServer, statement: sql.Composed) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
def region(engines_dir: Path, weed_programs: Programs) -> Iterator[SeaweedRegion]:
    """The session's S3 region with Object Lock; don't stop it, use `bucket`. `region.client()` is an S3 client."""
    with SeaweedRegion(engines_dir / "region", "session", weed_programs) as server:
        server.start()
        yield server


@pytest.fixture
def bucket(region: SeaweedRegion) -> Callable[..., str]:
    """`bucket(object_lock=True)`: the name of a new bucket in the session's region."""

    def make(*, object_lock: bool = True) -> str:
        name = f"test-{secrets.token_hex(6)}"
        region.create_bucket(name, object_lock=object_lock)
        return name

    return make


SOFTHSM_TOKENS = ("one", "two", "three", "four")


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory, requires: Callable[..., None]) -> Iterator[SoftHsm]:
    """The session's software HSM with the tokens `one` to `four`; its library is loaded once a process."""
    requires("softhsm")
    hsm = SoftHsm(tmp_path_factory.mktemp("softhsm"), find_module())
    hsm.make(*SOFTHSM_TOKENS)
    before = os.environ.get(CONF_ENV)
    os.environ[CONF_ENV] = str(hsm.conf)
    for label in SOFTHSM_TOKENS:  # the process's own, which a busy machine may keep waiting for long
        token_at(hsm.module, label, hsm.pin)._timeout_s = 180.0
    yield hsm
    if before is None:
        del os.environ[CONF_ENV]
    else:
        os.environ[CONF_ENV] = before


@pytest.fixture
def bao_server(tmp_path: Path, requires: Callable[..., None]) -> Iterator[Callable[[], BaoServer]]:
    """`bao_server()`: an OpenBao server of the test's own with a transit engine, killed after it."""
    requires("bao")
    with ExitStack() as stack:

        def make() -> BaoServer:
            server = stack.enter_context(BaoServer(tmp_path / f"bao-{secrets.token_hex(3)}", find_bao()))
            server.start()
            return server

        yield make
