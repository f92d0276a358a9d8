"""Signed notes (C2SP signed-note): a short text, and one line for each key that signed it.

What belongs here: the bytes of notes and verifier keys, key ids, Ed25519 (type 0x01). What stays out: what a text
says (checkpoint.py), signatures that hold more than a signature (cosignature.py).
"""

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dr_assets.estate.errors import PolicyError, VaultError

ED25519: Final = 0x01
KEY_ID_BYTES: Final = 4
PUBLIC_KEY_BYTES: Final = 32
# A verifier may refuse what has more; notes of ours have one signature and one for each witness.
NOTE_LIMIT_BYTES: Final = 1 << 20
SIGNATURES_LIMIT: Final = 100
_DASH: Final = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: whose it claims to be, and the signature without the key id before it."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line as it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode('ascii')}\n"

    @classmethod
    def parse(cls, line: str) -> "NoteSignature":
        """A line without its newline; raises VaultError `log.malformed_note`."""
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = strict_base64(encoded)
        if not line.startswith(_DASH) or not is_key_name(name) or raw is None or len(raw) <= KEY_ID_BYTES:
            raise _malformed("a line below the text is no signature")
        return cls(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its final newline; `signatures` were verified, `unverified` are by keys that were not asked for."""

    text: str
    signatures: tuple[NoteSignature, ...]
    unverified: tuple[NoteSignature, ...] = ()

    def to_bytes(self) -> bytes:
        """All of it, verified signatures first."""
        return format_note(self.text, (*self.signatures, *self.unverified))

    def by(self, verifier: "NoteVerifier") -> tuple[NoteSignature, ...]:
        """The verified signatures by this key."""
        return tuple(s for s in self.signatures if (s.name, s.key_id) == (verifier.name, verifier.key_id))


class NoteSigner(Protocol):
    """A key that signs notes."""

    @property
    def name(self) -> str:
        """The key's name: no spaces, no plus sign; best a URL without its scheme."""
        ...

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        ...

    def sign(self, text: bytes) -> bytes:
        """What stands after the key id in the signature line."""
        ...


class NoteVerifier(Protocol):
    """A key that a reader of notes believes."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        ...

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether this key made this signature of this text."""
        ...


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key as people hand it on: `name+key id in hex+base64 of type byte and key`."""

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of the SHA-256 of name, newline, type byte and public key."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([self.kind]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Raises PolicyError `log.bad_verifier_key`, also when the key id isn't that of name and key."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = strict_base64(encoded)
        if raw and is_key_name(name):
            key = cls(name, raw[0], raw[1:])
            if key.key_id.hex() == key_id:
                return key
        raise bad_verifier_key(text)


@dataclass(frozen=True, slots=True)
class Ed25519Verifier:
    """Believes plain Ed25519 signatures (type 0x01) of one key."""

    name: str
    public_key: bytes

    @property
    def key(self) -> VerifierKey:
        """As a verifier key; `str` of it is what to hand on."""
        return VerifierKey(self.name, ED25519, self.public_key)

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        return self.key.key_id

    @classmethod
    def parse(cls, text: str) -> "Ed25519Verifier":
        """From a verifier key of type 0x01; raises PolicyError `log.bad_verifier_key`."""
        key = VerifierKey.parse(text)
        if key.kind != ED25519 or len(key.public_key) != PUBLIC_KEY_BYTES:
            raise bad_verifier_key(text)
        return cls(key.name, key.public_key)

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether this key made this signature of this text."""
        return ed25519_holds(self.public_key, signature, text)


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """Signs notes with an Ed25519 key, wherever it lies: `sign_raw` signs bytes as they are."""

    name: str
    public_key: bytes
    sign_raw: Callable[[bytes], bytes]

    @classmethod
    def of(cls, name: str, private_key: Ed25519PrivateKey) -> "Ed25519Signer":
        """With a key in memory. Raises PolicyError `log.bad_key_name`."""
        if not is_key_name(name):
            raise PolicyError("log.bad_key_name", f"{name!r} can't name a key of notes", "no spaces, no plus sign")
        return cls(name, private_key.public_key().public_bytes_raw(), private_key.sign)

    @property
    def verifier(self) -> Ed25519Verifier:
        """Who believes it."""
        return Ed25519Verifier(self.name, self.public_key)

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        return self.verifier.key_id

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return self.sign_raw(text)


def sign_note(text: str, signers: Iterable[NoteSigner]) -> bytes:
    """The note: `text`, which ends in a newline, a blank line, a line for each signer.

    Raises VaultError `log.malformed_note` for a text or name that no reader would take.
    """
    return format_note(text, [NoteSignature(s.name, s.key_id, s.sign(text.encode())) for s in signers])


def format_note(text: str, signatures: Iterable[NoteSignature]) -> bytes:
    """A note of these signatures, which are not verified here. Raises VaultError `log.malformed_note`."""
    data = (text + "\n" + "".join(signature.line() for signature in signatures)).encode()
    if parse_note(data).text != text:
        raise _malformed("the text to sign can't be told from the signatures below it")
    return data


def parse_note(data: bytes) -> Note:
    """Text and lines, nothing verified: every signature is `unverified`. Raises VaultError `log.malformed_note`."""
    if len(data) > NOTE_LIMIT_BYTES:
        raise _malformed(f"{len(data)} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if any(character < " " and character != "\n" for character in whole):
        raise _malformed("it holds a control character")
    text, blank, below = whole.rpartition("\n\n")
    if not blank or not below.endswith("\n"):
        raise _malformed("no signature stands below a blank line")
    lines = below[:-1].split("\n")
    if len(lines) > SIGNATURES_LIMIT:
        raise _malformed(f"{len(lines)} signatures")
    # The same line twice says nothing more.
    return Note(text + "\n", (), tuple(dict.fromkeys(NoteSignature.parse(line) for line in lines)))


def verify_note(data: bytes, verifiers: Iterable[NoteVerifier]) -> Note:
    """The note, with the signatures by `verifiers` verified; those by others are kept as unverified.

    Raises VaultError `log.malformed_note`, `log.bad_note_signature` when a line by a known key doesn't hold (then
    nothing of the note is believed), `log.unsigned_note` when none of the keys signed it.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    note = parse_note(data)
    verified: list[NoteSignature] = []
    unverified: list[NoteSignature] = []
    for signature in note.unverified:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            unverified.append(signature)
            continue
        if not verifier.verify(note.text.encode(), signature.signature):
            raise VaultError(
                "log.bad_note_signature",
                f"the signature by {signature.name}+{signature.key_id.hex()} does not fit the note's text",
                "text or signature was altered: compare with another copy",
            )
        verified.append(signature)
    if not verified:
        raise VaultError(
            "log.unsigned_note",
            "no key that is believed here signed the note",
            f"believed: {', '.join(sorted(name for name, _ in known)) or 'none'}; name the log's key, or distrust it",
        )
    return Note(note.text, tuple(verified), tuple(unverified))


def is_key_name(name: str) -> bool:
    """Whether a key of notes may be called that."""
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


def strict_base64(text: str) -> bytes | None:
    """What the one encoding of some bytes encodes; None for everything else that lenient decoders take."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if base64.b64encode(raw).decode("ascii") == text else None


def ed25519_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key made the signature of the message; not for a key that is none."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def bad_verifier_key(text: str) -> PolicyError:
    """The error for a string that is no verifier key of the kind that is wanted."""
    return PolicyError(
        "log.bad_verifier_key",
        f"{text[:200]!r} is no key that verifies notes",
        "expected name+8 hex digits+base64, as whoever holds the private key prints it",
    )


def _malformed(what: str) -> VaultError:
    return VaultError("log.malformed_note", f"no signed note: {what}", "take the log's file from another copy")
