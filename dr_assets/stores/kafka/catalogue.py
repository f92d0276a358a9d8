"""Catalogues of packs: sealed now and then by the capture, so that a reader opens few objects instead of every pack.

What belongs here: gathering rows and sealing them, and reading a chain of packs with their help. What stays out: a
catalogue's form (vault/format/pack_list.py), what the packs make up together (export.py).

A catalogue saves time and nothing else. Which packs there are, the listing says; a row is believed for the very name
that it tells of, which holds the digest of the pack's bytes; what no catalogue has is read from the pack itself.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.capture_facts import TIMELINE
from dr_assets.stores.kafka.pack import OpenedPack, Pack, open_pack
from dr_assets.stores.kafka.resume import recovery_point_of
from dr_assets.stores.sealing.putters import Stored
from dr_assets.vault.believed import believed
from dr_assets.vault.format import canonical
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.pack import PackIndex, Slice, index_length, parse_index
from dr_assets.vault.format.pack_list import (
    PACK_LIST,
    PACK_LIST_LIMIT_BYTES,
    PackRow,
    encode_pack_list,
    parse_pack_list,
)
from dr_assets.vault.vault import StoredObject, Vault

CATALOGUE_EVERY: Final = 1000  # packs
CATALOGUE_BYTES: Final = 8 << 20  # of indices: what a reader has in memory at a time
LEAST_AT_A_STOP: Final = 100  # packs that are worth a catalogue when a capture stops
_READERS: Final = 8
_FEW: Final = 2 * CATALOGUE_EVERY  # packs whose indices are held at a time: no more of them lack a catalogue
_WHOLE_BYTES: Final = 2 << 20  # below this one read of all is cheaper than two of parts
_CHUNK: Final = 256


class Cataloguer:
    """Takes stored packs in order; `seal` puts a catalogue of what it was given. For one run of a capture.

    `take`, `is_due` and `cut` belong to the loop's thread, `seal` to the one that works beside it.
    """

    def __init__(self, vault: Vault, dataset: str, every: int = CATALOGUE_EVERY) -> None:
        self._vault = vault
        self._dataset = dataset
        self._every = every
        self._rows: list[PackRow] = []
        self._size = 0
        self._previous: str | None = None
        self.trouble: str | None = None

    @property
    def is_due(self) -> bool:
        """Whether enough was gathered."""
        return len(self._rows) >= self._every or self._size >= CATALOGUE_BYTES

    @property
    def is_worth_while(self) -> bool:
        """Whether what was gathered is worth an object now that nothing more comes."""
        return len(self._rows) >= min(self._every, LEAST_AT_A_STOP)

    def take(self, stored: Stored[Pack], previous: str | None, writer_epoch: int) -> None:
        """The next pack of the chain, read back; `previous` is the digest of the header before it."""
        pack = stored.piece
        if self._size >= 2 * CATALOGUE_BYTES or len(self._rows) >= 2 * self._every:
            self._rows, self._size = [], 0  # nobody takes them: readers open these packs
        self._rows.append(
            PackRow(
                stored.receipt.key, stored.header_digest, previous, writer_epoch, pack.begin_at, pack.end_at,
                pack.recovery_point_at, pack.index,
            )
        )  # fmt: skip
        self._size += pack.size_bytes - sum(each.size_bytes for each in pack.index.slices)

    def cut(self) -> list[PackRow]:
        """What was gathered; the next catalogue begins behind it."""
        rows, self._rows, self._size = self._rows, [], 0
        return rows

    def seal(self, rows: list[PackRow]) -> None:
        """Put a catalogue. One that can't be put is told and left out: its packs say the same."""
        try:
            self._previous = seal_catalogue(self._vault, self._dataset, rows, self._previous)
        except VaultError as error:
            self.trouble = f"no catalogue of packs is kept: {error.code}: {error.found}"
        else:
            self.trouble = None


def seal_catalogue(vault: Vault, dataset: str, rows: list[PackRow], previous: str | None) -> str:
    """Seal, put, read back; returns its header's digest. Raises VaultError."""
    first, last = rows[0], rows[-1]
    sealed = vault.prepare(
        dataset=dataset, stream=PACK_LIST, kind="manifest", system_id=first.key.system_id, timeline=TIMELINE,
        first=first.key.first, last=last.key.last, begin_at=first.begin_at, end_at=max(first.begin_at, last.end_at),
        plaintext=encode_pack_list(rows), previous=previous, writer_epoch=last.writer_epoch,
    ).seal()  # fmt: skip
    vault.put(sealed, vault.locks.lock(dataset, "manifest", vault.clock()))
    return sealed.header.digest


