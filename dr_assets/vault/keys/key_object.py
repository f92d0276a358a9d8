"""Key objects: a wrapped data key as signed canonical JSON under a name of its own.

What belongs here: their fields, bytes and checks. What stays out: listing and caching (ring.py).
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_hex, parse_time
from dr_assets.vault.format.keys import KEYS, TIMELINE_END, ObjectKey
from dr_assets.vault.format.sizes import KEY_OBJECT_LIMIT_BYTES
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.signing import Signer, Trust

WRAPPED_LIMIT_BYTES: Final = 16 * 1024
KIND: Final = "dr_assets key object v1"
DOMAIN: Final = b"dr_assets key object v1"

_FIELDS: Final = frozenset(
    "created_at dataset estate generation kek_id key_id kind provider purpose signature signer_id wrapped".split()  # noqa: SIM905 - a list of eleven quoted words would hide a missing one
)


@dataclass(frozen=True, slots=True)
class KeyObject:
    """One provider's wrapping of one data key; `generation` counts the wrappings from 1."""

    context: WrapContext
    provider: str
    wrapping: Wrapping
    created_at: datetime
    signer_id: str

    def sealed(self, signer: Signer) -> tuple[ObjectKey, bytes, str]:
        """Name, bytes and SHA-256 of the object, signed."""
        fields = self._fields()
        fields["signature"] = signer.sign(DOMAIN, canonical.encode(fields)).hex()
        data = canonical.encode(fields)
        sha256 = hashlib.sha256(data).hexdigest()
        return self.key(sha256), data, sha256

    def key(self, sha256: str) -> ObjectKey:
        """The only name under which it may lie: the timeline is the generation, the positions are zero."""
        context = self.context
        return ObjectKey(context.estate, context.dataset, KEYS, context.key_id, context.generation, 0, 0, sha256[:32])

    def _fields(self) -> dict[str, Json]:
        context = self.context
        return {
            "created_at": canonical.format_time(self.created_at),
            "dataset": context.dataset,
            "estate": context.estate,
            "generation": context.generation,
            "kek_id": self.wrapping.kek_id,
            "key_id": context.key_id,
            "kind": KIND,
            "provider": self.provider,
            "purpose": context.purpose,
            "signer_id": self.signer_id,
            "wrapped": self.wrapping.wrapped.hex(),
        }


def parse_key_object(data: bytes, *, key: ObjectKey, trust: Trust) -> KeyObject:
    """The key object that lies under `key`, its digest, signature and place verified.

    Raises VaultError `vault.malformed`, `vault.tampered`, `vault.untrusted_signer`, `vault.bad_signature`,
    `vault.misplaced`.
    """
    if hashlib.sha256(data).hexdigest()[:32] != key.digest:
        raise VaultError("vault.tampered", f"{key} has not the digest in its name", "restore it from a replica")
    raw = canonical.decode(data, limit_bytes=KEY_OBJECT_LIMIT_BYTES, what=f"{key}")
    if raw.keys() != _FIELDS or raw["kind"] != KIND:
        raise malformed(f"{key}: no key object of version 1")
    texts = {name: raw[name] for name in ("dataset", "estate", "provider", "purpose")}
    generation, wrapped = raw["generation"], raw["wrapped"]
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(generation, int):
        raise malformed(f"{key}: a field has the wrong type")
    if not 1 <= generation < TIMELINE_END or not isinstance(wrapped, str) or len(wrapped) > 2 * WRAPPED_LIMIT_BYTES:
        raise malformed(f"{key}: a field is out of bounds")
    parsed = KeyObject(
        WrapContext(
            str(texts["estate"]), str(texts["dataset"]), parse_hex(raw["key_id"], 16, f"{key}: key_id"), generation,
            str(texts["purpose"]),
        ),
        str(texts["provider"]),
        Wrapping(
            parse_hex(raw["kek_id"], 16, f"{key}: kek_id"),
            bytes.fromhex(parse_hex(wrapped, len(wrapped) // 2, f"{key}: wrapped")),
        ),
        parse_time(raw["created_at"], f"{key}: created_at"),
        parse_hex(raw["signer_id"], 16, f"{key}: signer_id"),
    )  # fmt: skip
    signature = bytes.fromhex(parse_hex(raw.pop("signature"), 64, f"{key}: signature"))
    trust.verify(parsed.signer_id, signature, DOMAIN, canonical.encode(raw), name=str(key))
    if parsed.key(key.digest * 2) != key:
        raise VaultError(
            "vault.misplaced", f"{key} holds the wrapping of another key", "restore it from a replica of this vault"
        )
    return parsed
