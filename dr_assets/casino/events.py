"""The casino's events on Kafka: topics, the producer that publishes the outbox, a consumer that remembers its place.

What belongs here: this application's own use of a broker, through its client's public interface. What stays out:
protecting topics (stores/kafka), and when the outbox is read (relay.py).
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError

from dr_assets.estate.errors import SourceError

GROUP: Final = "bonus-engine"
KEY_HEADER: Final = "idempotency-key"
# By the outbox's own names. What players do most is spread over partitions, by player.
TOPICS: Final[Mapping[str, int]] = {
    "ledger.bet": 4,
    "ledger.win": 4,
    "ledger.deposit": 2,
    "ledger.withdrawal_requested": 1,
    "ledger.withdrawal_approved": 1,
    "ledger.withdrawal_paid": 1,
    "ledger.withdrawal_rejected": 1,
    "ledger.withdrawal_cancelled": 1,
    "ledger.adjustment": 1,
    "ledger.deposit_reversed": 1,
}
_ANSWER_MS = 10_000
_DELIVERY_MS = 60_000
_PATIENCE_S: Final = 60.0

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the outbox."""

    transfer_id: int
    topic: str
    idempotency_key: str
    player_id: int | None
    payload: str


@dataclass(frozen=True, slots=True)
class Published:
    """Where the broker keeps an event that it acknowledged."""

    topic: str
    partition: int
    offset: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as a cluster holds it: where, whose it is by its key, and whether it says anything."""

    event: Published
    player_id: int | None
    says: bool


def create_topics(bootstrap: str) -> None:
    """Every topic that is not there yet; who returns finds all of them led. Raises SourceError (`casino.broker`)."""
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, bootstrap_timeout_ms=_ANSWER_MS, request_timeout_ms=_ANSWER_MS
        )
        try:
            wanted = {
                name: {"num_partitions": partitions, "replication_factor": 1} for name, partitions in TOPICS.items()
            }
            there = set(admin.list_topics())
            for name in sorted(wanted.keys() - there):
                with suppress(TopicAlreadyExistsError):  # somebody else made it meanwhile
                    admin.create_topics({name: wanted[name]})
            # Made is not known yet: a broker hears of it a moment after the controller has answered.
            admin.wait_for_topics(list(wanted), timeout_ms=_DELIVERY_MS)
        finally:
            admin.close()
    except KafkaError as error:
        raise _away(error) from None


class Publisher:
    """An idempotent producer: what `publish` returns of was acknowledged by all replicas, each partition in order.

    Every acknowledgement goes to `log_path` as `topic partition offset idempotency_key`, for whoever wants to know
    afterwards what was promised. A context manager.
    """

    def __init__(self, bootstrap: str, log_path: Path) -> None:
        self._bootstrap = bootstrap
        self._producer: KafkaProducer | None = self._connected()
        self._log = os.open(log_path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; what is not acknowledged by now may be there or not."""
        self._let_go()
        os.close(self._log)

    def publish(self, events: Sequence[Event]) -> list[Published]:
        """Send and wait for every acknowledgement. Raises SourceError (`casino.broker`) if one is missing.

        Then it isn't known which of the others are there: publish all of them again, their keys tell.
        """
        try:
            self._producer = producer = self._producer or self._connected()
            waiting = [_send(producer, event) for event in events]
            # Longer than it takes the producer itself to give one up: else it may yet arrive behind our back.
            told = [future.get(timeout=2 * _DELIVERY_MS / 1000) for future in waiting]
        except KafkaError as error:
            # Its sequence has a gap now, and whatever it sends next would wait for what was given up.
            self._let_go()
            raise _away(error) from None
        published = [
            Published(event.topic, said.partition, said.offset, event.idempotency_key)
            for event, said in zip(events, told, strict=True)
        ]
        lines = (f"{each.topic} {each.partition} {each.offset} {each.idempotency_key}\n" for each in published)
        os.write(self._log, "".join(lines).encode())
        return published

    def _connected(self) -> KafkaProducer:
        try:
            return KafkaProducer(
                bootstrap_servers=self._bootstrap,
                bootstrap_timeout_ms=_ANSWER_MS,
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                max_block_ms=_ANSWER_MS,
                request_timeout_ms=_DELIVERY_MS // 2,
                delivery_timeout_ms=_DELIVERY_MS,
            )
        except KafkaError as error:
            raise _away(error) from None

    def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # Not before each record has arrived or was given up; a broker that is away is no news here.
            with suppress(KafkaError):
                producer.close(timeout=2 * _DELIVERY_MS / 1000)


