"""Where a Kafka capture goes on: the end of the valid chain of packs, and where every stream stood there.

What belongs here: finding both. What stays out: fetching from there (capture.py).

Each step is held to the digest of the header before it. Positions are in the packs: every few have a table of all
streams, and those behind it are applied to it slice by slice.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.capture_facts import TIMELINE, latest_anchor
from dr_assets.stores.kafka.pack import TABLE_EVERY, open_pack
from dr_assets.vault.believed import believed
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import PACKS, ObjectKey
from dr_assets.vault.format.pack import PackIndex, Row, Stream
from dr_assets.vault.vault import StoredObject, Vault

RECOVERY_POINT_AT = "recovery_point_at"
TOPICS = "topics"
PARTITIONS = "partitions"
_READERS = 8


@dataclass(frozen=True, slots=True)
class StoredEnd:
    """The end of a chain of packs. `rows` are all streams, by their keys; `topics` the names of their topics' ids."""

    begin: int
    end: int
    header: str | None
    segment: str | None
    writer_epoch: int
    recovery_point_at: datetime | None
    rows: dict[Stream, Row]
    topics: dict[str, str]


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The same without what the packs hold."""

    begin: int
    end: int
    header: str | None
    segment: str | None
    writer_epoch: int
    recovery_point_at: datetime | None


def find_stored_end(vault: Vault, dataset: str, system_id: str) -> StoredEnd | None:
    """The end of this cluster's valid chain, None when nothing was ever captured from it. Raises VaultError."""
    end = find_chain_end(vault, dataset, system_id)
    if end is None:
        return None
    rows, topics = positions_at(vault, dataset, system_id, end)
    return StoredEnd(end.begin, end.end, end.header, end.segment, end.writer_epoch, end.recovery_point_at, rows, topics)


def find_chain_end(vault: Vault, dataset: str, system_id: str, *, as_of: datetime | None = None) -> ChainEnd | None:
    """As `find_stored_end`, of the chain alone: headers are read, no pack is opened. Raises VaultError."""
    anchor = latest_anchor(vault, dataset, system_id=system_id, as_of=as_of)
    if anchor is None:
        end = ChainEnd(0, 0, None, None, 0, None)
    else:
        end = ChainEnd(
            anchor.begin, anchor.stored, anchor.header, anchor.segment, anchor.writer_epoch, anchor.recovery_point_at
        )
    objects = list(
        vault.objects(dataset, PACKS, system_id=system_id, timeline=TIMELINE, start_after_position=end.end, as_of=as_of)
    )
    if anchor is None and not objects:
        return None
    return _walk(vault, objects, end)


def _walk(vault: Vault, objects: list[StoredObject], end: ChainEnd) -> ChainEnd:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="headers") as pool:
        read = {obj.key: pool.submit(believed, vault.header, obj) for obj in objects}
    headers = {key: header for key, each in read.items() if (header := each.result()) is not None}
    pieces = [
        obj for obj in objects
        if obj.key in headers and (obj.key.first != end.end or headers[obj.key].previous == end.header)
    ]  # fmt: skip
    # Strict: by number alone a dead writer's pack may seem to lead far, and win a fork before it (decision 0014).
    for obj in resolve(pieces, lambda each: headers[each.key], end.end, strict=True).segments:
        header = headers[obj.key]
        if header.previous != end.header:
            break
        end = ChainEnd(
            end.begin, obj.key.last, header.digest, str(obj.key), max(end.writer_epoch, header.writer_epoch),
            recovery_point_of(header) or end.recovery_point_at,
        )  # fmt: skip
    return end


def recovery_point_of(header: Header) -> datetime | None:
    """What a pack's header says of the recovery point once it is stored."""
    at = header.extra.get(RECOVERY_POINT_AT)
    return None if at is None else parse_time(at, "recovery_point_at")


def positions_at(vault: Vault, dataset: str, system_id: str, end: ChainEnd) -> tuple[dict[Stream, Row], dict[str, str]]:
    """All streams and topics' names at a chain's end, from the newest table back. Raises VaultError."""
    indices: list[PackIndex] = []
    segment = end.segment
    known = _numbered(vault, dataset, system_id, end)
    number = end.end
    while segment is not None and number > end.begin:
        key = ObjectKey.parse(segment)
        assert key is not None  # noqa: S101 - for the type checker: our own names
        opened = open_pack(vault, known.get(segment) or vault.find(key))
        indices.append(opened.index)
        number = opened.header.first
        if opened.index.table is not None:
            break
        segment = _before(known, number, opened.header.previous, vault)
    if indices and indices[-1].table is None:
        raise VaultError(
            "vault.missing",
            f"{dataset}: none of the packs before {end.segment} that are there has a table of its streams",
            "run `dr-assets vault verify`; restore the vault from a replica: without it a capture would not know "
            "where to go on",
        )
    return applied(reversed(indices))


def _numbered(vault: Vault, dataset: str, system_id: str, end: ChainEnd) -> dict[str, StoredObject]:
    """The newest packs by their names: a table is never further back than this."""
    begin = max(end.begin, end.end - TABLE_EVERY - 1)
    objects = vault.objects(dataset, PACKS, system_id=system_id, timeline=TIMELINE, start_after_position=begin)
    return {str(obj.key): obj for obj in objects if obj.key.last <= end.end}


def _before(known: dict[str, StoredObject], number: int, previous: str | None, vault: Vault) -> str | None:
    """The pack that ends at `number` and whose header has this digest."""
    for name, obj in known.items():
        if obj.key.last == number:
            header = believed(vault.header, obj)
            if header is not None and header.digest == previous:
                return name
    return None


def applied(indices: Iterable[PackIndex]) -> tuple[dict[Stream, Row], dict[str, str]]:
    """Tables and slices, oldest first, put together. A table replaces what was known; slices advance it."""
    rows: dict[Stream, Row] = {}
    topics: dict[str, str] = {}
    for index in indices:
        topics.update(index.topics)
        if index.table is not None:
            rows = {row.stream: row for row in index.table}
            continue
        for each in index.slices:
            row = rows.get(each.stream)
            if row is None:
                continue  # a stream is in a table before its first slice
            rows[each.stream] = replace(
                row, next=each.next, leader_epoch=each.leader_epoch, high_watermark=each.high_watermark,
                last_stable=each.last_stable, log_start=each.log_start,
                complete=row.complete or each.next >= each.high_watermark,
            )  # fmt: skip
    return rows, topics
