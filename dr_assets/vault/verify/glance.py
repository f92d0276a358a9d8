"""One name looked at without reading its bytes: which version is the sealed one by the store's word, is it locked.

What belongs here: what HEAD tells. What stays out: bytes (examine.py).

The store's own checksum is of what was put. Where it has the digest in the name, what was put is what was sealed; that
the disks still hold it is for the levels that read to say.
"""

from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import PACKS, WAL, ObjectKey
from dr_assets.vault.format.sizes import stored_limit
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage import STORE_AWAY, Head, Version
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.examine import Examined, held_to_rule, judge_lock, kind_of_refusal, overlays
from dr_assets.vault.verify.report import Finding

_KINDS: Final = {WAL: "wal", FULL: "wal", PACKS: "pack"}


def glance(vault: Vault, name: Name, key: ObjectKey, now: datetime) -> Examined | None:
    """What the store says of the sealed version of `name`; None where that isn't enough, so that its bytes must tell.

    Raises VaultError only when the store can't be asked at all.
    """
    found = _chosen(vault, name, key)
    if found is None or found[0].size_bytes > stored_limit(key.stream):
        return None
    version, head = found
    obj = StoredObject(key, version.version_id, head.size_bytes, version.modified_at)
    findings = [*overlays(name, version), *judge_lock(vault, key, head.version_id, head.lock, None, now)]
    if head.lock is not None and head.lock.retain_until > now:
        findings += _held(vault, obj, head)
    return Examined(
        name=name.text,
        key=key,
        findings=tuple(findings),
        obj=obj,
        sha256=head.sha256 or "",
        size_bytes=head.size_bytes,
        lock=head.lock,
        locked=head.lock is not None and head.lock.retain_until > now,
    )


def _chosen(vault: Vault, name: Name, key: ObjectKey) -> tuple[Version, Head] | None:
    """The oldest version whose checksum has the digest in the name; where the store keeps none, the only one."""
    for version in name.versions:
        head = vault.store.head(name.text, version.version_id)
        if head is None:
            return None
        if head.sha256 is None and len(name.versions) > 1:
            return None
        if head.sha256 is None or head.sha256.startswith(key.digest):
            return version, head
    return None


def _held(vault: Vault, obj: StoredObject, head: Head) -> list[Finding]:
    """Its lock against the rule. When it was put is known; when it was sealed, which may be earlier, only if asked."""
    assert head.lock is not None  # noqa: S101 - for the type checker: the caller has looked
    kind = _KINDS.get(obj.key.stream, "part")
    if not held_to_rule(vault, obj.key, head.version_id, head.lock, kind, obj.modified_at):
        return []
    try:
        header = vault.header_of_ends(obj)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        if error.code == "vault.cold":  # nobody reads its header now, so the put's time is all there is
            return held_to_rule(vault, obj.key, head.version_id, head.lock, kind, obj.modified_at)
        return [Finding(kind_of_refusal(error), str(obj.key), head.version_id, error.found)]
    return held_to_rule(vault, obj.key, head.version_id, head.lock, header.kind, header.sealed_at)
