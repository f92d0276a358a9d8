"""A Kafka cluster as we see it: who leads what, and each question put to the broker that can answer it.

What belongs here: routing to leaders, coordinators and the controller; trying again where a leader moved or a broker
is away; metadata, offsets and raw fetches as values of ours. What stays out: one connection (line.py), producing
(produce.py), configuration, groups and ACLs (admin.py).

Decision 0140 says why connections are our own and which part of kafka-python is used.
"""

import base64
import binascii
import copy
import hashlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from kafka.protocol.api_message import ApiMessage
from kafka.protocol.consumer import ListOffsetsRequest, OffsetForLeaderEpochRequest
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.kafka.line import PLAINTEXT, Address, Line, Security
from dr_assets.stores.kafka.refusals import COORDINATOR_MOVED, TRANSIENT, UNKNOWN_TOPIC, BrokerError

EARLIEST: Final = -2
LATEST: Final = -1
_AWAY: Final = frozenset({"kafka.unreachable", "kafka.timeout"})
_BACKOFF_BEGIN_S: Final = 0.05
_BACKOFF_END_S: Final = 1.0
_CONNECT_S: Final = 10.0
_OLDEST_METADATA: Final = 10  # the first with topic ids
_COORDINATORS: Final = {"group": 0, "transaction": 1}

Place = tuple[str, int]  # a topic's name and a partition of it


@dataclass(frozen=True, slots=True)
class Partition:
    """Who leads a partition, -1 while nobody does."""

    index: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is now. `topic_id` is 32 hex: a topic that was deleted and made again has another one."""

    name: str
    topic_id: str
    is_internal: bool
    partitions: tuple[Partition, ...]

    @property
    def replication_factor(self) -> int:
        """How many brokers hold each partition."""
        return max((len(each.replicas) for each in self.partitions), default=0)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The cluster at one moment: brokers by node id, topics by name. `at_s` is the monotonic clock's when asked."""

    cluster_id: str
    controller: int
    brokers: Mapping[int, Address]
    topics: Mapping[str, Topic]
    at_s: float = field(compare=False, default=0.0)


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """Where a leader epoch ends in a leader's log: records from `end_offset` on were written under a later one."""

    leader_epoch: int
    end_offset: int


