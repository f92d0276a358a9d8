"""Throwaway Kafka brokers: their doors, their life, and the choice between them."""

import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.kafka.jars import SETTING, KafkaJars, find_jars, find_java
from dr_assets.engines.kafka.noida import NoidaServer
from dr_assets.engines.kafka.server import MECHANISMS, KafkaServer, Mechanism, Protocol
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError

WAIT_S = 180.0
DOORS: list[tuple[Protocol, Mechanism]] = [
    ("PLAINTEXT", "PLAIN"),
    ("SSL", "PLAIN"),
    *(("SASL_PLAINTEXT", mechanism) for mechanism in MECHANISMS),
    *(("SASL_SSL", mechanism) for mechanism in MECHANISMS),
]


def produce(config: dict[str, str], topic: str, *values: bytes) -> list[int]:
    """Produce to partition 0 and return the offsets that the broker acknowledged."""
    offsets: list[int] = []

    def delivered(error: object, message: object) -> None:
        assert error is None
        offsets.append(message.offset())

    producer = Producer({**config, "acks": "all", "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=delivered)
    assert producer.flush(WAIT_S) == 0
    return offsets


def end_offset(config: dict[str, str], topic: str) -> int:
    """The end of partition 0."""
    consumer = Consumer({**config, "group.id": "ends", "log_level": 0})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT_S)[1])
    finally:
        consumer.close()


@pytest.mark.parametrize(("protocol", "mechanism"), DOORS)
def test_every_door_lets_its_user_in(
    kafka: KafkaServer, topic: Callable[..., str], protocol: Protocol, mechanism: Mechanism
) -> None:
    """A client that believes the authority, with a user's password, writes through each door by each mechanism."""
    name = topic()
    assert produce(kafka.client_config(protocol, "bob", mechanism), name, b"one", b"two") == [0, 1]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_stays_outside(kafka: KafkaServer, mechanism: Mechanism) -> None:
    """Nobody comes through a SASL door with another password."""
    errors: list[KafkaError] = []
    config = {**kafka.client_config("SASL_SSL", "alice", mechanism), "sasl.password": "guessed"}
    producer = Producer({**config, "error_cb": errors.append, "log_level": 0})
    wait_until(
        lambda: bool(producer.poll(0.1)) or any(error.code() == KafkaError._AUTHENTICATION for error in errors),
        timeout_s=WAIT_S,
        what="the refusal",
    )
    with pytest.raises(KafkaException):
        producer.list_topics(timeout=1)


def test_acknowledged_records_outlive_a_crash(kafka_server: Callable[..., KafkaServer]) -> None:
    """After kill -9 a server made anew around the same data has everything acknowledged, at the same address and id.

    Only the engine's user can read its secrets.
    """
    server = kafka_server(protocols=("SASL_PLAINTEXT",), users={"carol": "carols-own-password"})
    admin = AdminClient({**server.client_config(), "log_level": 0})
    admin.create_topics([NewTopic("kept", 1)])["kept"].result(WAIT_S)
    produce(server.client_config("SASL_PLAINTEXT"), "kept", *(b"%d" % n for n in range(100)))
    before = (server.ports, server.cluster_id)
    server.kill()
    with KafkaServer(server.data_dir, server.jars, protocols=("SASL_PLAINTEXT",), users=server.users) as again:
        again.start()
        assert (again.ports, again.cluster_id) == before
        assert end_offset(again.client_config("SASL_PLAINTEXT", "carol"), "kept") == 100
    assert stat.S_IMODE((server.run_dir / "server.properties").stat().st_mode) == 0o600


def test_a_port_taken_meanwhile_is_picked_anew(kafka_server: Callable[..., KafkaServer], kafka: KafkaServer) -> None:
    """A first start whose port somebody else has by now finds another one; a fixed port is never given up."""
    server = kafka_server(start=False)
    server.ports["PLAINTEXT"] = kafka.ports["PLAINTEXT"]
    server.start()
    assert server.ports["PLAINTEXT"] != kafka.ports["PLAINTEXT"]
    assert AdminClient(server.client_config()).list_topics(timeout=WAIT_S).cluster_id == server.cluster_id
    server.kill()
    server.ports["PLAINTEXT"] = kafka.ports["PLAINTEXT"]
    with pytest.raises(EngineError, match=r"engine\.did_not_start"):
        server.start()


def test_a_start_that_fails_tells_the_log_but_no_password(kafka_server: Callable[..., KafkaServer]) -> None:
    """The error of a broker that could not start ends with its own words, and holds no user's password."""
    password = "a-password-that-must-not-show"
    server = kafka_server(start=False, users={"dave": password}, settings={"log.retention.ms": "soon"})
    with pytest.raises(EngineError) as caught:
        server.start()
    assert "log.retention.ms" in str(caught.value)
    assert password not in str(caught.value)


