"""A restore that is killed, or whose broker is, at every step of its way: it goes on, and nothing is there twice."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.kafka import produce, restore_write
from dr_assets.stores.kafka.compare import compare
from dr_assets.stores.kafka.produce import Lane, Write
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.restore_topics import delete_topic
from dr_assets_tests.integration.kafka.killing import KilledError, Killer

# Each of three partitions' first write may be refused in the first run: sent and answered again.
RETRIED = 6


@pytest.fixture
def rig(kafka: KafkaServer, kafka_target: KafkaServer, tmp_path: Path, restore_rig: ModuleType) -> Iterator[Any]:
    """Two brokers and a folder."""
    with restore_rig.rig(kafka, kafka_target, tmp_path) as made:
        yield made


def _killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(
        monkeypatch,
        (Lane, "send"),
        (Lane, "take"),
        (restore_write, "begin"),
        (restore_write, "end"),
        (restore_write, "init_producer"),
        (restore_write, "delete_records"),
    )


def _hard(rig: Any) -> tuple[str, str]:
    """A topic with a deleted head and one with transactions, an aborted one and an open one: few steps, all kinds."""
    plain, txn = rig.make("plain", 2), rig.make("txn")
    for _ in range(4):
        producer = rig.producer()
        for number in range(6):
            producer.produce(plain, b"%d" % number, partition=number % 2)
        producer.flush()
    rig.behead(plain, {0: 4})
    rig.transactions(txn, rounds=2)
    return plain, txn


def _require_equal(rig: Any, export: Any, restored: Any) -> None:
    with rig.cluster() as cluster:
        found = compare(export, cluster, restored.plan.names, maps=restored.maps)
    assert found.differences == []


def _killed_and_gone_on(rig: Any, export: Any, killer: Killer, at: int, *, after: bool, prefix: str) -> None:
    """Kill a restore at this call; the same one goes on and all is equal.

    The first run may have asked twice where a new topic's broker did not lead yet: a later one can end before the call.
    """
    options, state = Options(prefix=prefix), rig.folder / f"{prefix}.json"
    killer.aim(at, after=after)
    try:
        restored = rig.restore(export, options, state)
    except KilledError:
        killer.aim(-1, after=False)
        restored = rig.restore(export, options, state)
    else:
        assert at - RETRIED < killer.calls <= at, "nobody killed it"
    _require_equal(rig, export, restored)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_each_step_it_goes_on_and_writes_nothing_twice(
    rig: Any, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that writes, once before it is made and once when its answer is lost: then all is equal."""
    killer = _killer(monkeypatch)
    plain, txn = _hard(rig)
    groups = {"g": {(plain, 0): Commit(5, "m"), (txn, 0): Commit(3, "")}}
    with rig.export(plain, txn, groups=groups) as export:
        rig.restore(export, Options(prefix="whole-"))
        steps = killer.calls
        assert steps > 40
        # Two calls of different threads may change places, so not every one is met in every run; all kinds are.
        for at in range(int(after), steps, 7):
            _killed_and_gone_on(rig, export, killer, at, after=after, prefix=f"{at}{after}-")


