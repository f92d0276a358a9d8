"""Topics made by other people's clients (kcat, confluent-kafka, Kafka's own Java tools): what a capture has to take.

What belongs here: making the topics and groups of the acceptance test, each odd in its own way. What stays out:
anything of ours; nothing in this file may go through dr_assets/stores.
"""

import random
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, AdminClient, NewTopic, ResourceType
from confluent_kafka.admin import ResourcePatternType as Pattern
from kafka import KafkaAdminClient

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.waiting import wait_until

ANSWER_S = 180.0
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
NEWEST_MS = 1_760_000_000_000  # a fixed "now" for the records whose time is chosen
DAY_MS = 86_400_000
KEEP = {"retention.ms": "-1"}
# label -> partitions, configs. Old timestamps need retention off, or the broker deletes them at once.
TOPICS: dict[str, tuple[int, dict[str, str]]] = {
    "plain": (3, {}),
    "keyed": (4, {}),
    "compacted": (2, {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"} | KEEP),
    "gzip": (1, {"max.message.bytes": "2000000"}),
    "snappy": (2, {}),
    "lz4": (2, {}),
    "zstd": (1, {"compression.type": "zstd"}),
    "transactional": (2, {}),
    "headers": (1, {}),
    "tombstones": (1, KEEP),
    "timespan": (2, KEEP),
    "sparse": (5, {}),
    "beheaded": (3, {"delete.retention.ms": "12345"}),
    "appended": (1, {"message.timestamp.type": "LogAppendTime"}),
    "nothing": (2, {}),
}


@dataclass
class Foreign:
    """What was made: topic name by label, and the names of the groups that have committed offsets."""

    server: KafkaServer
    prefix: str
    topics: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    principal: str = ""

    def name(self, label: str) -> str:
        """A topic's or group's name in this making."""
        return f"{self.prefix}-{label}"


def make_foreign(server: KafkaServer, prefix: str, kcat: Path) -> Foreign:
    """Make all topics and groups, whose names begin with `prefix`; returns once compaction has settled."""
    made = Foreign(server, prefix)
    admin = AdminClient(server.client_config())
    wanted = [
        NewTopic(made.name(label), num_partitions=count, replication_factor=1, config=configs)
        for label, (count, configs) in TOPICS.items()
    ]
    for future in admin.create_topics(wanted).values():
        future.result(ANSWER_S)
    made.topics = {label: made.name(label) for label in TOPICS}
    with ThreadPoolExecutor(2) as pool:
        # Each Java program takes seconds to start, and most of them are waiting.
        java = [pool.submit(_by_java_snappy, made), pool.submit(_by_java_zstd, made)]
        _by_kcat(made, kcat)
        _by_librdkafka(made)
        _transactions(made)
        _behead(made, admin)
        reading = pool.submit(_group_by_java, made)
        for each in java:
            each.result()
        _groups(made, kcat)
        reading.result()
    _acls(made, admin)
    _wait_compacted(made)
    return made


def _by_kcat(made: Foreign, kcat: Path) -> None:
    """Plain lines and gzip; one record is nearly a megabyte."""
    lines = "".join(f"plain line {n} of kcat\n" for n in range(900))
    _run([str(kcat), "-P", "-b", made.server.bootstrap, "-t", made.name("plain")], lines.encode())
    big = "".join(f"big {random.Random(n).randbytes(12).hex()} " for n in range(28_000))
    text = "".join(f"key{n % 7}:gzipped {n}\n" for n in range(1200)) + f"big:{big}\n"
    many = ["-X", "batch.num.messages=200", "-X", "message.max.bytes=2000000"]
    _run(
        [str(kcat), "-P", "-b", made.server.bootstrap, "-t", made.name("gzip"), "-K:", "-z", "gzip", *many],
        text.encode(),
    )


def _by_java_snappy(made: Foreign) -> None:
    """The Java producer's framed snappy, with keys and headers as its console tool reads them."""
    keyed = "".join(f"h1:v{n},h2:w\tkey{n % 11}\tsnappy value {n}\n" for n in range(800))
    options = ["--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"]
    _java(made, "snappy", keyed, "--compression-codec", "snappy", *options)


def _by_java_zstd(made: Foreign) -> None:
    """And its zstd."""
    _java(made, "zstd", "".join(f"a zstd line {n}\n" for n in range(1500)), "--compression-codec", "zstd")


def _java(made: Foreign, label: str, text: str, *options: str) -> None:
    to = ("--bootstrap-server", made.server.bootstrap, "--topic", made.name(label))
    _run(made.server.tool_command(CONSOLE_PRODUCER, *to, *options), text.encode())


def _by_librdkafka(made: Foreign) -> None:
    """Everything that lines of text can't say: binary keys, tombstones, headers, times of our choosing."""
    rng = random.Random(5)
    now = NEWEST_MS
    _produce(
        made, "keyed", [{"key": rng.randbytes(8), "value": rng.randbytes(rng.randrange(400))} for _ in range(2000)]
    )
    _produce(made, "lz4", [{"key": b"k%d" % (n % 5), "value": b"lz4 %d " % n * 20} for n in range(1500)], "lz4")
    _produce(made, "headers", _odd_headers(rng))
    _produce(made, "tombstones", _tombstones(now))
    # Out of order as well: a broker keeps what a producer says.
    spans = [now - rng.randrange(25 * DAY_MS) for _ in range(900)]
    _produce(
        made, "timespan", [{"value": b"at %d" % at, "timestamp": at, "partition": n % 2} for n, at in enumerate(spans)]
    )
    _produce(made, "sparse", [{"value": b"only here %d" % n, "partition": 2} for n in range(300)])
    _produce(made, "beheaded", [{"value": b"b%d" % n, "partition": n % 3} for n in range(3000)])
    _produce(
        made, "appended", [{"value": b"when it came, not %d" % n, "timestamp": 1000 + n} for n in range(300)], "lz4"
    )
    # A second apart by their own clock, so that segments roll; every key of the first rounds comes again but "last".
    for turn in range(4):
        values = [
            {"key": b"key%d" % n, "value": b"round %d" % turn if n % 9 else None, "timestamp": now + 1000 * turn}
            for n in range(200 - 40 * turn)
        ]
        _produce(made, "compacted", values, "zstd" if turn % 2 else "none")
    for partition in (0, 1):
        last = {"key": b"last of %d" % partition, "value": b"never cleaned", "partition": partition}
        _produce(made, "compacted", [{**last, "timestamp": now + 9_000}])


def _odd_headers(rng: random.Random) -> Iterator[dict[str, Any]]:
    """None, empty, repeated, many; names that are not ASCII or empty."""
    for n in range(600):
        choices: list[list[tuple[str, bytes | None]]] = [
            [],
            [("null", None)],
            [("empty", b""), ("", b"no name")],
            [("twice", b"one"), ("twice", b"two"), ("twice", None)],
            [("Größe", rng.randbytes(5)), ("null", None), ("null", None)],
            [(f"h{k}", b"%d" % k) for k in range(30)],
        ]
        yield {"value": b"headed %d" % n, "headers": choices[n % len(choices)]}


def _tombstones(now: int) -> Iterator[dict[str, Any]]:
    """No value, no key, neither; empty is not null."""
    for n in range(400):
        key, value = ((b"k", None), (None, b"v"), (None, None), (b"", b""), (b"", None), (None, b""))[n % 6]
        yield {"key": key, "value": value, "timestamp": now - n}


def _produce(made: Foreign, label: str, messages: Iterable[dict[str, Any]], compression: str = "none") -> None:
    """Produce in batches of at most 100, acknowledged by all."""
    failures: list[KafkaError] = []
    producer = Producer(
        {
            **made.server.client_config(),
            "acks": "all",
            "batch.num.messages": 100,
            "linger.ms": 50,
            "compression.type": compression,
        }
    )
    for message in messages:
        producer.produce(
            made.name(label), on_delivery=lambda error, _: failures.append(error) if error else None, **message
        )
        producer.poll(0)
    assert producer.flush(ANSWER_S) == 0
    assert not failures, failures


def _transactions(made: Foreign) -> None:
    """Two producers at once on the same partitions; committed, aborted, and empty of records in one partition."""
    producers = []
    for n in range(2):
        config = {"transactional.id": f"{made.prefix}-producer-{n}", "batch.num.messages": 20, "linger.ms": 5}
        producer = Producer({**made.server.client_config(), **config})
        producer.init_transactions(ANSWER_S)
        producers.append(producer)
    topic = made.name("transactional")
    for turn in range(8):
        for producer in producers:
            producer.begin_transaction()
        for n in range(50):
            for who, producer in enumerate(producers):
                partition = 0 if turn % 4 == 3 else n % 2
                producer.produce(topic, b"turn %d of %d: %d" % (turn, who, n), b"%d" % who, partition)
            if n % 10 == 0:
                [producer.flush(ANSWER_S) for producer in producers]
        producers[0].commit_transaction(ANSWER_S) if turn % 3 else producers[0].abort_transaction(ANSWER_S)
        producers[1].abort_transaction(ANSWER_S) if turn % 2 else producers[1].commit_transaction(ANSWER_S)
    _produce(made, "transactional", [{"value": b"and one outside of any", "partition": 1}])


def _behead(made: Foreign, admin: AdminClient) -> None:
    """Delete from the head: within a batch in partition 0, everything in partition 1, nothing in partition 2."""
    places = [
        TopicPartition(made.name("beheaded"), 0, 333),
        TopicPartition(made.name("beheaded"), 1, 1000),
    ]
    for future in admin.delete_records(places).values():
        future.result(ANSWER_S)


def _groups(made: Foreign, kcat: Path) -> None:
    """Groups by librdkafka and kcat: at heads, ends and in the midst, in holes, with metadata."""
    offsets = {
        "group-ends": [("plain", 0, 17, "seventeen"), ("beheaded", 0, 333, ""), ("beheaded", 1, 1000, "at the end")],
        "group-mixed": [("transactional", 0, 101, "näm"), ("compacted", 1, 3, "in a hole"), ("sparse", 0, 0, "")],
        "group-heads": [("timespan", 0, 0, ""), ("timespan", 1, 1, ""), ("nothing", 1, 0, "no record yet")],
    }
    for label, places in offsets.items():
        config = {**made.server.client_config(), "group.id": made.name(label), "enable.auto.commit": False}
        consumer = Consumer(config)
        wanted = [TopicPartition(made.name(topic), p, offset, metadata) for topic, p, offset, metadata in places]
        for done in consumer.commit(offsets=wanted, asynchronous=False):
            assert done.error is None, done
        consumer.close()
        made.groups.append(made.name(label))
    _run(
        [
            *(str(kcat), "-b", made.server.bootstrap, "-G", made.name("group-kcat"), "-e", "-q", "-X"),
            *("auto.offset.reset=earliest", made.name("zstd")),
        ],
        b"",
    )
    made.groups.append(made.name("group-kcat"))


def _group_by_java(made: Foreign) -> None:
    """One that has read the first fifty records."""
    made.server.run_tool(
        CONSOLE_CONSUMER,
        *("--bootstrap-server", made.server.bootstrap, "--topic", made.name("headers"), "--from-beginning"),
        *("--group", made.name("group-java"), "--max-messages", "50"),
    )
    made.groups.append(made.name("group-java"))


def _acls(made: Foreign, admin: AdminClient) -> None:
    """One rule for a literal name and one for a prefix, of a user who is not among those who test."""
    made.principal = f"User:{made.prefix}"
    rules = [
        AclBinding(ResourceType.TOPIC, made.name("keyed"), Pattern.LITERAL, made.principal, "*", operation, allow)
        for operation, allow in (
            (AclOperation.READ, AclPermissionType.ALLOW),
            (AclOperation.WRITE, AclPermissionType.DENY),
        )
    ]
    rules.append(
        AclBinding(
            *(ResourceType.GROUP, f"{made.prefix}-group", Pattern.PREFIXED, made.principal, "127.0.0.1"),
            *(AclOperation.READ, AclPermissionType.ALLOW),
        )
    )
    for future in admin.create_acls(rules).values():
        future.result(ANSWER_S)


def _wait_compacted(made: Foreign) -> None:
    """Wait until the cleaner has been through everything but each partition's active segment."""
    wait_until(lambda: _is_compacted(made), timeout_s=ANSWER_S, what="compaction", every_s=0.2)


def _is_compacted(made: Foreign) -> bool:
    checkpoint = made.server.data_dir / "cleaner-offset-checkpoint"
    if not checkpoint.exists():
        return False
    cleaned = {
        tuple(words[:2]): int(words[2])
        for line in checkpoint.read_text().splitlines()
        if len(words := line.split()) == 3
    }
    for partition in range(TOPICS["compacted"][0]):
        folder = made.server.data_dir / f"{made.name('compacted')}-{partition}"
        active = max(int(path.stem) for path in folder.glob("*.log"))
        if active == 0 or cleaned.get((made.name("compacted"), str(partition)), -1) < active:
            return False
    return True


def _run(command: list[str], text: bytes) -> None:
    done = subprocess.run(command, input=text, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, (command[0], done.stderr[-2000:])


def committed(server: KafkaServer, groups: Iterable[str]) -> dict[str, dict[tuple[str, int], tuple[int, str]]]:
    """What groups have committed: topic and partition -> offset and metadata, by kafka-python.

    confluent-kafka would do for offsets only: it commits metadata with a NUL behind it, and reads on to the next one.
    """
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    try:
        return {
            group: {(place.topic, place.partition): (one.offset, one.metadata) for place, one in places.items()}
            for group, places in admin.list_group_offsets(list(groups)).items()
        }
    finally:
        admin.close()