def open_catalogue(vault: Vault, obj: StoredObject) -> tuple[PackRow, ...]:
    """Fetch, verify, decrypt and parse. Raises VaultError."""
    plaintext = vault.open(obj).plaintext
    body = canonical.decode(plaintext, limit_bytes=PACK_LIST_LIMIT_BYTES, what=str(obj.key))
    return parse_pack_list(body, obj.key)


class Catalogued:
    """What catalogues and, where they lack, packs themselves say of the packs of one cluster."""

    def __init__(self, vault: Vault, objects: list[StoredObject], rows: Mapping[str, PackRow]) -> None:
        self._vault = vault
        self._rows = rows
        lacking = [obj for obj in objects if str(obj.key) not in rows]
        self._own: dict[ObjectKey, PackRow | Header | VaultError] = {}
        read = self._read if len(lacking) <= _FEW else self._read_header
        with ThreadPoolExecutor(_READERS, thread_name_prefix="headers") as pool:
            self._own.update(zip((obj.key for obj in lacking), pool.map(read, lacking), strict=True))

    def _read(self, obj: StoredObject) -> PackRow | Header | VaultError:
        try:
            return self._read_row(obj)
        except VaultError:
            return self._read_header(obj)  # whether its index is needed, the chain decides

    def _read_header(self, obj: StoredObject) -> Header | VaultError:
        try:
            return self._vault.header(obj)
        except VaultError as error:
            return error

    def _read_row(self, obj: StoredObject) -> PackRow:
        """What a pack says of itself: of a large one the first frame is read, which mostly holds all of its index."""
        if obj.size_bytes > _WHOLE_BYTES:
            header, head = self._vault.first_frame(obj)
            if index_length(head) <= len(head):
                return row_of(obj.key, header, parse_index(head, size_bytes=header.size_bytes, name=str(obj.key)))
        opened = open_pack(self._vault, obj)
        return row_of(obj.key, opened.header, opened.index)

    def link(self, obj: StoredObject) -> "PackRow | Header":
        """What joins it to others. Raises VaultError."""
        row = self._rows.get(str(obj.key))
        if row is not None:
            return row
        header = self._own[obj.key]
        if isinstance(header, VaultError):
            raise header
        return header

    def rows(self, objects: list[StoredObject]) -> Iterator[PackRow]:
        """All that is said of these, in their order; a few packs are opened at a time. Raises VaultError."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="indices") as pool:
            for at in range(0, len(objects), _CHUNK):
                yield from pool.map(self.row, objects[at : at + _CHUNK])

    def row(self, obj: StoredObject) -> PackRow:
        """What is said of one. Raises VaultError."""
        known = self._rows.get(str(obj.key)) or self._own.get(obj.key)
        return known if isinstance(known, PackRow) else self._read_row(obj)


def row_of(key: ObjectKey, header: Header, index: PackIndex) -> PackRow:
    """As a catalogue would have it."""
    return PackRow(
        key, header.digest, header.previous, header.writer_epoch, header.begin_at, header.end_at,
        recovery_point_of(header), index,
    )  # fmt: skip


def catalogued(
    vault: Vault, dataset: str, system_id: str, objects: list[StoredObject], *, believe: bool = True
) -> Catalogued:
    """Rows of all catalogues that can be believed (none if not `believe`), and headers of packs that they lack.

    Raises VaultError when the store can't be read.
    """
    listed: Iterable[StoredObject] = ()
    if believe:
        listed = vault.objects(dataset, PACK_LIST, system_id=system_id, timeline=TIMELINE)
    names = {str(obj.key) for obj in objects}
    begin, end = (objects[0].key.first, max(obj.key.last for obj in objects)) if objects else (0, 0)
    listed = (obj for obj in listed if obj.key.first < end and begin < obj.key.last)
    rows: dict[str, PackRow] = {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="catalogues") as pool:
        for found in pool.map(lambda obj: believed(lambda each: open_catalogue(vault, each), obj), listed):
            rows |= {name: row for row in found or () if (name := str(row.key)) in names}
    return Catalogued(vault, objects, rows)


def require_same(opened: OpenedPack, part: Slice) -> None:
    """A slice that a catalogue told of is the pack's own. Raises VaultError `kafka.catalogue`."""
    slices = opened.index.slices
    at = bisect_left(slices, part.at, key=lambda each: each.at)
    if slices[at : at + 1] != (part,):
        header = opened.header
        raise VaultError(
            "kafka.catalogue", f"pack {header.first} of {header.dataset} is not what a catalogue says of it",
            "open the export with catalogues=False: it reads the packs alone; `dr-assets vault verify` names the pack",
        )  # fmt: skip
