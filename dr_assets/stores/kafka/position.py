"""Where captured topics stand in their vault: the stored recovery point.

What belongs here: finding it from the vault alone, cheaply and again and again. What stays out: capturing, and how far
a restore has proven it.
"""

from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import TopicsDataset
from dr_assets.stores.kafka.capture_facts import TIMELINE, Anchor, latest_anchor
from dr_assets.stores.kafka.resume import PARTITIONS, TOPICS, recovery_point_of
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.keys import PACKS, ObjectKey
from dr_assets.vault.vault import StoredObject, Vault


@dataclass(frozen=True, slots=True)
class KafkaPoint:
    """The end of the contiguous packs that a vault holds for one dataset.

    Every record that was acknowledged to a producer before `at` (the capture's clock) is stored; None before the first
    time that everything was. `packs` is the number behind the last, `newest_key` its name, locked until
    `retain_until` (None: the store shows no lock, which is an alarm). `topics` and `partitions` are how many it is of.
    """

    at: datetime | None
    sealed_at: datetime
    system_id: str
    packs: int
    topics: int
    partitions: int
    newest_key: str
    retain_until: datetime | None


def stored_recovery_point(vault: Vault, dataset: TopicsDataset) -> KafkaPoint | None:
    """The newest stored recovery point, None when nothing was ever stored. Raises VaultError.

    Costs a listing of what is newer than the newest capture fact, and one header.
    """
    anchor = latest_anchor(vault, dataset.name)
    if anchor is None:
        return None
    listed = vault.objects(
        dataset.name, PACKS, system_id=anchor.system_id, timeline=TIMELINE, start_after_position=anchor.stored
    )
    chain = resolve(listed, vault.header, anchor.stored)
    if chain.segments:
        return _point(vault, chain.segments[-1], anchor)
    if anchor.segment is None:
        return None
    key = ObjectKey.parse(anchor.segment)
    if key is None:
        raise VaultError(
            "vault.malformed",
            f"'{anchor.segment[:200]}' is no object's name",
            "a capture fact names it: see its writer",
        )
    return _point(vault, vault.find(key), anchor)


def _point(vault: Vault, last: StoredObject, anchor: Anchor) -> KafkaPoint:
    header = vault.header(last)
    head = vault.store.head(str(last.key), last.version_id or None)
    lock = None if head is None else head.lock
    return KafkaPoint(
        at=recovery_point_of(header) or anchor.recovery_point_at,
        sealed_at=header.sealed_at,
        system_id=anchor.system_id,
        packs=last.key.last,
        topics=_count(header.extra.get(TOPICS)),
        partitions=_count(header.extra.get(PARTITIONS)),
        newest_key=str(last.key),
        retain_until=None if lock is None else lock.retain_until,
    )


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
