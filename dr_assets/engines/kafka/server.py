"""A throwaway Apache Kafka: one node that is broker and controller (KRaft), or a broker that joins one, on loopback.

What belongs here: one node's life (format, start, ready, stop, crash, restart on the same data), its doors and users,
running its own tools. What stays out: topics and records, and production: its secrets lie in a file of its own.

It always has an open PLAINTEXT door, by which it talks to itself; whoever comes through it is ANONYMOUS and may do
everything. Beside it there may be SSL, SASL_PLAINTEXT and SASL_SSL, each on a port of its own.
"""

import base64
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.jars import KafkaJars
from dr_assets.engines.kafka.life import Life
from dr_assets.engines.placement import engine_home, engine_user, give
from dr_assets.engines.ports import LOOPBACK, free_ports, is_free, start_on_free_ports
from dr_assets.engines.supervise import Child, run_child, start_child
from dr_assets.engines.throwaway_ca import make_certificates, write_authority
from dr_assets.engines.waiting import wait_until

Setting = str | int | bool
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

MECHANISMS: Final[tuple[Mechanism, ...]] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_CONTROLLER: Final = "CONTROLLER"
_STARTED: Final = b"Kafka Server started"
# What a node says of a port that it did not get: the broker's doors, then the controller's.
_LOST_PORT: Final = (b"Address already in use", b"BindException", b"Socket server failed to bind")
# A throwaway broker starts faster than it runs: C1 code only, one collector thread, no files in /tmp.
JVM_QUICK: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_JVM: Final = ("-XX:-UsePerfData", "-Djava.awt.headless=true")
_TOOL_JVM: Final = ("-Xmx256m", *JVM_QUICK, *_JVM)
_DEFAULTS: Final[dict[str, Setting]] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": _CONTROLLER,
    "inter.broker.listener.name": "PLAINTEXT",
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "group.initial.rebalance.delay.ms": 0,
    # After a crash the controller lets nobody in under our number until the last life's session has run out.
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 5000,
    # A misspelt topic is a bug of a test's, not a topic.
    "auto.create.topics.enable": False,
    # Retention and compaction at once: as they come they wait for half a minute, then for five.
    "log.initial.task.delay.ms": 500,
    "log.retention.check.interval.ms": 1000,
    "log.cleaner.backoff.ms": 500,
    "log.segment.delete.delay.ms": 1000,
    "log.cleaner.dedupe.buffer.size": 16_777_216,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": True,
    "super.users": "User:ANONYMOUS",
    "sasl.enabled.mechanisms": ",".join(MECHANISMS),
}
_LOG4J: Final = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.target={target}
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{{yyyy-MM-dd'T'HH:mm:ss,SSS}} %p %m (%c)%n
rootLogger.level={level}
rootLogger.appenderRef.out.ref=out
# It lists every setting it has, passwords hidden, several times at each start.
logger.config.name=org.apache.kafka.common.config.AbstractConfig
logger.config.level=WARN
"""


class KafkaServer(Life):
    """One node on loopback; leaving the context crashes it (a throwaway broker has nothing to finish).

    `protocols` are the doors wanted beside PLAINTEXT; `users` (name -> password) may come through the SASL ones by
    PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. With an SSL door clients must believe the certificate in `ca_file`.
    `settings` replace single broker settings. With `joins` it is a broker only, number `node_id` of the cluster whose
    controller that node is; that one has to have been started, and runs for as long as leaders are to be chosen. Doors
    and cluster id stay the same over restarts, also for a new KafkaServer around the same `data_dir`; that may come out
    elsewhere than asked for (see placement), and `notes` says why.
    """

    stop_grace_s = 60.0

    def __init__(
        self,
        data_dir: Path,
        jars: KafkaJars,
        *,
        name: str = "",
        protocols: Sequence[Protocol] = (),
        users: Mapping[str, str] | None = None,
        settings: Mapping[str, Setting] | None = None,
        heap_mib: int = 512,
        jvm_options: Sequence[str] = JVM_QUICK,
        joins: "KafkaServer | None" = None,
        node_id: int = 1,
    ) -> None:
        self.user = engine_user()
        place = engine_home(data_dir.parent, self.user)
        self.data_dir = place.path / data_dir.name
        self.run_dir = place.path / f"{data_dir.name}.run"
        self.jars = jars.reachable(self.user)
        self.notes = [note for note in (place.why, self.jars.note) if note]
        self.name = name or data_dir.name
        self.users = dict(users or {})
        self.joins = joins
        role: dict[str, Setting] = {} if joins is None else {"process.roles": "broker"}
        self.settings: dict[str, Setting] = {**_DEFAULTS, **role, "node.id": node_id, **(settings or {})}
        self.protocols: tuple[Protocol, ...] = ("PLAINTEXT", *(one for one in protocols if one != "PLAINTEXT"))
        self.ca_file = self.run_dir / "ca.pem" if any("SSL" in one for one in self.protocols) else None
        self.log_path = self.run_dir / "kafka.log"
        self.child: Child | None = None
        self._jvm = (f"-Xms{min(heap_mib, 256)}m", f"-Xmx{heap_mib}m", *jvm_options, *_JVM)
        self.ports, self._ports_fixed = self._known_ports()

    # -- what it is -------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Product and version, for evidence and benchmark rows."""
        return f"Apache Kafka {self.jars.version}"

    @property
    def bootstrap(self) -> str:
        """The open door's address."""
        return self.address("PLAINTEXT")

    def address(self, protocol: Protocol) -> str:
        """One door's address, host:port."""
        return f"{LOOPBACK}:{self.ports[protocol]}"

    def client_config(
        self, protocol: Protocol = "PLAINTEXT", user: str = "", mechanism: Mechanism = "SCRAM-SHA-256"
    ) -> dict[str, str]:
        """What a librdkafka client (confluent-kafka, kcat) wants to come through a door; holds the user's password."""
        config = {"bootstrap.servers": self.address(protocol), "security.protocol": protocol}
        if "SSL" in protocol:
            config["ssl.ca.location"] = str(self.ca_file)
        if "SASL" in protocol:
            name = user or next(iter(self.users))
            config |= {"sasl.mechanism": mechanism, "sasl.username": name, "sasl.password": self.users[name]}
        return config

    @property
    def cluster_id(self) -> str:
        """The id that the node was formatted with, as Kafka writes it (base64url of 16 bytes)."""
        lines = self.data_dir.joinpath("meta.properties").read_text().splitlines()
        return next(line.partition("=")[2].replace("\\", "") for line in lines if line.startswith("cluster.id="))

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, *, timeout_s: float = 180.0) -> None:
        """Format the node if it is new, start it and wait until it serves clients.

        A port that another process took meanwhile is picked anew, until a first start has fixed it. Raises
        EngineError `engine.did_not_start` with the tail of the log.
        """
        assert not self.running, f"{self.name} runs already"  # noqa: S101 - a bug of ours if it fails
        self._prepare()
        begin = 0

        def start() -> None:
            nonlocal begin
            begin = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._launch()
            self._wait_ready(begin, timeout_s)

        start_on_free_ports(start, self.kill, lambda: self._moved(begin))
        self._ports_fixed = True
        self._publish("ports.json", json.dumps(self.ports))

    # -- its own tools ----------------------------------------------------------------------------------------------

    def tool_command(self, main_class: str, *args: str | Path) -> list[str]:
        """The command line of one of Kafka's own programs, say `org.apache.kafka.tools.ConsoleProducer`.

        For who wants to feed it; errors only are logged, on the standard error.
        """
        log4j = f"-Dlog4j2.configurationFile={self.run_dir / 'log4j2-tools.properties'}"
        command = [self.jars.java, *_TOOL_JVM, log4j, "-cp", self._class_path, main_class, *args]
        return [str(part) for part in command]

    def run_tool(
        self, main_class: str, *args: str | Path, check: bool = True, timeout_s: float = 300.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of Kafka's own programs as the engine's user; raises EngineError `engine.tool_failed`."""
        result = run_child(
            self.tool_command(main_class, *args),
            cwd=self.run_dir,
            env=self._environment(),
            user=self.user,
            timeout_s=timeout_s,
        )
        if check and result.returncode != 0:
            said = (result.stderr or result.stdout).strip()[-2000:]
            for password in self.users.values():
                said = said.replace(password, "***")  # a tool that is told of users may repeat its command line
            raise EngineError(
                "engine.tool_failed",
                f"{main_class} returned {result.returncode}: {said}",
                f"the node is {self.name}, {self.describe()}",
            )
        return result

    # -- within -----------------------------------------------------------------------------------------------------

    @property
    def _class_path(self) -> str:
        return f"{self.jars.libs}/*"

    @property
    def _formatted(self) -> bool:
        return self.data_dir.joinpath("meta.properties").exists()

    def _known_ports(self) -> tuple[dict[str, int], bool]:
        """The ports that an earlier start around this data fixed, or new ones."""
        known = self.run_dir / "ports.json"
        if known.exists() and self._formatted:
            ports = json.loads(known.read_text())
            added = _pick_ports(one for one in self.protocols if one not in ports)
            return {**added, **ports}, True
        return _pick_ports(self.protocols), False

    def _prepare(self) -> None:
        self.run_dir.mkdir(mode=0o711, exist_ok=True)
        self.run_dir.chmod(0o711)
        scratch = self.run_dir / "tmp"
        scratch.mkdir(mode=0o700, exist_ok=True)
        give(scratch, self.user)
        self._publish("log4j2.properties", _LOG4J.format(target="SYSTEM_OUT", level="INFO"))
        self._publish("log4j2-tools.properties", _LOG4J.format(target="SYSTEM_ERR", level="ERROR"))
        if self.ca_file and not self.ca_file.exists():
            authority, certificate, private_key = make_certificates(self.name)
            self._publish("server.pem", (private_key + certificate).decode(), mode=0o600)
            write_authority(self.ca_file, authority)
        self._publish("server.properties", self._properties(), mode=0o600)
        if not self._formatted:
            self._format()

    def _format(self) -> None:
        """Make the node's log folder, with every user's SCRAM credentials: so they are there from its first moment."""
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        give(self.data_dir, self.user)
        cluster_id = _new_cluster_id() if self.joins is None else self.joins.cluster_id
        credentials = [
            f"{mechanism}=[name={user},password={password}]"
            for user, password in self.users.items()
            for mechanism in MECHANISMS
            if mechanism != "PLAIN"
        ]
        self.run_tool(
            "kafka.tools.StorageTool",
            *("format", "--cluster-id", cluster_id, "--config", self.run_dir / "server.properties"),
            *(("--standalone",) if self.joins is None else ()),
            *(argument for one in credentials for argument in ("--add-scram", one)),
        )

    def _properties(self) -> str:
        """The node's settings; the doors' come last, so that `settings` cannot take them away from us."""
        doors = {**{str(one): one for one in self.protocols}, _CONTROLLER: "PLAINTEXT"}
        own = [door for door in doors if self.joins is None or door != _CONTROLLER]
        ours: dict[str, Setting] = {
            "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{(self.joins or self).ports[_CONTROLLER]}",
            "listeners": ",".join(f"{door}://{LOOPBACK}:{self.ports[door]}" for door in own),
            "advertised.listeners": ",".join(f"{one}://{self.address(one)}" for one in self.protocols),
            "listener.security.protocol.map": ",".join(f"{door}:{kind}" for door, kind in doors.items()),
            "log.dirs": str(self.data_dir),
        }
        if self.ca_file:
            ours |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(self.run_dir / "server.pem")}
        modules = "org.apache.kafka.common.security"
        known = "".join(f' user_{user}="{password}"' for user, password in self.users.items())
        for protocol in self.protocols:
            if "SASL" in protocol:
                door = f"listener.name.{protocol.lower()}"
                ours[f"{door}.plain.sasl.jaas.config"] = f"{modules}.plain.PlainLoginModule required{known};"
                for mechanism in ("scram-sha-256", "scram-sha-512"):
                    ours[f"{door}.{mechanism}.sasl.jaas.config"] = f"{modules}.scram.ScramLoginModule required;"
        return "".join(f"{key}={_written(value)}\n" for key, value in {**self.settings, **ours}.items() if value != "")

    def _launch(self) -> None:
        log4j = f"-Dlog4j2.configurationFile={self.run_dir / 'log4j2.properties'}"
        scratch = f"-Djava.io.tmpdir={self.run_dir / 'tmp'}"
        node = ("-cp", self._class_path, "kafka.Kafka", str(self.run_dir / "server.properties"))
        self.child = start_child(
            [self.jars.java, *self._jvm, log4j, scratch, *node],
            cwd=self.run_dir,
            env=self._environment(),
            log_path=self.log_path,
            user=self.user,
            grace_s=2.0,
        )

    def _wait_ready(self, begin: int, timeout_s: float) -> None:
        """Wait until this very node says that it has started; asking its port might reach another one's."""
        child = self.child
        assert child is not None, "the broker was not started"  # noqa: S101 - a bug of ours if it fails
        try:
            wait_until(
                lambda: not child.alive or self._logged(begin, _STARTED),
                timeout_s=timeout_s,
                what=f"{self.name} serving clients",
                every_s=0.05,
            )
        except EngineError as error:
            raise self._did_not_start(error.found) from None
        if not child.alive:
            raise self._did_not_start(f"{self.name} ended with return code {child.poll()}")

    def _logged(self, begin: int, *words: bytes) -> bool:
        with self.log_path.open("rb") as log:
            log.seek(begin)
            written = log.read()
        return any(word in written for word in words)

    def _moved(self, begin: int) -> bool:
        """Take other ports if another process has one of ours; never once a first start has fixed them."""
        if self._ports_fixed:
            return False
        if not self._logged(begin, *_LOST_PORT) and all(is_free(port) for port in self.ports.values()):
            return False
        # The controller's address is part of what was formatted; there is nothing else in it yet.
        shutil.rmtree(self.data_dir)
        self.ports = _pick_ports(self.protocols)
        self._prepare()
        return True

    def _publish(self, name: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file that the engine's user reads; with mode 0600 nobody else does."""
        path = self.run_dir / name
        path.unlink(missing_ok=True)
        path.touch(mode=mode)
        path.write_text(text)
        path.chmod(mode)
        if mode == 0o600:  # noqa: PLR2004 - the one mode that shuts the engine's user out
            give(path, self.user)

    def _environment(self) -> dict[str, str]:
        """Nothing of ours: environments hold secrets."""
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(self.run_dir)}


def _new_cluster_id() -> str:
    while True:
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        if not cluster_id.startswith("-"):  # its own command line would take that for an option
            return cluster_id


def _pick_ports(protocols: Iterable[Protocol]) -> dict[str, int]:
    """A port for each door and one for the controller."""
    doors = (*protocols, _CONTROLLER)
    return dict(zip(doors, free_ports(len(doors)), strict=True))


def _written(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
