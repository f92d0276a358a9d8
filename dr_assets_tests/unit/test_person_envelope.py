"""A person's envelopes: nothing but the person's key opens them, and nothing in them can be changed, cut or moved."""

import os
from collections.abc import Iterator

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.envelope import (
    CHUNK_BYTES,
    HEAD_BYTES,
    TAG_BYTES,
    bound_to,
    key_id_of,
    open_stream,
    open_with,
    seal_for,
    seal_stream,
)

ANNA, BORIS = DataKey.of(b"\1" * 32), DataKey.of(b"\2" * 32)
AAD = bound_to(estate="casino", dataset="kyc", subject_id="ab" * 16, document_id="passport.jpg#v1")
STORED = CHUNK_BYTES + TAG_BYTES


def _refused(sealed: bytes, *codes: str, aad: bytes = AAD, key: DataKey = ANNA) -> None:
    with pytest.raises(VaultError) as caught:
        open_with(key, sealed, aad)
    assert caught.value.code in codes


def test_every_document_has_a_key_of_its_own() -> None:
    """The same document twice gives envelopes with nothing in common; each shows only whose key it asks for."""
    one, two = seal_for(ANNA, b"same", AAD), seal_for(ANNA, b"same", AAD)
    assert open_with(ANNA, one, AAD) == open_with(ANNA, two, AAD) == b"same"
    assert one[24:] != two[24:]
    assert one[56:104] != two[56:104]
    assert key_id_of(one) == ANNA.key_id
    assert ANNA.secret not in one
    assert b"same" not in one


def test_only_the_persons_key_opens_and_only_in_its_place() -> None:
    """Another person's key, another document's, dataset's or estate's place: refused."""
    sealed = seal_for(ANNA, b"passport", AAD)
    _refused(sealed, "vault.wrong_key", key=BORIS)
    place = {"estate": "casino", "dataset": "kyc", "subject_id": "ab" * 16, "document_id": "passport.jpg#v1"}
    for name in place:
        _refused(sealed, "vault.tampered", aad=bound_to(**place | {name: "cd" * 16}))
    forged = sealed[:8] + bytes.fromhex(BORIS.key_id) + sealed[24:]
    _refused(forged, "vault.tampered", key=BORIS)


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
)
def test_a_stream_gives_what_went_in_whatever_the_pieces(size: int) -> None:
    """Sizes at every edge, pieces of any length on either side; no more than a chunk comes out at once."""
    document = os.urandom(size)

    def pieces(data: bytes, step: int) -> Iterator[bytes]:
        yield b""
        for at in range(0, len(data), step):
            yield data[at : at + step]

    sealed = list(seal_stream(ANNA, pieces(document, 70_001), AAD))
    assert max(map(len, sealed)) <= STORED
    opened = list(open_stream(ANNA, pieces(b"".join(sealed), 99_991), AAD))
    assert b"".join(opened) == document
    assert max(map(len, opened)) <= CHUNK_BYTES


def test_every_byte_counts() -> None:
    """One altered bit anywhere in head, wrapped key or chunk: refused."""
    sealed = seal_for(ANNA, b"passport", AAD)
    for at in range(len(sealed)):
        _refused(
            sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :],
            "vault.malformed", "vault.newer_version", "vault.wrong_key", "vault.tampered",
        )  # fmt: skip


def test_chunks_cannot_be_cut_off_moved_repeated_or_added() -> None:
    """Cut at a chunk's edge or anywhere, two chunks exchanged, one left out, one twice, bytes behind: refused."""
    sealed = seal_for(ANNA, os.urandom(2 * CHUNK_BYTES + 5), AAD)
    head = sealed[:HEAD_BYTES]
    one, two, three = (sealed[at : at + STORED] for at in range(HEAD_BYTES, len(sealed), STORED))
    for body in (one + two, one, b"", two + one + three, one + three, one + one + two + three, one + two + three[:-1],
                 one + two + three + b"\0", one + two + three + three):  # fmt: skip
        _refused(head + body, "vault.tampered")
    _refused(sealed[: HEAD_BYTES - 1], "vault.malformed")
    _refused(b"", "vault.malformed")
    exact = seal_for(ANNA, bytes(CHUNK_BYTES), AAD)
    other = seal_for(ANNA, b"", AAD)
    _refused(exact + other[HEAD_BYTES:], "vault.tampered")


def test_a_later_version_is_said_to_be_one() -> None:
    """Not taken for damage."""
    sealed = seal_for(ANNA, b"passport", AAD)
    _refused(sealed[:7] + b"\2" + sealed[8:], "vault.newer_version")
    _refused(sealed[:7] + b"\0" + sealed[8:], "vault.malformed")