def system_id_of(cluster_id: str) -> str:
    """A cluster id as 32 hex: Kafka's own are UUIDs in base64, anything else is hashed."""
    try:
        raw = base64.urlsafe_b64decode(cluster_id + "=" * (-len(cluster_id) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    return raw.hex() if len(raw) == 16 else hashlib.sha256(cluster_id.encode()).hexdigest()[:32]  # noqa: PLR2004 - a UUID


def parse_bootstrap(text: str) -> tuple[Address, ...]:
    """`host:port,host:port`; raises PolicyError `kafka.bootstrap`."""
    addresses = []
    for part in (each.strip() for each in text.split(",") if each.strip()):
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal():
            raise PolicyError("kafka.bootstrap", f"'{part[:80]}' is no host:port", "write host:port,host:port")
        addresses.append(Address(host.strip("[]"), int(port)))
    if not addresses:
        raise PolicyError("kafka.bootstrap", "no broker is named", "write host:port,host:port")
    return tuple(addresses)


class Cluster:
    """One cluster; threads may share it. Its lines are for questions: who waits at a broker for long gets its own.

    Every method may raise SourceError: `kafka.unreachable` and `kafka.timeout` when no broker answered within
    `patience_s`, `kafka.auth`, `kafka.tls`, `kafka.denied`, `kafka.refused` (BrokerError), `kafka.unsupported`.
    """

    def __init__(self, bootstrap: tuple[Address, ...], security: Security, *, patience_s: float) -> None:
        self._bootstrap = bootstrap
        self._security = security
        self.patience_s = patience_s
        self._mutex = threading.Lock()
        self._lines: dict[Address, Line] = {}
        self._brokers: dict[int, Address] = {}
        self._topics: dict[str, Topic] = {}
        self._controller = -1
        self._coordinators: dict[tuple[str, str], int] = {}
        self.cluster_id = ""

    @classmethod
    def connect(cls, bootstrap: str, security: Security = PLAINTEXT, *, patience_s: float = 30.0) -> "Cluster":
        """A cluster that was reached through one of `bootstrap` (`host:port,host:port`)."""
        cluster = cls(parse_bootstrap(bootstrap), security, patience_s=patience_s)
        try:
            cluster.metadata(())
        except BaseException:
            cluster.close()
            raise
        return cluster

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def system_id(self) -> str:
        """The cluster id as object names hold it: 32 hex."""
        return system_id_of(self.cluster_id)

    def close(self) -> None:
        """End all connections that are shared."""
        with self._mutex:
            lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            line.close()

    def with_patience(self, patience_s: float) -> "Cluster":
        """The same cluster over the same lines, for who asks again anyway and must be able to stop soon."""
        other = copy.copy(self)
        other.patience_s = patience_s
        return other

    def own_line(self, node: int, *, timeout_s: float = 30.0) -> Line:
        """A new connection to a broker for whoever waits there, or keeps an order; the caller closes it."""
        address = self._brokers.get(node)
        if address is None:
            raise _unknown_node(node)
        return Line(address, self._security, timeout_s=timeout_s)

    # -- metadata ---------------------------------------------------------------------------------------------------

    def metadata(self, topics: Sequence[str] | None = None) -> Metadata:
        """What the cluster says of `topics` (None: of all), asked now. A topic that is not there is left out.

        Never makes a topic. Remembered for routing.
        """
        wanted = None if topics is None else [
            MetadataRequest.MetadataRequestTopic(name=name, topic_id=None) for name in topics
        ]  # fmt: skip
        at_s = time.monotonic()
        response = self.ask(lambda: MetadataRequest(
            topics=wanted, allow_auto_topic_creation=False, include_topic_authorized_operations=False,
            min_version=_OLDEST_METADATA,
        ))  # fmt: skip
        found = _metadata(response, at_s)
        with self._mutex:
            self.cluster_id = found.cluster_id
            self._controller = found.controller
            self._brokers = dict(found.brokers)
            self._topics = {**({} if topics is None else self._topics), **found.topics}
            for name in topics or ():
                if name not in found.topics:
                    self._topics.pop(name, None)
        return found

    @property
    def controller(self) -> int:
        """The node that changes what the cluster is, as last heard; with KRaft any broker passes it on."""
        return self._controller

    def leader_of(self, topic: str, partition: int) -> int:
        """The node that leads a partition, as last heard; -1 when none is known: ask `metadata` anew."""
        known = self._topics.get(topic)
        found = [each for each in known.partitions if each.index == partition] if known else []
        return found[0].leader if found else -1

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[], ApiMessage], node: int | None = None, *, timeout_s: float | None = None) -> Any:
        """The answer of one node, or of any; asked again for as long as brokers are away.

        `make` gives a fresh request for each try, so only for what may be asked twice.
        """
        deadline_s = time.monotonic() + self.patience_s
        for backoff_s in _backoffs():
            try:
                return self._line(node).call(make(), timeout_s=timeout_s)
            except SourceError as error:
                if error.code not in _AWAY or time.monotonic() + backoff_s > deadline_s:
                    raise
            time.sleep(backoff_s)
        raise AssertionError  # the backoffs never end

    def ask_once(self, request: ApiMessage, node: int | None = None, *, timeout_s: float | None = None) -> Any:
        """The answer to what must not be asked twice; after an error it is not known whether it was done."""
        return self._line(node).call(request, timeout_s=timeout_s)

    def ask_coordinator(
        self,
        kind: Literal["group", "transaction"],
        key: str,
        make: Callable[[], ApiMessage],
        errors_of: Callable[[Any], Iterable[int]],
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """The answer of the node that coordinates a group or a transactional id, looked for anew when it moved.

        `errors_of` picks the error codes out of an answer; with one that says "moved" or "loading" it is asked again.
        """
        deadline_s = time.monotonic() + self.patience_s
        for backoff_s in _backoffs():
            try:
                node = self.coordinator_of(kind, key)
                response = self._line(node).call(make(), timeout_s=timeout_s)
            except SourceError as error:
                transient = isinstance(error, BrokerError) and error.is_transient
                if (error.code not in _AWAY and not transient) or time.monotonic() + backoff_s > deadline_s:
                    raise
            else:
                if not COORDINATOR_MOVED.intersection(errors_of(response)) or time.monotonic() > deadline_s:
                    return response
            self._coordinators.pop((kind, key), None)
            time.sleep(backoff_s)
        raise AssertionError  # the backoffs never end

    def coordinator_of(self, kind: Literal["group", "transaction"], key: str) -> int:
        """The node that coordinates it, as last heard or asked now. Raises BrokerError too."""
        known = self._coordinators.get((kind, key))
        if known is not None and known in self._brokers:
            return known
        response = self.ask(lambda: FindCoordinatorRequest(
            key=key, key_type=_COORDINATORS[kind], coordinator_keys=[key]
        ))  # fmt: skip
        found = response.coordinators[0] if response.API_VERSION >= 4 else response  # noqa: PLR2004 - KIP-699
        if found.error_code:
            raise BrokerError(found.error_code, f"the coordinator of {kind} {key}")
        if found.node_id not in self._brokers:
            self.metadata(())
        self._coordinators[(kind, key)] = found.node_id
        return int(found.node_id)

    def forget_coordinator(self, kind: Literal["group", "transaction"], key: str) -> None:
        """Look for it anew the next time."""
        self._coordinators.pop((kind, key), None)

    def _line(self, node: int | None) -> Line:
        if node is None or node < 0:
            known = list(self._brokers.values()) or list(self._bootstrap)
            address = random.choice([*known, random.choice(self._bootstrap)])  # noqa: S311 - any broker will do
        elif node in self._brokers:
            address = self._brokers[node]
        else:
            raise _unknown_node(node)
        with self._mutex:
            line = self._lines.get(address)
            if line is None:
                line = self._lines[address] = Line(address, self._security, timeout_s=min(self.patience_s, _CONNECT_S))
            return line

    # -- by leader --------------------------------------------------------------------------------------------------

    def by_leader(
        self, places: Iterable[Place], ask: Callable[[int, list[Place]], Mapping[Place, int]], what: str
    ) -> None:
        """Ask the leaders of all `places`; those for which `ask` tells a transient error are asked again elsewhere.

        `ask(node, places)` does one broker's part and tells the error code of each place, 0 for well done.
        """
        open_, deadline_s = list(dict.fromkeys(places)), time.monotonic() + self.patience_s
        for backoff_s in _backoffs():
            if any(self.leader_of(*place) < 0 for place in open_):
                self.metadata(sorted({topic for topic, _ in open_}))
            errors, left = self._ask_leaders(open_, ask), []
            for place in open_:
                errno = errors.get(place, 0)
                if errno and (errno not in TRANSIENT or time.monotonic() + backoff_s > deadline_s):
                    raise BrokerError(errno, f"{what} of {place[0]}/{place[1]}")
                if errno:
                    left.append(place)
            if not left:
                return
            open_ = left
            time.sleep(backoff_s)
            self.metadata(sorted({topic for topic, _ in open_}))

    def _ask_leaders(
        self, places: list[Place], ask: Callable[[int, list[Place]], Mapping[Place, int]]
    ) -> dict[Place, int]:
        errors: dict[Place, int] = {}
        by_node: dict[int, list[Place]] = {}
        for place in places:
            by_node.setdefault(self.leader_of(*place), []).append(place)
        for node, own in by_node.items():
            if node < 0:
                missing = [place for place in own if place[0] not in self._topics]
                errors |= dict.fromkeys(own, 5) | dict.fromkeys(missing, UNKNOWN_TOPIC)
                continue
            try:
                errors |= ask(node, own)
            except SourceError as error:
                if error.code not in _AWAY:
                    raise
                errors |= dict.fromkeys(own, 8)  # not there: whoever leads now is looked for
        return errors

    def list_offsets(self, places: Iterable[Place], timestamp: int, *, committed: bool = False) -> dict[Place, int]:
        """The offset of each place for a timestamp in ms, EARLIEST or LATEST; -1 where no record is that young.

        `committed`: LATEST is where the oldest open transaction begins.
        """
        found: dict[Place, int] = {}

        def ask(node: int, own: list[Place]) -> dict[Place, int]:
            request = ListOffsetsRequest(
                replica_id=-1, isolation_level=int(committed), timeout_ms=10_000,
                topics=[
                    ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=[
                        ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(
                            partition_index=index, current_leader_epoch=-1, timestamp=timestamp
                        ) for index in indices
                    ]) for topic, indices in by_topic(own).items()
                ],
            )  # fmt: skip
            errors: dict[Place, int] = {}
            for topic in self._line(node).call(request).topics:
                for each in topic.partitions:
                    errors[(topic.name, each.partition_index)] = each.error_code
                    if not each.error_code:
                        found[(topic.name, each.partition_index)] = each.offset
            return errors

        self.by_leader(places, ask, "the offsets")
        return found

    def epoch_ends(self, epochs: Mapping[Place, int]) -> dict[Place, EpochEnd]:
        """Where each place's leader ends the newest epoch at or before the given one; epoch -1: it knows of none."""
        found: dict[Place, EpochEnd] = {}

        def ask(node: int, own: list[Place]) -> dict[Place, int]:
            kind = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
            request = OffsetForLeaderEpochRequest(
                replica_id=-1,
                topics=[
                    kind(topic=topic, partitions=[
                        kind.OffsetForLeaderPartition(
                            partition=index, current_leader_epoch=-1, leader_epoch=epochs[(topic, index)]
                        ) for index in indices
                    ]) for topic, indices in by_topic(own).items()
                ],
            )  # fmt: skip
            errors: dict[Place, int] = {}
            for topic in self._line(node).call(request).topics:
                for each in topic.partitions:
                    errors[(topic.topic, each.partition)] = each.error_code
                    if not each.error_code:
                        found[(topic.topic, each.partition)] = EpochEnd(each.leader_epoch, each.end_offset)
            return errors

        self.by_leader(epochs, ask, "the leader epochs")
        return found


