"""One name examined: which version is the sealed one, is it whole, is it ours, is it locked.

What belongs here: everything that can be said of a name by itself. What stays out: what other objects say of it.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import is_misdated
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.envelope import TRAILER_BYTES, Envelope
from dr_assets.vault.format.frames import open_frames
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import DIGEST_HEX, KEYS, ObjectKey, fact_stream
from dr_assets.vault.format.pack import LENGTH_BYTES, PackIndex, index_length, parse_index
from dr_assets.vault.format.segment import check_belongs, unlock, verify_envelope
from dr_assets.vault.format.sizes import stored_limit
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.keys.key_object import parse_key_object
from dr_assets.vault.retention.judged import kind_of, lock_trouble
from dr_assets.vault.storage import STORE_AWAY, Blob, Lock, Version
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.rolled import list_of, slices_of

LOCK_EXPIRED: Final = "lock_expired"
BODY_LIMIT_BYTES: Final = 64 << 20

_KIND_OF_UNREAD: Final = {"vault.too_large": "malformed", "vault.cold": "cold"}
_KIND_OF_CODE: Final = {
    "vault.bad_signature": "bad_signature",
    "vault.untrusted_signer": "untrusted",
    "vault.wrong_key": "wrong_key",
    "vault.no_key": "wrong_key",
    "vault.newer_version": "newer_version",
    "vault.tampered": "flipped",
    "vault.malformed": "malformed",
    "vault.misplaced": "swapped",
    "vault.rolled_wrong": "rolled_wrong",
}


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found under one name. `obj` and `header` are there only if the object is whole and believed.

    `body` is a manifest's or fact's content, `index` a pack's. `belongs` is the name that misplaced bytes would have,
    `sha256` theirs. `listed` is False when only delete markers are left. `header` lacks, too, where only the store's
    word was asked for (glance.py). `read_bytes` were fetched for it, of which `plaintext_bytes` came out.
    """

    name: str
    key: ObjectKey | None
    findings: tuple[Finding, ...]
    obj: StoredObject | None = None
    header: Header | None = None
    header_sha256: str = ""
    body: dict[str, Json] | None = None
    index: PackIndex | None = None
    belongs: ObjectKey | None = None
    sha256: str = ""
    size_bytes: int = 0
    lock: Lock | None = None
    locked: bool = False
    listed: bool = True
    read_bytes: int = 0
    plaintext_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """One version's bytes with their digests, reckoned in one pass: of all of them, and of all before the trailer."""

    blob: Blob
    sha256: str
    content_sha256: bytes

    @classmethod
    def of(cls, blob: Blob) -> "Read":
        """Digest them."""
        view = memoryview(blob.data)
        whole = hashlib.sha256(view[:-TRAILER_BYTES])
        content = whole.digest()
        whole.update(view[-TRAILER_BYTES:])
        return cls(blob, whole.hexdigest(), content)


@dataclass(slots=True)
class _Draft:
    """Collects while a name is examined."""

    findings: list[Finding] = field(default_factory=list)
    header: Header | None = None
    header_sha256: str = ""
    body: dict[str, Json] | None = None
    index: PackIndex | None = None
    belongs: ObjectKey | None = None


