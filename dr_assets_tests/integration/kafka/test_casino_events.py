"""The casino's outbox on a broker: each row out once, keyed by player, on record, and read by a group."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from dr_assets.casino import events, schema
from dr_assets.casino.events import (
    KEY_HEADER,
    TOPICS,
    Publisher,
    acknowledged_events,
    committed_places,
    consume_some,
    create_topics,
    stored_events,
)
from dr_assets.engines.kafka.noida import NoidaServer
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import SourceError
from dr_assets_tests.integration.kafka.making import delete_topics
from dr_assets_tests.integration.kafka.relaying import relayed

PLAYERS = 40
PATIENCE_S = 180.0


@pytest.fixture(params=["apache", "noida"])
def brokers(request: pytest.FixtureRequest) -> Iterator[str]:
    """The bootstrap address of a broker with the casino's empty topics."""
    if request.param == "noida":
        emulator: NoidaServer = request.getfixturevalue("noida")
        create_topics(emulator.bootstrap)
        create_topics(emulator.bootstrap)  # whoever comes second finds them
        yield emulator.bootstrap
        return
    server: KafkaServer = request.getfixturevalue("kafka")
    create_topics(server.bootstrap)
    yield server.bootstrap
    delete_topics(AdminClient(dict(server.client_config())), list(TOPICS))


@pytest.fixture
def dsn(fresh_database: Callable[..., str]) -> str:
    """A casino with an outbox of opening deposits."""
    dsn = fresh_database()
    schema.create(dsn, players=PLAYERS)
    return dsn


def test_every_row_is_published_once_and_on_record(brokers: str, dsn: str, tmp_path: Path) -> None:
    """What the outbox held lies on the broker once each, where the record of acknowledgements says."""
    relay = relayed(dsn, Publisher(brokers, tmp_path / "run.events"))
    with psycopg.connect(dsn) as ledger:
        rows = ledger.execute(
            "SELECT o.topic, t.idempotency_key FROM casino.outbox o JOIN casino.transfers t USING (transfer_id)"
        ).fetchall()
        assert ledger.execute("SELECT count(*) FROM casino.wallets").fetchone() == (len(rows),)
    assert relay.published == len(rows) >= PLAYERS
    stored = [each.event for each in stored_events(brokers)]
    assert sorted((each.topic, each.idempotency_key) for each in stored) == sorted(rows)
    assert set(acknowledged_events(tmp_path)) == set(stored)


def test_what_others_read_is_the_players_own(brokers: str, dsn: str, tmp_path: Path) -> None:
    """Another client finds the player as the key, the idempotency key as a header, one player in one partition."""
    relayed(dsn, Publisher(brokers, tmp_path / "run.events"))
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "auditor", "auto.offset.reset": "earliest"})
    consumer.subscribe(["ledger.deposit"])
    expected, partition_of = len(acknowledged_events(tmp_path)), dict[bytes, int | None]()
    deadline_s = time.monotonic() + PATIENCE_S
    for _ in range(expected):
        message = None
        while message is None:
            assert time.monotonic() < deadline_s
            message = consumer.poll(1.0)
        key, headers = message.key(), dict(message.headers() or [])
        assert key is not None
        assert headers[KEY_HEADER] is not None
        assert 1 <= int(key) <= PLAYERS
        assert partition_of.setdefault(key, message.partition()) == message.partition()
    consumer.close()


def test_a_row_whose_mark_is_lost_is_published_again_under_its_key(brokers: str, dsn: str, tmp_path: Path) -> None:
    """The broker acknowledges, the database forgets: the row comes again, and whoever reads can tell by its key."""
    publisher = Publisher(brokers, tmp_path / "run.events")

    class Forgetful(Publisher):
        """Loses the connection right after the first acknowledgement."""

        def __init__(self) -> None:
            self.lost = 0

        def publish(self, events: object) -> object:  # type: ignore[override]
            """As the real one, then once a database that is gone."""
            told = publisher.publish(events)  # type: ignore[arg-type]
            self.lost += 1
            if self.lost == 1:
                raise psycopg.errors.AdminShutdown
            return told

        def close(self) -> None:
            """The real one is closed."""
            publisher.close()

    relay = relayed(dsn, Forgetful())
    stored = [each.event.idempotency_key for each in stored_events(brokers)]
    assert len(set(stored)) == relay.published
    assert len(stored) == relay.published + 20


def _is_published(publisher: Publisher, key: str) -> bool:
    try:
        return len(publisher.publish([events.Event(-1, "ledger.bet", key, 1, "{}")])) == 1
    except SourceError:
        return False


def test_a_broker_that_was_away_is_published_to_again(
    kafka_server: Callable[..., KafkaServer], dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the relay publishes: refused meanwhile, and all of the outbox is out once it is back."""
    server = kafka_server()
    create_topics(server.bootstrap)
    monkeypatch.setattr(events, "_DELIVERY_MS", 4000)
    publisher = Publisher(server.bootstrap, tmp_path / "run.events")
    # A machine that is short of time may take longer than that: then it is published again, as the relay does.
    wait_until(lambda: _is_published(publisher, "before"), timeout_s=PATIENCE_S, what="the first event")
    server.kill()
    with pytest.raises(SourceError, match=r"casino\.broker"):
        publisher.publish([events.Event(-2, "ledger.bet", "meanwhile", 1, "{}")])
    server.start()
    monkeypatch.undo()
    relay = relayed(dsn, publisher)
    assert relay.published >= PLAYERS
    told = {each.idempotency_key for each in acknowledged_events(tmp_path)}
    assert "meanwhile" not in told
    assert told <= {each.event.idempotency_key for each in stored_events(server.bootstrap)}


def test_a_group_remembers_its_place(brokers: str, dsn: str, tmp_path: Path) -> None:
    """What the bonus engine committed is what the broker says of its group afterwards."""
    relayed(dsn, Publisher(brokers, tmp_path / "run.events"))
    committed = consume_some(brokers, at_least=PLAYERS)
    assert sum(committed.values()) >= PLAYERS
    assert committed_places(brokers) == committed


def test_no_broker_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there."""
    monkeypatch.setattr(events, "_ANSWER_MS", 500)
    with pytest.raises(SourceError, match=r"casino\.broker"):
        create_topics("127.0.0.1:1")
