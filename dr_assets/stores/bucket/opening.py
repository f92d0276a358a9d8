"""Documents out of their parts: opened with their person's key, and held to what the inventory says of them.

What belongs here: that, for whoever brings documents back or looks at them. What stays out: which ones, and what then.
"""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from dr_assets.estate.errors import VaultError
from dr_assets.stores.bucket.document import Head, Owner, parse_record
from dr_assets.stores.bucket.inventory import Row, Spot
from dr_assets.stores.bucket.persons import Keys
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.postgres.patience import patiently
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.keys.derive import DataKey


@dataclass(frozen=True, slots=True)
class Document:
    """One version, its head opened and held to its row; `content` is empty where it lies in pieces."""

    row: Row
    head: Head
    content: memoryview = field(repr=False)
    person: DataKey | None = field(repr=False)

    def whole(self) -> memoryview:
        """The content, its digest compared. Raises VaultError `vault.tampered`."""
        if (hashlib.sha256(self.content).hexdigest(), len(self.content)) != (self.head.sha256, self.head.size_bytes):
            raise other_bytes(self.row)
        return self.content


class Documents:
    """Opens what a site's vault holds; threads may share it."""

    def __init__(self, site: Site, abandoned: threading.Event | None = None) -> None:
        self._site = site
        self._keys = Keys(site.ring, is_sealing=False)
        self._abandoned = abandoned or threading.Event()

    def part(self, name: str) -> bytes:
        """A part's plaintext. Raises VaultError for one that is missing or damaged."""
        key = ObjectKey.parse(name)
        if key is None:
            raise VaultError("backup.bad_manifest", f"{name} is no name of a part", "run `dr-assets vault verify`")
        vault = self._site.vault
        return patiently(lambda: vault.open(vault.find(key)).plaintext, self._abandoned)

    def head(self, row: Row, data: bytes) -> Document | None:
        """The document whose head lies in this part; None where its person is erased.

        Raises VaultError `vault.tampered`, `vault.malformed`, `backup.bad_inventory`, `subjects.no_key`.
        """
        person: DataKey | None = None
        if row.subject_id is not None:
            person = self._keys.of(row.subject_id)
            if person is None:
                return None
        what = label(row)
        head, content = parse_record(self._owner(row).open(person, cut(data, row.head, row)), what=what)
        names = self._site.names
        digest = names.digest(head.sha256, row.subject_id) if head.sha256 else ""
        told = (names.name_id(head.name), head.is_marker, head.size_bytes, digest)
        if told != (row.name_id, row.state == "marker", row.size_bytes, row.digest):
            raise VaultError(
                "backup.bad_inventory",
                f"{what}: its head says something else than the inventory",
                "run `dr-assets bucket verify`; restore from another vault",
            )
        return Document(row, head, content, person)

    def pieces(self, document: Document) -> Iterator[bytes]:
        """A large document's content, its digest known to be right before the last piece is handed out."""
        row, head, owner = document.row, document.head, self._owner(document.row)
        digest, size_bytes, opened = hashlib.sha256(), 0, ("", b"")
        for number, spot in enumerate(row.pieces):
            if opened[0] != spot.part:
                opened = (spot.part, self.part(spot.part))
            piece = owner.open(document.person, cut(opened[1], spot, row), number)
            digest.update(piece)
            size_bytes += len(piece)
            is_last = number == len(row.pieces) - 1
            if is_last and (digest.hexdigest(), size_bytes) != (head.sha256, head.size_bytes):
                raise other_bytes(row)
            yield piece

    def _owner(self, row: Row) -> Owner:
        return Owner(self._site.vault.estate, self._site.name, row.subject_id, row.name_id, row.version)


def label(row: Row) -> str:
    """What errors call a version: nothing that names a person."""
    return f"version {row.version} of {row.name_id.hex()}"


def cut(data: bytes, spot: Spot | None, row: Row) -> bytes:
    """A record out of its part's plaintext. Raises VaultError `backup.bad_inventory`."""
    if spot is None or spot.offset + spot.length > len(data):
        raise VaultError(
            "backup.bad_inventory",
            f"{label(row)}: lies outside its part",
            "run `dr-assets bucket verify`; restore from another vault",
        )
    return data[spot.offset : spot.offset + spot.length]


def other_bytes(row: Row) -> VaultError:
    """The error of content that is not what its head names."""
    return VaultError(
        "vault.tampered", f"{label(row)} has not the digest that its head names", "restore from another vault"
    )
