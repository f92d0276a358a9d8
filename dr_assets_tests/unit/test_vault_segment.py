"""Sealing and opening one object: whole or not at all."""

import hashlib
import random
import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.envelope import FRAME_PLAINTEXT_BYTES, SIGNATURE_DOMAIN, frame_count, header_length, split
from dr_assets.vault.format.header import PLAINTEXT_LIMIT_BYTES
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Opened, Sealed, open_sealed, prepare
from dr_assets.vault.keys.derive import DataKey, derive_frame_key
from dr_assets.vault.signing import Signer, Trust

AT = datetime(2031, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
SIGNER = Signer.from_seed(bytes(range(32)))
DATA_KEY = DataKey.of(bytes(range(32, 64)))
MIB = FRAME_PLAINTEXT_BYTES


def seal(plaintext: bytes, **changes: Any) -> Sealed:
    """An object of WAL, unless changed."""
    fields: dict[str, Any] = {
        "estate": "casino",
        "dataset": "ledger",
        "stream": "wal",
        "kind": "wal",
        "system_id": "7512345678901234567",
        "timeline": 1,
        "first": 4096,
        "last": 4096 + max(1, len(plaintext)),
        "begin_at": AT,
        "end_at": AT,
        "sealed_at": AT,
        "data_key": DATA_KEY,
        "signer": SIGNER,
    }
    return prepare(plaintext=plaintext, **(fields | changes)).seal()


def open_it(data: bytes, key: ObjectKey | None = None, *, data_key: DataKey = DATA_KEY) -> Opened:
    """As a vault would."""
    return open_sealed(data, trust=Trust.of(SIGNER), key_of=lambda _: data_key, key=key)


def refusal(data: bytes, key: ObjectKey | None = None, *, data_key: DataKey = DATA_KEY) -> str:
    """The code with which opening is refused."""
    with pytest.raises(VaultError) as caught:
        open_it(data, key, data_key=data_key)
    assert "HINT: " in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 15, 16, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7])
@pytest.mark.parametrize("compressible", [True, False])
def test_opens_what_was_sealed(size: int, compressible: bool) -> None:
    """Every size around the frame's edge, empty included, comes back byte for byte, and so does the header."""
    plaintext = bytes(size) if compressible else random.Random(size).randbytes(size)
    sealed = seal(plaintext, previous="ab" * 32, writer_epoch=7, extra={"recovery_point_at": "…"})
    opened = open_it(sealed.data, sealed.key)
    assert opened.plaintext == plaintext
    assert opened.header == sealed.header
    assert len(split(sealed.data).frames) == frame_count(size)


def test_the_name_ends_in_the_digest_of_the_bytes() -> None:
    """So that what lies under a name can be held to it."""
    sealed = seal(b"money")
    assert sealed.sha256 == hashlib.sha256(sealed.data).hexdigest()
    assert str(sealed.key) == (
        "casino/ledger/wal/7512345678901234567/00000001/0000000000001000-0000000000001005-" + sealed.sha256[:32]
    )


def test_sealing_again_gives_the_same_bytes() -> None:
    """A retry sends what it sent before: one nonce never meets two plaintexts."""
    prepared = prepare(
        estate="casino", dataset="ledger", stream="wal", kind="wal", system_id="1", timeline=1, first=0, last=5,
        begin_at=AT, end_at=AT, sealed_at=AT, plaintext=bytes(3 * MIB), data_key=DATA_KEY, signer=SIGNER,
    )  # fmt: skip
    assert prepared.seal() == prepared.seal()


def test_two_objects_share_no_key_and_show_no_plaintext() -> None:
    """The salt is drawn anew for each object, so equal plaintexts look unlike; nothing of them shows."""
    one, other = seal(b"secret " * 100), seal(b"secret " * 100)
    assert one.header.salt != other.header.salt
    assert one.header.key_commitment != other.header.key_commitment
    assert b"secret" not in one.data


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 7))
def test_any_flipped_bit_is_refused(place: int, bit: int) -> None:
    """Wherever a bit flips (header, length, frame, trailer), opening fails, name or no name."""
    data = bytearray(FLIPPED.data)
    data[place % len(data)] ^= 1 << bit
    refusal(bytes(data))
    assert refusal(bytes(data), FLIPPED.key)


FLIPPED = seal(random.Random(1).randbytes(5000))


