"""Erasure replay for topics: what a record of somebody who was erased says is left out of every restore.

What belongs here: whose a record is, and batches without what it said. What stays out: the list (vault/subjects/), and
reading and writing batches (export.py, restore_write.py), which this sits between.

A record keeps its offset, its key and its time, so that offsets, groups and transactions are what they were; its value
becomes null, a tombstone, and its headers go. Whose it is, the key says: a pattern with a group `subject`. Batches
without such a record pass untouched, byte for byte. Every batch has to be looked into for that, which costs far more
than copying it: only when somebody is erased, and the dataset declares it.
"""

import re
import threading
from dataclasses import dataclass, field
from typing import Final

from dr_assets.stores.kafka import codecs
from dr_assets.stores.kafka.batches import BatchHeader, Record, assemble, put_record, records, split
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.subjects.ids import SubjectIds

SUBJECT_GROUP: Final = "subject"
_REMEMBERED: Final = 100_000


@dataclass(slots=True)
class Blanked:
    """How many records were left without what they said, and of how many people."""

    records: int = 0
    people: set[str] = field(default_factory=set)


class TopicEraser:
    """Takes out of batches what records of erased people say; threads may share it."""

    def __init__(self, pattern: str, listed: ErasureList, ids: SubjectIds) -> None:
        self.listed = listed
        self.blanked = Blanked()
        self._pattern = re.compile(pattern)
        self._ids = ids
        self._known: dict[bytes, str | None] = {}
        self._mutex = threading.Lock()

    def whose(self, key: bytes | None) -> str | None:
        """The subject id of the erased person whose record has this key; None for everybody else's."""
        if key is None:
            return None
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            self._known[key] = self._looked_up(key)
        return self._known[key]

    def blank(self, batches: memoryview) -> memoryview:
        """Whole batches, in which what erased people's records said is gone; the very same where there is none."""
        out: list[bytes | memoryview] = []
        changed = False
        for header, batch in split(batches, check_crc=False):
            blanked = None if header.is_control else self._blank(header, batch)
            changed = changed or blanked is not None
            out.append(batch if blanked is None else blanked)
        return memoryview(b"".join(out)) if changed else batches

    def _looked_up(self, key: bytes) -> str | None:
        try:
            found = self._pattern.fullmatch(key.decode("utf-8"))
        except UnicodeDecodeError:
            return None
        personal_id = None if found is None else found[SUBJECT_GROUP]
        if personal_id is None:
            return None
        subject_id = self._ids.of(personal_id)
        return subject_id if subject_id in self.listed.people else None

    def _blank(self, header: BatchHeader, batch: memoryview) -> bytes | None:
        kept = list(records(batch))
        theirs = [self.whose(record.key) for record in kept]
        if not any(theirs):
            return None
        with self._mutex:
            self.blanked.records += sum(who is not None for who in theirs)
            self.blanked.people |= {who for who in theirs if who is not None}
        body = bytearray()
        for record, who in zip(kept, theirs, strict=True):
            told = record if who is None else Record(record.offset, record.timestamp, record.key, None)
            put_record(body, told, record.offset - header.base_offset, header.base_timestamp)
        return assemble(
            codecs.compress(header.compression, bytes(body)),
            base_offset=header.base_offset,
            leader_epoch=header.leader_epoch,
            attributes=header.attributes,
            last_offset_delta=header.last_offset_delta,
            base_timestamp=header.base_timestamp,
            max_timestamp=header.max_timestamp,
            producer=(header.producer_id, header.producer_epoch, header.base_sequence),
            count=header.count,
        )
