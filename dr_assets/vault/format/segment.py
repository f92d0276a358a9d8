"""Sealing and opening one object.

What belongs here: the order of the steps. What stays out: storage, clocks, where keys come from.

Making the header (`prepare`) is cheap and happens in a chain's order; `Prepared.seal` is the heavy part, touches
nothing shared and runs in a pool.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.envelope import SIGNATURE_DOMAIN, TRAILER_BYTES, Envelope, signed_message, split
from dr_assets.vault.format.frames import open_frames, seal_frames
from dr_assets.vault.format.header import PLAINTEXT_LIMIT_BYTES, Header, check_header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.keys.derive import SALT_BYTES, DataKey, FrameKey, derive_frame_key
from dr_assets.vault.signing import Signer, Trust

KeyOf = Callable[[Header], DataKey]
Plaintext = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished object: send these bytes, and on a retry the same bytes again."""

    key: ObjectKey
    data: bytes = field(repr=False)
    sha256: str
    header: Header


@dataclass(frozen=True, slots=True)
class Opened:
    """An object whose digest, signature, key and plaintext were all verified.

    `frames` are its plaintext in order, 1 MiB each save the last: who can take it in pieces needs no second copy.
    """

    header: Header
    frames: tuple[bytes, ...] = field(repr=False)

    @property
    def plaintext(self) -> bytes:
        """All of it, put together anew at each call."""
        return b"".join(self.frames)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A fixed header and the plaintext it speaks of; `header.digest` is the next one's `previous`."""

    header: Header
    _plaintext: Plaintext = field(repr=False)
    _frame_key: FrameKey
    _signer: Signer

    def seal(self) -> Sealed:
        """Compress, encrypt, sign. Thread-safe, releases the GIL for nearly all of its time, repeatable."""
        head = self.header.encoded()
        header_sha256, content = hashlib.sha256(head).digest(), hashlib.sha256(head)
        pieces: list[bytes | bytearray] = [head]
        for frame in seal_frames(memoryview(self._plaintext), self._frame_key.secret, header_sha256):
            content.update(frame)
            pieces.append(frame)
        digest = content.digest()
        trailer = digest + self._signer.sign(SIGNATURE_DOMAIN, signed_message(header_sha256, digest))
        content.update(trailer)
        sha256 = content.hexdigest()
        return Sealed(self.header.key(sha256), b"".join([*pieces, trailer]), sha256, self.header)


def prepare(
    *,
    estate: str,
    dataset: str,
    stream: str,
    kind: str,
    system_id: str,
    timeline: int,
    first: int,
    last: int,
    begin_at: datetime,
    end_at: datetime,
    sealed_at: datetime,
    plaintext: Plaintext,
    data_key: DataKey,
    signer: Signer,
    previous: str | None = None,
    writer_epoch: int = 0,
    extra: Mapping[str, str] | None = None,
    salt: bytes | None = None,
    plaintext_sha256: str | None = None,
) -> Prepared:
    """Fix the header of an object that will hold `plaintext` at positions [first, last).

    `salt` is drawn at random; golden vectors alone give one. `plaintext_sha256` is computed unless given. Raises
    VaultError `vault.too_large` above 1 GiB and `vault.malformed` for a field that no reader would accept.
    """
    if len(plaintext) > PLAINTEXT_LIMIT_BYTES:
        raise VaultError(
            "vault.too_large",
            f"{len(plaintext)} bytes for one object of {dataset}/{stream}, at most {PLAINTEXT_LIMIT_BYTES} are allowed",
            "cut it into several objects",
        )
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    frame_key = derive_frame_key(data_key, salt)
    header = Header(
        estate=estate, dataset=dataset, stream=stream, kind=kind, system_id=system_id, timeline=timeline,
        first=first, last=last, begin_at=begin_at, end_at=end_at, sealed_at=sealed_at, size_bytes=len(plaintext),
        plaintext_sha256=plaintext_sha256 or hashlib.sha256(plaintext).hexdigest(),
        key_id=data_key.key_id, salt=salt.hex(), key_commitment=frame_key.commitment, signer_id=signer.signer_id,
        previous=previous, writer_epoch=writer_epoch, extra=dict(extra or {}),
    )  # fmt: skip
    return Prepared(check_header(header), plaintext, frame_key, signer)


