"""Fixtures of the Kafka tests: one broker a session to capture, one to restore into, own topics a test.

What belongs here: brokers, names, clients. What stays out: vaults and captures (each test file's own rig).

All tests in this folder are of one xdist group, so that one worker runs them and each broker is started once.
"""

import importlib.util
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.jars import KafkaJars, find_jars
from dr_assets.engines.kafka.noida import NoidaServer, find_noida
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import PolicyError
from dr_assets_tests.integration.kafka.making import ANSWER_S, make_topic

HERE = Path(__file__).parent
USERS = {"alice": "alices-own-password", "bob": "bobs-own-password"}


@pytest.hookimpl(tryfirst=True)
@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below this folder: it starts a real engine, and one worker runs them all."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.xdist_group("kafka"))


def _load(name: str) -> ModuleType:
    """Test folders are no packages, so what they share is loaded by its path."""
    known = f"kafka_tests_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture(scope="session")
def foreign() -> ModuleType:
    """The module foreign.py: `make_foreign(server, prefix, kcat)`."""
    return _load("foreign")


@pytest.fixture(scope="session")
def comparing() -> ModuleType:
    """The module comparing.py: two clusters' differences."""
    return _load("comparing")


@pytest.fixture(scope="session")
def restore_rig() -> ModuleType:
    """The module restore_rig.py: topics that are hard to restore, and restores of them."""
    return _load("restore_rig")


@pytest.fixture(scope="session")
def capture_rig() -> ModuleType:
    """The module capture_rig.py: datasets, vaults, a capture in a thread."""
    return _load("capture_rig")


@pytest.fixture(scope="session")
def kafka_jars(lacks: Callable[[str], None]) -> KafkaJars:
    """Apache Kafka's jars, got by Maven if need be; a skip with the reason, a failure on CI."""
    try:
        return find_jars()
    except (PolicyError, EngineError) as error:
        lacks(str(error))
        raise


@pytest.fixture(scope="session")
def kafka(engines_dir: Path, kafka_jars: KafkaJars) -> Iterator[KafkaServer]:
    """The session's broker, with all four doors and the users alice and bob; don't stop it, use `topic`."""
    doors = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
    with KafkaServer(engines_dir / "kafka", kafka_jars, protocols=doors, users=USERS) as server:
        server.start()
        yield server


@pytest.fixture(scope="session")
def foreign_topics(kafka: KafkaServer, kcat: Path, foreign: ModuleType) -> Any:
    """Other clients' topics and groups in the session's broker, made once; nobody writes to them any more."""
    return foreign.make_foreign(kafka, f"foreign-{secrets.token_hex(4)}", kcat)


@pytest.fixture(scope="session")
def kafka_target(engines_dir: Path, kafka_jars: KafkaJars) -> Iterator[KafkaServer]:
    """A second cluster for the session, to restore into: it has no topic but those restored. Don't stop it."""
    with KafkaServer(engines_dir / "kafka-target", kafka_jars) as server:
        server.start()
        yield server


@pytest.fixture
def kafka_server(engine_dir: Path, kafka_jars: KafkaJars) -> Iterator[Callable[..., KafkaServer]]:
    """`kafka_server(**options)`: a started broker of the test's own, to stop and kill; dear, some seconds each."""
    with ExitStack() as stack:

        def make(*, start: bool = True, **options: Any) -> KafkaServer:
            server = KafkaServer(engine_dir / f"kafka-{secrets.token_hex(3)}", kafka_jars, **options)
            stack.enter_context(server)
            if start:
                server.start()
            return server

        yield make


@pytest.fixture
def noida(engine_dir: Path, lacks: Callable[[str], None]) -> Iterator[NoidaServer]:
    """An emulator of the test's own."""
    try:
        program = find_noida()
    except PolicyError as error:
        lacks(str(error))
        raise
    with NoidaServer(engine_dir / "noida", program) as server:
        server.start()
        yield server


@pytest.fixture(scope="session")
def kcat(lacks: Callable[[str], None]) -> Path:
    """The program kcat."""
    found = shutil.which("kcat")
    if found is None:
        lacks("the program kcat is not on PATH (apt-get install kcat)")
        raise AssertionError
    return Path(found)


@pytest.fixture
def topic(kafka: KafkaServer) -> Iterator[Callable[..., str]]:
    """`topic(partitions=1, configs={...}, name="orders")`: a new topic's name, unique, deleted after the test."""
    admin = AdminClient(kafka.client_config())
    made: list[str] = []

    def make(partitions: int = 1, configs: Mapping[str, str] | None = None, name: str = "topic") -> str:
        unique = f"{name}-{secrets.token_hex(5)}"
        wanted = NewTopic(unique, num_partitions=partitions, replication_factor=1, config=dict(configs or {}))
        make_topic(admin, wanted)
        made.append(unique)
        return unique

    yield make
    if made:
        for future in admin.delete_topics(made).values():
            # A test may have deleted or recreated its topic itself.
            future.exception(ANSWER_S)