def examine(vault: Vault, name: Name, now: datetime) -> Examined:
    """Read the versions of `name`, oldest first, until one has the digest in the name; judge that one.

    Raises VaultError only when the store can't be read at all.
    """
    if name.key is None:
        return Examined(name.text, None, (_foreign(name),))
    if not name.versions:
        gone = Finding("missing", name.text, None, "only delete markers are left of it")
        return Examined(name.text, name.key, (gone,), listed=False)
    draft = _Draft()
    chosen, read = _choose(vault, name, name.key, draft)
    draft.findings += overlays(name, chosen)
    if read is None:
        head_size = chosen.size_bytes
        return Examined(name.text, name.key, tuple(draft.findings), belongs=draft.belongs, size_bytes=head_size)
    head = read.blob.head
    judged = _judge(vault, name.key, read, draft)
    draft.findings += judged
    draft.findings += judge_lock(vault, name.key, head.version_id, head.lock, draft.header, now)
    draft.findings += misdated(name, chosen)
    sound = draft.header is not None or (name.key.stream == KEYS and not judged)
    return Examined(
        name=name.text,
        key=name.key,
        findings=tuple(draft.findings),
        obj=StoredObject(name.key, chosen.version_id, len(read.blob.data), chosen.modified_at) if sound else None,
        header=draft.header,
        header_sha256=draft.header_sha256,
        body=draft.body,
        index=draft.index,
        belongs=draft.belongs,
        sha256=read.sha256 if name.key.stream != KEYS else "",
        size_bytes=len(read.blob.data),
        lock=head.lock,
        locked=head.lock is not None and head.lock.retain_until > now,
        read_bytes=len(read.blob.data),
        plaintext_bytes=0 if draft.header is None else draft.header.size_bytes,
    )


def misdated(name: Name, chosen: Version) -> list[Finding]:
    """A fact that is dated after the store took it."""
    key = name.key
    if key is None or not key.stream.startswith(fact_stream("")) or not is_misdated(key.first, chosen.modified_at):
        return []
    return [Finding("misdated", name.text, chosen.version_id, "dated after the store took it, ignored")]


def _foreign(name: Name) -> Finding:
    what = f"{len(name.versions)} versions" if name.versions else "a delete marker"
    return Finding("foreign", name.text, None, f"{what} under a name that is not of this vault's form")


def _choose(vault: Vault, name: Name, key: ObjectKey, draft: _Draft) -> tuple[Version, Read | None]:
    """The oldest version whose bytes have the name's digest; without one, the oldest, its damage described."""
    damage: list[Finding] = []
    for version in name.versions:
        try:
            blob = vault.store.get(name.text, version.version_id, limit_bytes=stored_limit(key.stream))
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            kind = _KIND_OF_UNREAD.get(error.code, "missing")
            damage.append(Finding(kind, name.text, version.version_id, error.found))
            continue
        read = Read.of(blob)
        if read.sha256[:DIGEST_HEX] == key.digest:
            draft.findings += damage
            return version, read
        damage.append(_describe(vault, key, version, read, draft))
    # Later versions of other bytes are somebody's overlays; the oldest is the one that was damaged.
    draft.findings += damage[:1]
    return name.versions[0], None


def _describe(vault: Vault, key: ObjectKey, version: Version, read: Read, draft: _Draft) -> Finding:
    """What happened to bytes that have not the digest in their name, as far as they tell."""
    text = str(key)
    try:
        header = _envelope(vault, read, text).header
    except VaultError as error:
        return Finding(_kind_of_damage(error, read.blob), text, version.version_id, error.found)
    draft.belongs = header.key(read.sha256)
    return Finding("swapped", text, version.version_id, f"holds {draft.belongs}")


def _envelope(vault: Vault, read: Read, name: str) -> Envelope:
    return verify_envelope(read.blob.data, vault.trust, name=name, content_sha256=read.content_sha256)


def _kind_of_damage(error: VaultError, blob: Blob) -> str:
    if error.code == "vault.malformed" and ("ends" in error.found or "claims" in error.found or not blob.data):
        return "cut"
    return "flipped"


def overlays(name: Name, chosen: Version) -> list[Finding]:
    """Versions and delete markers that came after the sealed one."""
    found = [
        Finding("overlay", name.text, row.version_id, f"a later version of {row.size_bytes} bytes, ignored")
        for row in name.versions
        if row is not chosen and row.modified_at >= chosen.modified_at
    ]
    return found + [
        Finding("delete_marker", name.text, row.version_id, "hides the object from a plain reader, ignored")
        for row in name.markers
    ]