def verify_envelope(data: bytes, trust: Trust, *, name: str, content_sha256: bytes | None = None) -> Envelope:
    """The parts of an object whose content digest and signature are right; nothing is decrypted yet.

    `content_sha256` is that of all bytes before the trailer, for a caller who has reckoned it already.
    Raises VaultError `vault.malformed`, `vault.newer_version`, `vault.untrusted_signer`, `vault.tampered`,
    `vault.bad_signature`.
    """
    envelope = split(data)
    content = content_sha256 or hashlib.sha256(memoryview(data)[:-TRAILER_BYTES]).digest()
    if content != envelope.trailer.content_sha256:
        raise VaultError(
            "vault.tampered",
            f"{name}: the content does not have the digest that its trailer holds",
            "the object was altered; restore from a replica of this vault",
        )
    trust.verify(
        envelope.header.signer_id,
        envelope.trailer.signature,
        SIGNATURE_DOMAIN,
        signed_message(envelope.header_sha256, envelope.trailer.content_sha256),
        name=name,
    )
    return envelope


def check_belongs(header: Header, key: ObjectKey, *, name: str) -> None:
    """Raise VaultError `vault.misplaced` unless `header` says it lies where `key` says."""
    own = header.key(key.digest)
    if own != key:
        raise VaultError(
            "vault.misplaced",
            f"{name} holds an object that was sealed as {own.place}{own.first:016X}-{own.last:016X}",
            "somebody copied an object over another name; restore from a replica of this vault",
        )


def open_sealed(
    data: bytes,
    *,
    trust: Trust,
    key_of: KeyOf,
    key: ObjectKey | None = None,
    name: str = "",
    plaintext_digest: bool = True,
) -> Opened:
    """Verify everything, then decrypt: digest, signer, signature, place, key commitment, frames, plaintext digest.

    `key`, when given, is the name the bytes lay under. Without `plaintext_digest` the last of these is left out, for a
    caller who holds the plaintext to checksums that its source made: an object that was altered is found without it,
    a writer that sealed other bytes than it was given is not. Raises VaultError as `verify_envelope`, and
    `vault.misplaced`, `vault.wrong_key`, `vault.no_key`.
    """
    name = name or (str(key) if key else "object")
    envelope = verify_envelope(data, trust, name=name)
    if key is not None:
        check_belongs(envelope.header, key, name=name)
    frames = open_frames(data, envelope, unlock(envelope.header, key_of, name=name).secret, name=name)
    if not plaintext_digest:
        return Opened(envelope.header, tuple(frames))
    return Opened(envelope.header, check_plaintext(envelope.header, frames, name=name))


def unlock(header: Header, key_of: KeyOf, *, name: str) -> FrameKey:
    """The object's frame key, its commitment compared before anything is decrypted."""
    frame_key = derive_frame_key(key_of(header), bytes.fromhex(header.salt))
    if frame_key.commitment != header.key_commitment:
        raise VaultError(
            "vault.wrong_key",
            f"{name}: the data key {header.key_id} is not the one this object was sealed with",
            "check that the keys folder belongs to this vault",
        )
    return frame_key


def check_plaintext(header: Header, frames: Iterable[bytes], *, name: str) -> tuple[bytes, ...]:
    """`frames`, or VaultError `vault.tampered` when together they have not the digest that the header names."""
    digest, checked = hashlib.sha256(), []
    for frame in frames:
        digest.update(frame)
        checked.append(frame)
    if digest.hexdigest() != header.plaintext_sha256:
        raise VaultError(
            "vault.tampered", f"{name}: the plaintext has not the digest that its header names", "its writer was faulty"
        )
    return tuple(checked)