def by_topic(places: Iterable[Place]) -> dict[str, list[int]]:
    """Partitions by topic, as requests hold them."""
    grouped: dict[str, list[int]] = {}
    for topic, index in places:
        grouped.setdefault(topic, []).append(index)
    return grouped


def _metadata(response: Any, at_s: float) -> Metadata:
    topics = {}
    for each in response.topics:
        if each.error_code == UNKNOWN_TOPIC or not each.name:
            continue
        if each.error_code and each.error_code not in TRANSIENT:
            raise BrokerError(each.error_code, f"the metadata of {each.name}")
        topics[each.name] = Topic(
            each.name, _topic_id(each.name, each.topic_id), bool(each.is_internal),
            tuple(sorted((_partition(one) for one in each.partitions), key=lambda one: one.index)),
        )  # fmt: skip
    brokers = {each.node_id: Address(each.host, each.port) for each in response.brokers}
    return Metadata(response.cluster_id or "", response.controller_id, brokers, topics, at_s)


def _partition(raw: Any) -> Partition:
    return Partition(
        raw.partition_index, raw.leader_id, raw.leader_epoch, tuple(raw.replica_nodes), tuple(raw.isr_nodes)
    )


def _topic_id(name: str, raw: uuid.UUID | str | None) -> str:
    """32 hex; a broker without topic ids gets one made of the name, and a topic made again is not noticed there."""
    if raw is None:
        return hashlib.sha256(b"dr-assets topic " + name.encode()).hexdigest()[:32]
    return uuid.UUID(str(raw)).hex


def _backoffs() -> Iterable[float]:
    backoff_s = _BACKOFF_BEGIN_S
    while True:
        yield backoff_s * random.uniform(0.8, 1.2)  # noqa: S311 - so that many don't come back at once
        backoff_s = min(backoff_s * 2, _BACKOFF_END_S)


def _unknown_node(node: int) -> SourceError:
    return SourceError(
        "kafka.unreachable", f"no address is known of node {node}",
        "the broker has left the cluster, or the cluster is starting; its metadata is asked for again",
    )  # fmt: skip
