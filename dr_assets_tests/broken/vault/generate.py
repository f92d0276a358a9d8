"""A museum of broken objects: each is one of the golden vectors with one thing wrong, as damage or a forger makes it.

    python -m dr_assets_tests.broken.vault.generate

What belongs here: making them, and the code with which each is refused. What stays out: damage to a whole vault
(faults/vault). An exhibit never leaves the museum.
"""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dr_assets.vault.format.envelope import SIGNATURE_DOMAIN, split
from dr_assets.vault.format.header import HEADER_LIMIT_BYTES
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.keys.derive import DataKey, derive_frame_key
from dr_assets.vault.signing import Signer
from dr_assets_tests.vectors.vault.generate import DATA_KEY, MIB, SIGNER, pattern, seal

FOLDER = Path(__file__).parent
STRANGER = Signer.from_seed(hashlib.sha256(b"museum: stranger").digest())
SMALL = seal("museum", pattern(5000))
OTHER = seal("museum, other", pattern(4000), first=7, last=4007)
LONG = seal("museum, long", pattern(3 * MIB))


def head_of(sealed: Sealed) -> bytes:
    """Magic to header."""
    return sealed.header.encoded()


def frames_of(sealed: Sealed) -> list[bytes]:
    """Its ciphertexts."""
    return [sealed.data[begin:end] for begin, end in split(sealed.data).frames]


def forge(head: bytes, frames: list[bytes], *, signer: Signer = SIGNER) -> bytes:
    """An object of these parts with digest and signature made right: what only the signer could do."""
    body = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
    content = hashlib.sha256(head + body).digest()
    return head + body + content + signer.sign(SIGNATURE_DOMAIN, hashlib.sha256(head).digest() + content)


def reheaded(change: Callable[[bytes], bytes]) -> bytes:
    """The small object with other header bytes, signed again."""
    text = change(head_of(SMALL)[12:])
    return forge(head_of(SMALL)[:8] + struct.pack(">I", len(text)) + text, frames_of(SMALL))


def reframed(compressed: bytes) -> bytes:
    """The small object whose only frame holds these bytes, properly encrypted and signed."""
    key = derive_frame_key(DATA_KEY, bytes.fromhex(SMALL.header.salt)).secret
    frame = AESGCM(key).encrypt(bytes(12), compressed, bytes.fromhex(SMALL.header.digest) + bytes(4) + b"\1")
    return forge(head_of(SMALL), [frame])


def flipped(at: int) -> bytes:
    """The small object with one bit turned."""
    data = bytearray(SMALL.data)
    data[at] ^= 1
    return bytes(data)


def exhibits() -> dict[str, tuple[str, bytes]]:
    """By file name: the code it is refused with, and its bytes. All lie under the small object's place."""
    one, two, three = frames_of(LONG)
    body = len(head_of(SMALL))
    return {
        "nothing": ("vault.malformed", b""),
        "no-magic": ("vault.malformed", flipped(0)),
        "version-0": ("vault.malformed", SMALL.data[:7] + b"\0" + SMALL.data[8:]),
        "version-2": ("vault.newer_version", SMALL.data[:7] + b"\2" + SMALL.data[8:]),
        "cut-in-header": ("vault.malformed", SMALL.data[:300]),
        "cut-in-frame": ("vault.malformed", SMALL.data[: body + 50]),
        "cut-in-trailer": ("vault.malformed", SMALL.data[:-1]),
        "byte-behind": ("vault.malformed", SMALL.data + b"\0"),
        "flip-in-frame": ("vault.tampered", flipped(body + 20)),
        "flip-in-digest": ("vault.tampered", flipped(len(SMALL.data) - 90)),
        "flip-in-signature": ("vault.bad_signature", flipped(len(SMALL.data) - 10)),
        "header-of-another": ("vault.tampered", head_of(OTHER) + SMALL.data[body:]),
        "header-of-another-resealed": ("vault.tampered", forge(head_of(SMALL), frames_of(OTHER))),
        "another-object": ("vault.misplaced", OTHER.data),
        "signed-by-a-stranger": ("vault.bad_signature", forge(head_of(SMALL), frames_of(SMALL), signer=STRANGER)),
        "sealed-by-a-stranger": ("vault.untrusted_signer", seal("museum", pattern(5000), signer=STRANGER).data),
        "sealed-with-another-key": (
            "vault.wrong_key",
            seal("museum", pattern(5000), data_key=DataKey(bytes(32), DATA_KEY.key_id)).data,
        ),
        "header-with-spaces": ("vault.malformed", reheaded(lambda text: text.replace(b":", b": "))),
        "header-with-a-field-twice": ("vault.malformed", reheaded(lambda text: b'{"kind":"wal",' + text[1:])),
        "header-with-a-field-more": ("vault.malformed", reheaded(lambda text: text[:-1] + b',"zebra":1}')),
        "header-deep": ("vault.malformed", reheaded(lambda _: b"[" * HEADER_LIMIT_BYTES)),
        "header-too-long": ("vault.malformed", reheaded(lambda text: text + b" " * HEADER_LIMIT_BYTES)),
        "header-length-4-gib": ("vault.malformed", SMALL.data[:8] + b"\xff" * 4 + SMALL.data[12:]),
        "frame-length-4-gib": ("vault.malformed", SMALL.data[:body] + b"\xff" * 4 + SMALL.data[body + 4 :]),
        "frames-reordered": ("vault.tampered", forge(head_of(LONG), [two, one, three])),
        "frame-dropped": ("vault.malformed", forge(head_of(LONG), [one, two])),
        "frame-too-many": ("vault.malformed", forge(head_of(LONG), [one, two, three, three])),
        "zstd-bomb": ("vault.malformed", reframed(zstandard.compress(bytes(128 * MIB), level=19))),
        "zstd-of-unknown-size": (
            "vault.malformed",
            reframed(zstandard.ZstdCompressor(write_content_size=False).compress(pattern(5000))),
        ),
        "zstd-that-lies": ("vault.malformed", reframed(b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", 5000 - 256))),
        "zstd-of-other-bytes": ("vault.tampered", reframed(zstandard.compress(bytes(5000)))),
    }


def place_of(label: str) -> Sealed:
    """Under whose name an exhibit lies."""
    return LONG if label.startswith("frame") and "length" not in label else SMALL


def files() -> dict[str, bytes]:
    """Every file of the museum, by name."""
    made = {f"{label}.bin": data for label, (_, data) in exhibits().items()}
    index = {
        f"{label}.bin": {"name": str(place_of(label).header.key(hashlib.sha256(data).hexdigest())), "refused": code}
        for label, (code, data) in exhibits().items()
    }
    made["index.json"] = json.dumps(index, indent=2, sort_keys=True).encode() + b"\n"
    return made


if __name__ == "__main__":
    for file_name, content in files().items():
        (FOLDER / file_name).write_bytes(content)