def test_killed_again_and_again_it_comes_to_its_end(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run gets a few steps further, whatever it was doing when it was killed."""
    killer = _killer(monkeypatch)
    plain, txn = _hard(rig)
    state = rig.folder / "state.json"
    with rig.export(plain, txn) as export:
        for run in range(200):
            killer.aim(7 + run % 5, after=bool(run % 2))
            try:
                restored = rig.restore(export, Options(prefix="often-"), state)
            except KilledError:
                continue
            break
        assert 3 < run < 199
        _require_equal(rig, export, restored)


def test_holes_half_filled_are_filled_to_their_end(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compacted topic's restore that was killed between markers leaves no hole and no marker too many."""
    topic = rig.compacted()
    killer = _killer(monkeypatch)
    with rig.export(topic) as export:
        rig.restore(export, Options(prefix="whole-"))
        for at in range(2, killer.calls, 15):
            _killed_and_gone_on(rig, export, killer, at, after=True, prefix=f"{at}-")


def test_a_restore_is_gone_on_with_only_where_it_was_begun(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign records, a topic made anew, other options and a finished state are each refused by name."""
    killer = _killer(monkeypatch)
    plain, _ = _hard(rig)
    with rig.export(plain) as export, rig.cluster() as cluster:
        for case in ("foreign", "recreated", "options"):
            state, options = rig.folder / f"{case}.json", Options(prefix=f"{case}-")
            killer.aim(9, after=True)
            with pytest.raises(KilledError):
                rig.restore(export, options, state)
            killer.aim(-1, after=False)
            if case == "foreign":
                producer = rig.producer(**{"bootstrap.servers": rig.target.bootstrap})
                for index in (0, 1):
                    producer.produce(f"foreign-{plain}", b"somebody else's", partition=index)
                producer.flush()
            if case == "recreated":
                gone = f"recreated-{plain}"
                delete_topic(cluster, gone)
                wait_until(lambda gone=gone: gone not in cluster.metadata([gone]).topics, timeout_s=180, what="gone")
            if case == "options":
                options = Options(prefix="options-", wish="mapped")
            with pytest.raises((SourceError, PolicyError)) as caught:
                rig.restore(export, options, state)
            assert (
                caught.value.code
                in {
                    "foreign": {"kafka.restore_foreign", "kafka.restore_displaced", "kafka.restore_end"},
                    "recreated": {"kafka.restore_recreated"},
                    "options": {"kafka.restore_state"},
                }[case]
            ), case
        state = rig.folder / "done.json"
        rig.restore(export, Options(prefix="done-"), state)
        with pytest.raises(PolicyError) as caught:
            rig.restore(export, Options(prefix="done-"), state)
        assert caught.value.code == "kafka.restore_state"


def test_a_broker_that_is_killed_in_the_middle_is_waited_for(
    rig: Any, kafka_server: Callable[..., KafkaServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed and started again with requests under way and transactions open: the same run ends, all is equal."""
    broker = kafka_server()
    plain, txn = rig.make("plain", 3), rig.make("txn")
    producer = rig.producer(**{"batch.num.messages": 20})
    for number in range(6000):
        producer.produce(plain, b"%d" % number * 10)
    producer.flush()
    rig.transactions(txn, rounds=6)
    seen = threading.Semaphore(0)
    real = Lane.send

    def send(lane: Lane, write: Write) -> None:
        real(lane, write)
        seen.release()

    monkeypatch.setattr(Lane, "send", send)
    with rig.export(plain, txn) as export, rig.cluster(broker) as cluster:
        plan = plan_restore(export, cluster, Options())
        result: list[Any] = []
        thread = threading.Thread(target=lambda: result.append(restore(plan, cluster, rig.folder / "s.json")))
        thread.start()
        for writes in (20, 60):
            for _ in range(writes):
                assert seen.acquire(timeout=120)
            broker.kill()
            broker.start()
        thread.join(240)
        assert result, "the restore did not end"
        found = compare(export, cluster, plan.names, maps=result[0].maps)
    assert found.differences == []
    assert found.is_identical


@pytest.mark.parametrize("at", [0, 3])
def test_a_write_that_is_refused_alone_is_written_again_or_the_restore_ends(
    rig: Any, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused for a moment (a broker that does not lead yet): nothing ever comes to lie in its place unseen.

    The first write of a partition goes alone, so that nothing can; behind a later one others are under way, and the
    broker has appended them: then the restore says so and ends.
    """
    topic = rig.make("refused")
    producer = rig.producer(**{"batch.num.messages": 5, "linger.ms": 0})
    for number in range(200):
        producer.produce(topic, b"%d" % number)
        if number % 5 == 4:
            producer.flush()
    sent: list[Write] = []
    real = Lane._append

    def append(lane: Lane, write: Write) -> Any:
        sent.append(write)
        strange = replace(write, topic_id="0" * 31 + "7") if len(sent) == at + 1 else write
        return real(lane, strange)

    monkeypatch.setattr(Lane, "_append", append)
    with rig.export(topic) as export:
        if at == 0:
            _require_equal(rig, export, rig.restore(export, Options(prefix="first-")))
            return
        with pytest.raises(SourceError) as caught:
            rig.restore(export, Options(prefix="later-"))
    assert caught.value.code == "kafka.restore_displaced"


def test_a_write_whose_good_answer_was_lost_is_not_written_again(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of loss: the broker says that it refused though it appended, or the connection falls behind it."""
    topic = rig.make("lost")
    producer = rig.producer(**{"batch.num.messages": 5, "linger.ms": 0})
    for number in range(200):
        producer.produce(topic, b"%d" % number)
        if number % 5 == 4:
            producer.flush()
    real = produce._check_produced
    for case, error in (
        ("said", BrokerError(6, "a refusal that isn't one")),
        ("fell", SourceError("kafka.unreachable", "the connection fell", "")),
    ):
        seen: list[Write] = []

        def check(response: Any, write: Write, error: SourceError = error, seen: list[Write] = seen) -> None:
            real(response, write)
            seen.append(write)
            if len(seen) in {1, 7, 20}:
                raise error

        monkeypatch.setattr(produce, "_check_produced", check)
        with rig.export(topic) as export:
            _require_equal(rig, export, rig.restore(export, Options(prefix=f"{case}-")))
        assert len(seen) >= 7  # behind a connection that fell, what was under way is read back instead
