"""Envelopes: a document under a key of its own, which only the person's key opens.

What belongs here: the bytes of one envelope, whole or as a stream. What stays out: where a person's key comes from
(ring.py), and the sealed objects that envelopes lie in (stores/).

Nothing but the person's key opens an envelope: no key of a dataset, no escrow. When that key is destroyed, whatever
copy of the envelope survives, wherever it lies, is noise. The associated data says whose document it is and which
(`bound_to`), so that no envelope passes for another one's, and every chunk knows its place and whether it is the last:
what is cut off, repeated or moved is refused (docs/format.md, section 10).
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import malformed
from dr_assets.vault.keys.derive import KEY_BYTES, SALT_BYTES, DataKey

MAGIC: Final = b"\x89DRPERS"
VERSION: Final = 1
CHUNK_BYTES: Final = 1 << 20
TAG_BYTES: Final = 16
_LABEL: Final = b"dr_assets v1 person envelope"
_KEY_ID: Final = slice(8, 24)
_SALT: Final = slice(24, 24 + SALT_BYTES)
_UNWRAPPED: Final = _SALT.stop
HEAD_BYTES: Final = _UNWRAPPED + KEY_BYTES + TAG_BYTES
_STORED_CHUNK: Final = CHUNK_BYTES + TAG_BYTES
_ONCE: Final = bytes(12)  # the nonce of a key that encrypts once


def bound_to(*, estate: str, dataset: str, subject_id: str, document_id: str) -> bytes:
    """The associated data of a person's document; `document_id` names it within the dataset, version and all."""
    return canonical.encode(
        {"dataset": dataset, "document_id": document_id, "estate": estate, "subject_id": subject_id}
    )


def sealed_size(plaintext_bytes: int) -> int:
    """How many bytes the envelope of so many has."""
    return HEAD_BYTES + plaintext_bytes + TAG_BYTES * max(1, -(-plaintext_bytes // CHUNK_BYTES))


def seal_for(person: DataKey, plaintext: bytes, aad: bytes) -> bytes:
    """The envelope of a document that fits into memory, under a fresh key."""
    return b"".join(seal_stream(person, (plaintext,), aad))


def seal_stream(person: DataKey, source: Iterable[bytes], aad: bytes) -> Iterator[bytes]:
    """The envelope of a document of any size, in pieces, of which no more than one chunk is held."""
    return seal_under(person, source, aad, salt=os.urandom(SALT_BYTES), document_key=os.urandom(KEY_BYTES))


def seal_under(
    person: DataKey, source: Iterable[bytes], aad: bytes, *, salt: bytes, document_key: bytes
) -> Iterator[bytes]:
    """As `seal_stream`, with salt and key given: for golden vectors alone, since a key that is used twice is broken."""
    head = MAGIC + bytes([VERSION]) + bytes.fromhex(person.key_id) + salt
    head += AESGCM(_wrapping_key(person, salt)).encrypt(_ONCE, document_key, head + aad)
    yield head
    cipher, bound = AESGCM(document_key), hashlib.sha256(head + aad).digest()
    for number, chunk, is_last in _cut(source, CHUNK_BYTES):
        yield cipher.encrypt(_nonce(number), chunk, _bound(bound, number, is_last=is_last))


def open_with(person: DataKey, sealed: bytes, aad: bytes) -> bytes:
    """The document. Raises as `open_stream`."""
    return b"".join(open_stream(person, (sealed,), aad))


def open_stream(person: DataKey, source: Iterable[bytes], aad: bytes) -> Iterator[bytes]:
    """The document in pieces, each authenticated; that none is missing at the end is known when the iterator ends.

    Raises VaultError `vault.malformed`, `vault.newer_version`, `vault.wrong_key` (another person's, or an earlier key
    of this one), `vault.tampered` (altered, cut, moved, or bound to something else).
    """
    head, rest = _split_head(source)
    document_key = _unwrap(person, head, aad)
    cipher, bound = AESGCM(document_key), hashlib.sha256(head.data + aad).digest()
    for number, chunk, is_last in _cut(rest, _STORED_CHUNK):
        try:
            plaintext = cipher.decrypt(_nonce(number), chunk, _bound(bound, number, is_last=is_last))
        except (InvalidTag, ValueError):
            raise _tampered(f"chunk {number} of a document{', its last,' if is_last else ''}") from None
        if not plaintext and number:
            raise malformed("an envelope: ends with an empty chunk, which no writer makes")
        yield plaintext


def key_id_of(sealed: bytes) -> str:
    """Which person's key an envelope asks for, from its first bytes. Raises as `open_stream` does for its head."""
    return _parse_head(sealed[:HEAD_BYTES]).key_id


@dataclass(frozen=True, slots=True)
class _Head:
    data: bytes

    @property
    def key_id(self) -> str:
        return self.data[_KEY_ID].hex()


def _parse_head(data: bytes) -> _Head:
    if len(data) < HEAD_BYTES or data[: len(MAGIC)] != MAGIC:
        raise malformed("an envelope: does not begin as one")
    version = data[len(MAGIC)]
    if version > VERSION:
        raise VaultError(
            "vault.newer_version",
            f"the envelope has version {version}, this program reads up to {VERSION}",
            "use the dr-assets release that wrote it, or a newer one",
        )
    if version != VERSION:
        raise malformed(f"an envelope: version {version} never existed")
    return _Head(data)


def _split_head(source: Iterable[bytes]) -> tuple[_Head, Iterator[bytes]]:
    """The head, and what comes behind it."""
    pieces, begun = iter(source), bytearray()
    for piece in pieces:
        begun += piece
        if len(begun) >= HEAD_BYTES:
            break
    head = _parse_head(bytes(begun[:HEAD_BYTES]))

    def rest() -> Iterator[bytes]:
        yield bytes(begun[HEAD_BYTES:])
        yield from pieces

    return head, rest()


def _unwrap(person: DataKey, head: _Head, aad: bytes) -> bytes:
    if head.key_id != person.key_id:
        raise VaultError(
            "vault.wrong_key",
            f"the envelope is under the person's key {head.key_id}, at hand is {person.key_id}",
            "it is another person's, or under a key that this one had before: `dr-assets keys subjects verify`",
        )
    salt = head.data[_SALT]
    try:
        return AESGCM(_wrapping_key(person, salt)).decrypt(_ONCE, head.data[_UNWRAPPED:], head.data[:_UNWRAPPED] + aad)
    except InvalidTag:
        raise _tampered("the key of a document") from None


def _cut(source: Iterable[bytes], size_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes and whether it is the last, of pieces of one size; at least one, and only the last is shorter."""
    held, number = bytearray(), 0
    for piece in source:
        view = memoryview(piece)
        while view:
            if len(held) == size_bytes:
                yield number, bytes(held), False
                held.clear()
                number += 1
            taken = view[: size_bytes - len(held)]
            held += taken
            view = view[len(taken) :]
    yield number, bytes(held), True


def _wrapping_key(person: DataKey, salt: bytes) -> bytes:
    """A key for this one envelope: the person's own never meets two nonces."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=_LABEL).derive(person.secret)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _bound(head_sha256: bytes, number: int, *, is_last: bool) -> bytes:
    return head_sha256 + number.to_bytes(8, "big") + (b"\1" if is_last else b"\0")


def _tampered(what: str) -> VaultError:
    return VaultError(
        "vault.tampered",
        f"{what} fails authentication",
        "it was altered or cut, or is not the document it passes for; take it from a replica of this vault",
    )