def _judge(vault: Vault, key: ObjectKey, read: Read, draft: _Draft) -> list[Finding]:
    """Signature, place, key and plaintext of bytes that have the digest in their name."""
    text, blob = str(key), read.blob
    try:
        if key.stream == KEYS:
            parsed = parse_key_object(blob.data, key=key, trust=vault.trust)
            vault.keys.by_id(parsed.context.dataset, parsed.context.key_id)
            return []
        envelope = _envelope(vault, read, text)
        try:
            check_belongs(envelope.header, key, name=text)
        except VaultError:
            draft.belongs = envelope.header.key(read.sha256)
            raise
        draft.body, draft.index = _read_through(vault, blob.data, envelope, text)
        draft.header, draft.header_sha256 = envelope.header, envelope.header_sha256.hex()
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        if error.code == "vault.no_key":  # one finding for the lost key, however many objects it opens
            return [Finding("missing", error.found.split(" ")[0], None, "no wrapping of this data key is left")]
        return [Finding(kind_of_refusal(error), text, blob.head.version_id, error.found)]
    return []


def _read_through(
    vault: Vault, data: bytes, envelope: Envelope, name: str
) -> tuple[dict[str, Json] | None, PackIndex | None]:
    """Open every frame; keep the plaintext only of what is small and says something about other objects."""
    header = envelope.header
    digest, kept = hashlib.sha256(), bytearray()
    full = ObjectKey.parse(name) if header.stream == FULL else None
    listed = None if full is None else list_of(vault, full, header)
    slices = None if listed is None else slices_of(listed)
    keep = header.kind in {"manifest", "fact"} and header.size_bytes <= BODY_LIMIT_BYTES
    for plaintext in open_frames(data, envelope, unlock(header, vault.keys.key_of, name=name).secret, name=name):
        digest.update(plaintext)
        if slices is not None:
            slices.update(plaintext)
        if keep or (header.kind == "pack" and _lacks_index(kept)):
            kept += plaintext
    if digest.hexdigest() != header.plaintext_sha256:
        raise VaultError(
            "vault.tampered", f"{name}: the plaintext has not the digest in its header", "its writer erred"
        )
    if listed is not None and slices is not None and slices.digests != [row.plaintext_sha256 for row in listed.covered]:
        raise VaultError("vault.rolled_wrong", f"{name}: not the bytes of the micro-segments on its list", "keep them")
    index = parse_index(kept, size_bytes=header.size_bytes, name=name) if header.kind == "pack" else None
    return canonical.decode(bytes(kept), limit_bytes=BODY_LIMIT_BYTES, what=name) if keep else None, index


def _lacks_index(kept: bytearray) -> bool:
    """Whether more of a pack is needed to read its index."""
    return len(kept) < LENGTH_BYTES or len(kept) < index_length(kept)


def kind_of_refusal(error: VaultError) -> str:
    """The kind of finding that a refusal to open an object makes."""
    return _KIND_OF_CODE.get(error.code, "malformed")


def judge_lock(
    vault: Vault, key: ObjectKey, version_id: str, lock: Lock | None, header: Header | None, now: datetime
) -> list[Finding]:
    """Held to its dataset's rule from the moment it was sealed; without a `header` only that it holds at all."""
    text = str(key)
    if lock is None:
        return [Finding("unlocked", text, version_id, "has no retention lock")]
    if lock.retain_until <= now:
        return [Finding(LOCK_EXPIRED, text, version_id, f"its lock ended {lock.retain_until:%Y-%m-%d}")]
    if header is None:
        return []  # of a data key, `check_locks` tells whether it outlives what it opens
    return held_to_rule(vault, key, version_id, lock, header.kind, header.sealed_at)


def held_to_rule(
    vault: Vault, key: ObjectKey, version_id: str, lock: Lock, kind: str, sealed_at: datetime
) -> list[Finding]:
    """A lock that holds, against the rule for what was sealed at that time."""
    trouble = lock_trouble(vault.locks, key, lock, sealed_at=sealed_at, kind=kind_of(key, kind))
    return [] if trouble is None else [Finding("unlocked", str(key), version_id, trouble)]
