"""What lies in the mutable stores: a person's wrapped key, and the mark that it is deleted.

What belongs here: their fields, bytes, names and checks. What stays out: storing them, and when.

Both are signed canonical JSON, so that whoever may write there can destroy, and can't substitute.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_hex, parse_time
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.signing import Signer, Trust

DATASET: Final = "subjects"
RECORD_LIMIT_BYTES: Final = 64 << 10
WRAPPINGS_LIMIT: Final = 16
_NAME: Final = re.compile(r"[^/]+/(?P<fan>[0-9a-f]{2})/(?P<subject>(?P=fan)[0-9a-f]{30})/(?P<what>key|deletion)")

KEY_KIND: Final = "dr_assets person key v1"
DELETION_KIND: Final = "dr_assets person key deletion v1"

_KEY_FIELDS: Final = frozenset(
    {"created_at", "estate", "key_id", "kind", "signature", "signer_id", "subject_id", "wrappings"}
)
_DELETION_FIELDS: Final = frozenset(
    {"approval", "deleted_at", "estate", "final_after", "kind", "signature", "signer_id", "subject_id"}
)


def key_name(estate: str, subject_id: str) -> str:
    """Where a person's key lies."""
    return f"{estate}/{subject_id[:2]}/{subject_id}/key"


def deletion_name(estate: str, subject_id: str) -> str:
    """Where the mark lies that a person's key is deleted."""
    return f"{estate}/{subject_id[:2]}/{subject_id}/deletion"


def subject_of(name: str) -> tuple[str, str] | None:
    """Subject id and `key` or `deletion`, from a name of either form; None for any other."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found["subject"], found["what"])


@dataclass(frozen=True, slots=True)
class PersonKey:
    """One person's key, wrapped by every provider: (provider, wrapping) pairs."""

    estate: str
    subject_id: str
    key_id: str
    created_at: datetime
    wrappings: tuple[tuple[str, Wrapping], ...]
    signer_id: str

    def context(self) -> WrapContext:
        """What each wrapping is bound to: a key can't be handed to another person."""
        return context_of(self.estate, self.subject_id, self.key_id)

    def sealed(self, signer: Signer) -> bytes:
        """Its bytes, signed."""
        wrappings: list[Json] = [
            {"kek_id": wrapping.kek_id, "provider": provider, "wrapped": wrapping.wrapped.hex()}
            for provider, wrapping in self.wrappings
        ]
        fields: dict[str, Json] = {
            "created_at": canonical.format_time(self.created_at),
            "estate": self.estate,
            "key_id": self.key_id,
            "kind": KEY_KIND,
            "signer_id": self.signer_id,
            "subject_id": self.subject_id,
            "wrappings": wrappings,
        }
        return _signed(fields, KEY_KIND, signer)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A person's key is not to be used any more, and goes for good after `final_after`; `approval` is its id."""

    estate: str
    subject_id: str
    deleted_at: datetime
    final_after: datetime
    approval: str
    signer_id: str

    def sealed(self, signer: Signer) -> bytes:
        """Its bytes, signed."""
        fields: dict[str, Json] = {
            "approval": self.approval,
            "deleted_at": canonical.format_time(self.deleted_at),
            "estate": self.estate,
            "final_after": canonical.format_time(self.final_after),
            "kind": DELETION_KIND,
            "signer_id": self.signer_id,
            "subject_id": self.subject_id,
        }
        return _signed(fields, DELETION_KIND, signer)


def context_of(estate: str, subject_id: str, key_id: str) -> WrapContext:
    """The context of a person's key: the subject id is part of the purpose."""
    return WrapContext(estate, DATASET, key_id, 1, f"person-key {subject_id}")


def parse_person_key(data: bytes, *, estate: str, subject_id: str, trust: Trust) -> PersonKey:
    """A person's key whose signature and place are right.

    Raises VaultError `vault.malformed`, `vault.untrusted_signer`, `vault.bad_signature`.
    """
    what = f"the key of {subject_id}"
    raw = _verified(data, KEY_KIND, _KEY_FIELDS, what, trust)
    _require_place(raw, estate, subject_id, what)
    listed = raw["wrappings"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= WRAPPINGS_LIMIT:
        raise malformed(f"{what}: no wrappings")
    return PersonKey(
        estate,
        subject_id,
        parse_hex(raw["key_id"], 16, f"{what}: key_id"),
        parse_time(raw["created_at"], f"{what}: created_at"),
        tuple(_wrapping(entry, what) for entry in listed),
        str(raw["signer_id"]),
    )


def key_id_in(data: bytes) -> str | None:
    """Which key a record holds, believed or not; None for what is no record. Wrappings don't matter."""
    try:
        found = canonical.decode(data, limit_bytes=RECORD_LIMIT_BYTES, what="a record").get("key_id")
    except VaultError:
        return None
    return found if isinstance(found, str) else None


def parse_deletion(data: bytes, *, estate: str, subject_id: str, trust: Trust) -> Deletion:
    """A deletion whose signature and place are right; raises as `parse_person_key`."""
    what = f"the deletion of {subject_id}"
    raw = _verified(data, DELETION_KIND, _DELETION_FIELDS, what, trust)
    _require_place(raw, estate, subject_id, what)
    return Deletion(
        estate,
        subject_id,
        parse_time(raw["deleted_at"], f"{what}: deleted_at"),
        parse_time(raw["final_after"], f"{what}: final_after"),
        str(raw["approval"]),
        str(raw["signer_id"]),
    )


def _wrapping(entry: Json, what: str) -> tuple[str, Wrapping]:
    if not isinstance(entry, dict) or entry.keys() != {"kek_id", "provider", "wrapped"}:
        raise malformed(f"{what}: no wrapping")
    kek_id, wrapped = entry["kek_id"], entry["wrapped"]
    if not isinstance(kek_id, str) or not isinstance(wrapped, str):
        raise malformed(f"{what}: no wrapping")
    return str(entry["provider"]), Wrapping(
        kek_id, bytes.fromhex(parse_hex(wrapped, len(wrapped) // 2, f"{what}: wrapped"))
    )


def _signed(fields: dict[str, Json], kind: str, signer: Signer) -> bytes:
    signature = signer.sign(kind.encode("ascii"), canonical.encode(fields)).hex()
    return canonical.encode(fields | {"signature": signature})


def _verified(data: bytes, kind: str, names: frozenset[str], what: str, trust: Trust) -> dict[str, Json]:
    raw = canonical.decode(data, limit_bytes=RECORD_LIMIT_BYTES, what=what)
    if raw.keys() != names or raw["kind"] != kind:
        raise malformed(f"{what}: no {kind}")
    signature = bytes.fromhex(parse_hex(raw.pop("signature"), 64, f"{what}: signature"))
    signer_id = parse_hex(raw["signer_id"], 16, f"{what}: signer_id")
    trust.verify(signer_id, signature, kind.encode("ascii"), canonical.encode(raw), name=what)
    return raw


def _require_place(raw: dict[str, Json], estate: str, subject_id: str, what: str) -> None:
    if (raw["estate"], raw["subject_id"]) != (estate, subject_id):
        raise malformed(f"{what}: it is another person's, laid here")
