"""Kill broker, capture and store under load; count what of the acknowledged records the vault lacks.

    python scripts/kafka_crash_rounds.py --rounds 20 --output benchmarks/results/kafka_crash.json

A producer writes numbered records with acks=all to Apache Kafka, a capture stores them in a SeaweedFS vault with Object
Lock, and every round sends SIGKILL: to the broker, to the capture, to the store, to broker and capture at once; what
was killed is started again. Where the capture died, the vault alone is read at once: a record that was acknowledged
before the kill and is not there is older than the loss window says. The window is the linger and what the capture told
of its last seals and puts. At each round's end everything acknowledged has to be stored. In the end all is restored
into topics of other names on the same broker and read back by another client: no number may lack, none come twice.
Exits 1 when any of that fails, or when the vault does not verify.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from dr_assets.engines.kafka.jars import find_jars
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.stores.kafka.batches import split
from dr_assets.stores.kafka.capture_facts import TIMELINE, latest_anchor
from dr_assets.stores.kafka.pack import open_pack
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.keys import PACKS
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from scripts.kafka_crash.scene import DATASET, LINGER, PARTITIONS, TOPIC, Acknowledged, CaptureProcess, Feeder, Place

KINDS: Final = ("broker", "capture", "store", "broker+capture")
_WAIT_S: Final = 300.0
_WARM_S: Final = 3.0
_AWAY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round. `lost_at_kill` are acknowledged records that the vault alone lacked at the kill of the capture."""

    number: int
    kind: str
    acknowledged: int
    lost_at_kill: int
    loss_window_ms: float
    bound_ms: float
    lost: int
    duplicates: int
    catch_up_s: float

    @property
    def ok(self) -> bool:
        """Nothing lost for good, nothing twice, and at the kill no more than the window says."""
        return not self.lost and not self.duplicates and self.loss_window_ms <= self.bound_ms


@dataclass
class Stored:
    """Offsets of each partition that were seen in the vault, as ranges; what was looked at is not read again."""

    ends: dict[int, int]
    duplicates: int = 0
    holes: int = 0
    packs: int = 0
    header: str | None = None

    def look(self, vault: Vault) -> None:
        """Read what is new. Batches hold every offset of theirs: nothing is compacted here, nothing transactional."""
        anchor = latest_anchor(vault, DATASET)
        if anchor is None:
            return
        listed = vault.objects(
            DATASET, PACKS, system_id=anchor.system_id, timeline=TIMELINE, start_after_position=self.packs
        )
        for obj in resolve(listed, vault.header, self.packs, strict=True).segments:
            opened = open_pack(vault, obj)
            if opened.header.previous != self.header:
                raise RuntimeError(f"{obj.key} continues another pack than the one before it")
            for each in opened.index.slices:
                self._take(each.partition, opened.batches(each))
            self.packs, self.header = obj.key.last, opened.header.digest

    def _take(self, partition: int, batches: memoryview) -> None:
        end = self.ends.get(partition, 0)
        for header, _ in split(batches):
            self.duplicates += max(0, end - header.base_offset)
            self.holes += max(0, header.base_offset - end)
            end = max(end, header.next_offset)
        self.ends[partition] = end

    def has(self, each: Acknowledged) -> bool:
        """Whether the vault holds that record, if there are no `holes`."""
        return each.offset < self.ends.get(each.partition, 0)


@dataclass
class Scene:
    """All that runs."""

    folder: Path
    server: KafkaServer
    region: SeaweedRegion
    place: Place
    vault: Vault
    feeder: Feeder
    capture: CaptureProcess
    stored: Stored


def run_round(scene: Scene, number: int, kind: str) -> Round:
    """Load, kill, look, start again, catch up, look again."""
    time.sleep(_WARM_S)
    report = scene.capture.report()
    killed_s = time.monotonic()
    for what in kind.split("+"):
        {"broker": scene.server.kill, "capture": scene.capture.kill, "store": scene.region.kill}[what]()
    before = [each for each in list(scene.feeder.acknowledged) if each.at_s < killed_s]
    late, window_ms = (0, 0.0)
    if "capture" in kind:
        late, window_ms = _missing(scene, before, killed_s)
    time.sleep(_AWAY_S)
    if "store" in kind:
        scene.region.start()
    if "broker" in kind:
        scene.server.start()
    if "capture" in kind:
        scene.capture = CaptureProcess(scene.place, scene.server.bootstrap, scene.folder)
    began_s, known = time.monotonic(), len(scene.feeder.acknowledged)
    while len(scene.feeder.acknowledged) < known + 10:  # the producer is back
        if time.monotonic() > began_s + _WAIT_S:
            raise RuntimeError("nothing is acknowledged any more")
        time.sleep(0.1)
    scene.capture.wait_stored(datetime.now(UTC), _WAIT_S)
    caught_up_s = time.monotonic() - began_s
    before = [each for each in list(scene.feeder.acknowledged) if each.at_s < began_s]
    scene.stored.look(scene.vault)
    lost = sum(not scene.stored.has(each) for each in before) + scene.stored.holes
    return Round(number, kind, len(before), late, round(window_ms, 1), _bound_ms(report), lost, scene.stored.duplicates,
                 round(caught_up_s, 1))  # fmt: skip


