"""The records that are measured with: game events of 300 bytes that compress no better than two to one.

What belongs here: making and producing them, as a service would (librdkafka's defaults but for `linger.ms`). What stays
out: reading them.
"""

import base64
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import zstandard
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

RECORD_BYTES: Final = 300
_POOL: Final = 60_000  # 18 MB of different ones: more than any window in which a compressor looks back
_ANSWER_S: Final = 120.0
_TICK_S: Final = 0.01
# Topics are measured over hours; nothing may expire meanwhile.
_CONFIGS: Final = {"retention.ms": "-1", "segment.bytes": str(1 << 30)}


def pool() -> list[bytes]:
    """Different events, the same ones every time: numbers and names of a game, and a signature that is all chance."""
    rng = random.Random(20_000)  # noqa: S311 - filler, seeded so that every run has the same bytes
    return [_event(rng, number) for number in range(_POOL)]


def compressibility(events: list[bytes], level: int) -> float:
    """How many times zstd shrinks the events in a row."""
    joined = b"".join(events)
    return len(joined) / len(zstandard.ZstdCompressor(level=level).compress(joined))


def make_topic(bootstrap: Mapping[str, str], name: str, partitions: int = 1) -> None:
    """A new topic in which nothing expires."""
    admin = AdminClient(dict(bootstrap))
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=_CONFIGS)
    admin.create_topics([topic])[name].result(_ANSWER_S)


def fill(client: Mapping[str, str], topic: str, count: int, *, partitions: int = 1, compression: str = "none") -> None:
    """Produce so many events, round robin in runs, acknowledged by all."""
    producer = _producer(client, compression)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for number, event in enumerate(_endless(pool(), count)):
        while True:
            try:
                producer.produce(topic, event, partition=number // 500 % partitions, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(_ANSWER_S) or failures:
        raise SystemExit(f"producing failed: {failures[:3]}")


def produce_live(
    client: Mapping[str, str], topic: str, rate: int, duration_s: float, acknowledged: Callable[[float, int], None]
) -> float:
    """Produce at a steady rate; `acknowledged(monotonic seconds, offset)` for each record. The rate that was reached.

    The instant is the one before the record is handed over: what a service would call the time of its event.
    """
    producer = _producer(client, "none")
    events = pool()
    begin_s = time.monotonic()
    sent = 0
    while (now_s := time.monotonic()) < begin_s + duration_s:
        due = int((now_s - begin_s) * rate)
        for number in range(sent, due):
            producer.produce(topic, events[number % _POOL], partition=0, on_delivery=_at(now_s, acknowledged))
        sent = max(sent, due)
        producer.poll(_TICK_S)
    took_s = time.monotonic() - begin_s
    if producer.flush(_ANSWER_S):
        raise SystemExit("producing did not end")
    return sent / took_s


def _at(made_s: float, acknowledged: Callable[[float, int], None]) -> Callable[[KafkaError | None, Message], None]:
    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise SystemExit(f"producing failed: {error}")
        offset = message.offset()
        assert offset is not None  # noqa: S101 - for the type checker: it was acknowledged
        acknowledged(made_s, offset)

    return delivered


def _producer(client: Mapping[str, str], compression: str) -> Producer:
    more = {"acks": "all", "linger.ms": 5, "compression.type": compression, "queue.buffering.max.kbytes": 262_144}
    return Producer({**client, **more})


def _event(rng: random.Random, number: int) -> bytes:
    body = {
        "bet": 70_000_000 + number,
        "player": rng.randrange(2_000_000),
        "game": rng.choice(("roulette", "slots-7", "blackjack", "baccarat")),
        "stake_cents": rng.randrange(100, 100_000),
        "at_ms": 1_760_000_000_000 + number * 37,
        "round": f"{rng.getrandbits(64):016x}",
        "signature": base64.b64encode(rng.randbytes(120)).decode(),
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    return text + b" " * (RECORD_BYTES - len(text))


def _endless(events: list[bytes], count: int) -> Iterator[bytes]:
    return (events[number % _POOL] for number in range(count))