def test_a_tool_of_its_own(kafka: KafkaServer, topic: Callable[..., str]) -> None:
    """Kafka's own programs run from the same jars, and one that fails says why."""
    name = topic(partitions=2)
    produce(kafka.client_config(), name, b"x")
    printed = kafka.run_tool(
        "org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", kafka.bootstrap, "--topic", name
    )
    assert sorted(printed.stdout.split()) == [f"{name}:0:1", f"{name}:1:0"]
    with pytest.raises(EngineError, match=r"engine\.tool_failed"):
        kafka.run_tool("org.apache.kafka.tools.GetOffsetShell", "--no-such-option")


def test_the_emulator_has_the_same_life(noida: NoidaServer) -> None:
    """What an orderly stop of the emulator leaves is there after a start, at the same address."""
    admin = AdminClient({**noida.client_config(), "log_level": 0})
    admin.create_topics([NewTopic("kept", 1)])["kept"].result(WAIT_S)
    produce(noida.client_config(), "kept", b"one", b"two")
    before = noida.bootstrap
    noida.restart()
    assert noida.bootstrap == before
    assert end_offset(noida.client_config(), "kept") == 2
    assert noida.describe().startswith("noida-db ")


def test_the_choice_tells_its_reason(kafka_jars: KafkaJars, noida: NoidaServer) -> None:
    """Apache Kafka where it can be had; else the emulator, with what lacked; with neither, both reasons."""
    assert noida.program
    found = find_broker()
    assert (found.kind, kafka_jars.version in found.why) == ("apache", True)
    assert find_broker("noida").kind == "noida"
    instead = find_broker(env={"PATH": "", "HOME": "/"})
    assert instead.kind == "noida"
    assert "no Java 17 or newer found" in instead.why
    with pytest.raises(PolicyError, match=r"engine\.no_broker.*no Java.*no program noida-db"):
        find_broker(env={"PATH": "", "DR_ASSETS_NOIDA": "/nowhere/noida-db"})


def test_what_lacks_is_named(tmp_path: Path, kafka_jars: KafkaJars) -> None:
    """No Java, no Maven, a setting that points nowhere, jars that nobody has got yet: each is said, with what helps."""
    java = str(find_java()[0].parent)
    cache = {"XDG_CACHE_HOME": str(tmp_path), "PATH": java}
    with pytest.raises(PolicyError, match=r"engine\.no_java"):
        find_jars({"PATH": ""})
    with pytest.raises(PolicyError, match=r"engine\.no_jars.*mvn is not on PATH"):
        find_jars({**cache, "PATH": _only(tmp_path, "java")})
    with pytest.raises(PolicyError, match=r"engine\.no_jars.*not in .* yet"):
        find_jars(cache, resolve=False)
    with pytest.raises(PolicyError, match=r"engine\.bad_setting"):
        find_jars({**cache, SETTING: str(tmp_path)})
    assert find_jars({**cache, SETTING: str(kafka_jars.libs)}).origin == "setting"


def _only(tmp_path: Path, program: str) -> str:
    """A PATH on which there is nothing but that program."""
    folder = tmp_path / f"only-{program}"
    folder.mkdir()
    folder.joinpath(program).symlink_to(shutil.which(program) or "/nowhere")
    return str(folder)


def test_two_that_want_the_jars_get_them_once(tmp_path: Path) -> None:
    """Of several processes at once one runs Maven and the others wait for what it gets; a failure leaves nothing."""
    fake = tmp_path / "bin"
    fake.mkdir()
    fake.joinpath("java").symlink_to(find_java()[0])
    maven = fake / "mvn"
    maven.write_text(
        "#!/bin/sh\n"
        f'echo run >>"{tmp_path}/runs"\n'
        'for word; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done\n'
        'sleep 1; mkdir -p "$out"; : >"$out/kafka_2.13-9.9.9.jar"\n'
    )
    maven.chmod(0o755)
    env = {"PATH": f"{fake}:{os.defpath}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(find_jars, [env] * 3)
    assert {jars.version for jars in found} == {"9.9.9"}
    assert (tmp_path / "runs").read_text().split() == ["run"]
    maven.write_text("#!/bin/sh\necho it has no network >&2\nexit 1\n")
    env["XDG_CACHE_HOME"] = str(tmp_path / "other")
    with pytest.raises(EngineError, match=r"engine\.no_resolution.*it has no network"):
        find_jars(env)
    assert [path.suffix for path in (tmp_path / "other" / "dr-assets").iterdir()] == [".lock"]