def _send(producer: KafkaProducer, event: Event) -> Any:
    return producer.send(
        event.topic,
        key=None if event.player_id is None else str(event.player_id).encode(),
        value=event.payload.encode(),
        headers=[(KEY_HEADER, event.idempotency_key.encode())],
    )


def acknowledged_events(ack_dir: Path) -> list[Published]:
    """What every publisher's log of a folder says; a torn last line was never acted upon."""
    found: list[Published] = []
    for path in sorted(ack_dir.glob("*.events")):
        text = path.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            topic, partition, offset, key = line.split(" ")
            found.append(Published(topic, int(partition), int(offset), key))
    return found


def consume_some(bootstrap: str, *, at_least: int) -> dict[Place, int]:
    """Read as the bonus engine does, then commit: the group's place in every partition it was given.

    Raises SourceError (`casino.broker`), also when so many records don't come within a minute.
    """
    try:
        with _consumer(bootstrap, group_id=GROUP, enable_auto_commit=False) as consumer:
            consumer.subscribe(topics=[name for name, partitions in TOPICS.items() if partitions > 1])
            read = _polled(consumer, at_least)
            if read < at_least:
                raise SourceError(
                    "casino.broker",
                    f"{read} events came within {_PATIENCE_S:.0f} s, {at_least} were expected",
                    "does the workload publish?",
                )
            consumer.commit()
            places = {place: consumer.committed(place) for place in consumer.assignment()}
    except KafkaError as error:
        raise _away(error) from None
    return {(place.topic, place.partition): offset for place, offset in places.items() if offset is not None}


def stored_events(bootstrap: str) -> list[Stored]:
    """Every event that a cluster holds, with its place, read from the first offset to the last.

    Raises SourceError (`casino.broker`).
    """
    found: list[Stored] = []
    try:
        with _consumer(bootstrap, enable_auto_commit=False) as consumer:
            places = [
                TopicPartition(topic, partition)
                for topic in sorted(set(consumer.topics()) & set(TOPICS))
                for partition in consumer.partitions_for_topic(topic) or ()
            ]
            consumer.assign(places)
            ends = consumer.end_offsets(places)
            deadline_s = time.monotonic() + _PATIENCE_S
            while any(consumer.position(place) < end for place, end in ends.items()):
                if time.monotonic() > deadline_s:
                    raise SourceError("casino.broker", "the records up to the end don't come", "see the broker's log")
                for place, records in consumer.poll(timeout_ms=500, max_records=5000).items():
                    found += [_stored(place, each) for each in records]
    except KafkaError as error:
        raise _away(error) from None
    return found


def committed_places(bootstrap: str) -> dict[Place, int]:
    """Where the bonus engine's group stands in each partition that it committed. Raises SourceError."""
    try:
        with _consumer(bootstrap, group_id=GROUP, enable_auto_commit=False) as consumer:
            places = [TopicPartition(topic, at) for topic, count in TOPICS.items() for at in range(count)]
            found = {place: consumer.committed(place) for place in places}
    except KafkaError as error:
        raise _away(error) from None
    return {(place.topic, place.partition): offset for place, offset in found.items() if offset is not None}


@contextmanager
def _consumer(bootstrap: str, **settings: Any) -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        bootstrap_timeout_ms=_ANSWER_MS,
        request_timeout_ms=3 * _ANSWER_MS,
        **{"auto_offset_reset": "earliest"} | settings,
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _polled(consumer: KafkaConsumer, at_least: int) -> int:
    """How many records came until there were enough, or patience ended."""
    read, deadline_s = 0, time.monotonic() + _PATIENCE_S
    while read < at_least and time.monotonic() < deadline_s:
        read += sum(len(records) for records in consumer.poll(timeout_ms=500).values())
    return read


def _stored(place: TopicPartition, record: Any) -> Stored:
    return Stored(
        Published(place.topic, place.partition, record.offset, _key_of(record)),
        None if record.key is None else int(record.key),
        bool(record.value is not None or record.headers),
    )


def _key_of(record: Any) -> str:
    return next((value.decode() for name, value in record.headers if name == KEY_HEADER and value is not None), "")


def _away(error: KafkaError) -> SourceError:
    return SourceError(
        "casino.broker", f"the casino's broker does not take part: {type(error).__name__}", "is it running?"
    )