def test_any_cut_is_refused() -> None:
    """An object that ends early never opens, wherever it ends."""
    for length in [*range(0, len(FLIPPED.data), 97), len(FLIPPED.data) - 1]:
        refusal(FLIPPED.data[:length])
    assert refusal(FLIPPED.data + b"\0") == "vault.malformed"


def test_another_key_is_told_before_anything_is_decrypted() -> None:
    """The key commitment fails first, with one clear error."""
    assert refusal(FLIPPED.data, data_key=DataKey(bytes(32), DATA_KEY.key_id)) == "vault.wrong_key"


def test_an_object_under_another_name_is_refused() -> None:
    """A genuine object copied over another's name does not belong there."""
    key = replace(FLIPPED.key, first=FLIPPED.key.first + 1)
    assert refusal(FLIPPED.data, key) == "vault.misplaced"


def test_an_unknown_signer_is_refused() -> None:
    """Knowing the data key is not enough to write into a vault."""
    assert refusal(seal(b"x", signer=Signer.from_seed(bytes(32))).data) == "vault.untrusted_signer"


def test_a_newer_version_says_so() -> None:
    """A vault of a later release gives a hint to update, not a riddle."""
    data = bytearray(FLIPPED.data)
    data[7] = 2
    assert refusal(bytes(data)) == "vault.newer_version"


def rebuilt(sealed: Sealed, frames: list[bytes], *, head: bytes | None = None) -> bytes:
    """The object with other frames, digest and signature made right again: only the signer could do that."""
    head = head or sealed.header.encoded()
    body = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
    content = hashlib.sha256(head + body).digest()
    signature = SIGNER.sign(SIGNATURE_DOMAIN, hashlib.sha256(head).digest() + content)
    return head + body + content + signature


def frames_of(sealed: Sealed) -> list[bytes]:
    """Its ciphertexts."""
    return [sealed.data[begin:end] for begin, end in split(sealed.data).frames]


def test_frames_cannot_be_reordered_dropped_or_spliced() -> None:
    """Even with all digests and the signature made to fit, each frame is bound to its header, place and end."""
    sealed = seal(random.Random(2).randbytes(3 * MIB))
    one, two, three = frames_of(sealed)
    other = frames_of(seal(random.Random(3).randbytes(3 * MIB)))[1]
    for frames in ([two, one, three], [one, other, three], [one, two, two]):
        assert refusal(rebuilt(sealed, frames)) == "vault.tampered"
    for frames in ([one, two], [one, two, three, three], []):
        assert refusal(rebuilt(sealed, frames)) == "vault.malformed"


def encrypted(sealed: Sealed, compressed: bytes) -> bytes:
    """The object whose only frame holds these bytes instead of zstd of its plaintext."""
    key = derive_frame_key(DATA_KEY, bytes.fromhex(sealed.header.salt)).secret
    bound = bytes.fromhex(sealed.header.digest) + bytes(4) + b"\1"
    return rebuilt(sealed, [AESGCM(key).encrypt(bytes(12), compressed, bound)])


@pytest.mark.parametrize(
    "compressed",
    [
        zstandard.compress(bytes(64 * MIB)),
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MIB)),
        zstandard.compress(b"short"),
        zstandard.compress(b"0123456789") * 2,
        zstandard.compress(b"0123456789")[:-1],
        b"\x28\xb5\x2f\xfd\x60\x0a" + bytes(20),
        b"no zstd",
        b"",
    ],
    ids=["bomb", "bomb of unknown size", "too short", "two frames", "cut", "lying size", "no zstd", "empty"],
)
def test_a_frame_of_any_other_size_is_refused_before_it_is_unpacked(compressed: bytes) -> None:
    """A signer gone mad can't make a reader allocate: the claimed size is compared with the header's first."""
    assert refusal(encrypted(seal(b"0123456789"), compressed)) == "vault.malformed"


def test_lengths_beyond_all_bounds_are_refused() -> None:
    """Length fields of 4 GiB in a small object, and plaintexts over the limit, are refused without allocating."""
    head = FLIPPED.header.encoded()
    huge = b"\xff\xff\xff\xff"
    assert refusal(head[:8] + huge + head[12:]) == "vault.malformed"
    with pytest.raises(VaultError, match="4294967295"):
        header_length(head[:8] + huge)
    assert refusal(head + huge + FLIPPED.data[len(head) + 4 :]) == "vault.malformed"

    class Huge(bytes):
        def __len__(self) -> int:
            return PLAINTEXT_LIMIT_BYTES + 1

    with pytest.raises(VaultError, match="too_large"):
        seal(Huge(), last=5000)
