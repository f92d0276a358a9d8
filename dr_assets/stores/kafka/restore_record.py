"""A restore's result sealed into the vault: what was done, what was compared, and where each record went.

What belongs here: the two kinds of facts. What stays out: when one is wanted (the command line, proving/).

The facts are `kafka_restore` and, for what moved, `kafka_offset_map`: each holds runs of one partition, in order, so
that a map of any length fits.
"""

from collections.abc import Iterator
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.compare import Comparison
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.restore import Restored
from dr_assets.vault.facts import Fact, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Receipt, Vault

RESTORE: Final = "kafka_restore"
OFFSET_MAP: Final = "kafka_offset_map"
# Three numbers each, a dozen bytes as text: far below what a fact may hold.
_RUNS: Final = 200_000


def record_restore(vault: Vault, dataset: str, restored: Restored, compared: Comparison | None) -> Receipt:
    """Seal maps that aren't the identity, then the restore that names them. Raises what `record_fact` raises."""
    maps: list[Json] = []
    for (topic, partition), found in sorted(restored.maps.items()):
        if found.is_identical:
            continue
        parts: list[Json] = []
        for part in _parts(found):
            body: dict[str, Json] = {"topic": topic, "partition": partition, "map": part.to_json()}
            parts.append(str(record_fact(vault, dataset, OFFSET_MAP, body).key))
        maps.append({"topic": topic, "partition": partition, "facts": parts})
    said = restored.to_json()
    said["maps"] = maps
    return record_fact(
        vault, dataset, RESTORE, {**said, "comparison": None if compared is None else compared.to_json()}
    )


def joined(facts: list[Fact]) -> OffsetMap:
    """A partition's map out of its facts, in the order in which the restore names them.

    Raises VaultError (`kafka.map_unreadable`).
    """
    found: OffsetMap | None = None
    for fact in facts:
        said = fact.body.get("map")
        part = OffsetMap.from_json(said if isinstance(said, dict) else {})
        found = found or OffsetMap(part.begin, part.begin)
        for run in part.runs:
            found.add(run.source, run.target, run.count)
        found.end = part.end
    if found is None:
        raise VaultError("kafka.map_unreadable", "no part of an offset map is named", "name its facts")
    return found


def _parts(found: OffsetMap) -> Iterator[OffsetMap]:
    for at in range(0, max(1, len(found.runs)), _RUNS):
        part = OffsetMap(found.begin, found.begin)
        for run in found.runs[at : at + _RUNS]:
            part.add(run.source, run.target, run.count)
        part.end = found.end
        yield part