def _bound_ms(report: dict[str, Any]) -> float:
    """The linger, and what the capture told last of a seal and of its slowest put, fetched to locked."""
    told_s = float(report.get("seal_s") or 0.0) + float(report.get("slowest_put_s") or 0.0)
    told_s += max(float(report.get("lag_s") or 0.0) - LINGER.total_seconds() / 2, 0.0)
    return round((LINGER.total_seconds() + told_s) * 1000, 1)


def _missing(scene: Scene, before: list[Acknowledged], killed_s: float) -> tuple[int, float]:
    """How many of them the vault lacks, and how long before the kill the oldest of these was acknowledged, in ms."""
    scene.stored.look(scene.vault)
    lacking = [each for each in before if not scene.stored.has(each)]
    return len(lacking), max((killed_s - each.at_s for each in lacking), default=0.0) * 1000


def restored_numbers(scene: Scene) -> dict[str, int]:
    """Restore everything under another name, read it by another client: how many records, lacking, and twice."""
    source = export_source(scene.vault, DATASET)
    with Cluster.connect(scene.server.bootstrap) as cluster:
        plan = plan_restore(source, cluster, Options(prefix="restored-"), ends=source.ends)
        restore(plan, cluster, scene.folder / "restore.json")
    counts: Counter[int] = Counter()
    consumer = Consumer({**scene.server.client_config(), "group.id": "crash-rounds", "enable.auto.commit": False})
    for index in range(PARTITIONS):
        place = TopicPartition(f"restored-{TOPIC}", index, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=60)
        consumer.assign([place])
        while consumer.position([place])[0].offset < end:
            for message in consumer.consume(1000, timeout=5):
                counts[int((message.value() or b"0")[:16])] += 1
    consumer.close()
    wanted = {each.number for each in scene.feeder.acknowledged}
    twice = sum(count - 1 for count in counts.values())
    return {"restored": sum(counts.values()), "lacking": len(wanted - counts.keys()), "duplicates": twice}


def run(rounds: int, rate: float, seed: int, folder: Path, output: Path) -> dict[str, Any]:
    """All rounds and the last look; raises what keeps a round from its end.

    What is done is in `output` after every round, so that a run which is stopped has told something.
    """
    with ExitStack() as stack:
        region = stack.enter_context(SeaweedRegion(folder / "region", "crash", find_programs("weed")))
        region.start()
        region.create_bucket("vault")
        server = stack.enter_context(KafkaServer(folder / "kafka", find_jars()))
        server.start()
        admin = AdminClient(server.client_config())
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(120)
        keys = folder / "keys"
        keys.mkdir(mode=0o700)
        place = Place(region.endpoint, region.access_key, region.secret_key, "vault", keys)
        vault, feeder = place.vault(), Feeder(server.bootstrap, rate, seed)
        feeder.start()
        capture = CaptureProcess(place, server.bootstrap, folder)
        scene = Scene(folder, server, region, place, vault, feeder, capture, Stored({}))
        stack.callback(lambda: scene.capture.process.kill())  # noqa: PLW0108 - the newest one's
        scene.capture.wait_stored(datetime.now(UTC), _WAIT_S)
        rows: list[Round] = []
        for number in range(rounds):
            rows.append(run_round(scene, number + 1, KINDS[number % len(KINDS)]))
            print(json.dumps({**asdict(rows[-1]), "ok": rows[-1].ok}), flush=True)
            output.write_text(json.dumps(_result(rows, rate, seed, server.describe(), None, feeder, []), indent=2))
        feeder.stop()
        scene.capture.wait_stored(datetime.now(UTC), _WAIT_S)
        scene.capture.stop()
        final = restored_numbers(scene)
        found = [each for each in verify(vault).findings if each.severity == "error"]
        broker = server.describe()
    return _result(rows, rate, seed, broker, final, feeder, [f"{each.kind} {each.key}" for each in found])


def _result(
    rows: list[Round], rate: float, seed: int, broker: str, final: dict[str, int] | None, feeder: Feeder,
    found: list[str],
) -> dict[str, Any]:  # fmt: skip
    """`final` is None while the restore at the end has not been made: then nothing is `ok` yet."""
    restored = final is not None and not final["lacking"] and not final["duplicates"]
    ok = all(row.ok for row in rows) and restored and not found
    about = {
        "broker": broker, "rounds": len(rows), "rate_per_s": rate, "record_bytes": 300, "linger_ms": 500, "seed": seed,
        "began_at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 2),
    }  # fmt: skip
    summary = {
        kind: {
            "rounds": len(own), "lost": sum(row.lost for row in own), "duplicates": sum(row.duplicates for row in own),
            "loss_window_max_ms": max(row.loss_window_ms for row in own),
            "within_bound": sum(row.loss_window_ms <= row.bound_ms for row in own),
        }
        for kind in KINDS if (own := [row for row in rows if row.kind == kind])
    }  # fmt: skip
    return {
        "about": about, "ok": ok and not feeder.failed, "summary": summary, "final": final,
        "acknowledged": len(feeder.acknowledged), "not_acknowledged": feeder.failed[:5], "verify": found[:20],
        "rounds": [asdict(row) for row in rows],
    }  # fmt: skip


def main() -> int:
    """0 when everything held."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=20)
    asked.add_argument("--rate", type=float, default=500.0, help="records a second")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--output", type=Path, required=True)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="dr-assets-kafka-crash-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        result = run(given.rounds, given.rate, given.seed, Path(folder), given.output)
    given.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("ok", "summary", "final")}, indent=2))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
