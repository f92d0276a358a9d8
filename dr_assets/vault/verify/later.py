"""What came after the moment that is judged: ignored by whoever opens the vault as of then, and named here.

What belongs here: telling names at a moment from what was put on top or beside them since, and what of that is not
ours. What stays out: the objects of the moment itself (examine.py).

An attacker who may put and delete as he likes can only add: versions, delete markers, names. Each has the store's time
of its put, which nobody can set. So all of it is later than what it is meant to hide, and is told apart by that.
"""

from collections.abc import Iterator
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import KEYS, ObjectKey
from dr_assets.vault.format.sizes import stored_limit
from dr_assets.vault.keys.key_object import parse_key_object
from dr_assets.vault.storage import STORE_AWAY, Version
from dr_assets.vault.storage.versions import Name, get_authentic
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.examine import kind_of_refusal, misdated
from dr_assets.vault.verify.report import Finding


def split_at(name: Name, as_of: datetime) -> tuple[Name | None, Name | None]:
    """The name as it was at `as_of` by the store's clock, and what came to it later; None where there is nothing."""

    def part(*, later: bool) -> Name | None:
        versions = tuple(row for row in name.versions if (row.modified_at > as_of) is later)
        markers = tuple(row for row in name.markers if (row.modified_at > as_of) is later)
        return Name(name.text, name.key, versions, markers) if versions or markers else None

    return part(later=False), part(later=True)


def on_top(later: Name) -> Iterator[Finding]:
    """What came to a name that was there at the moment."""
    for row in later.versions:
        detail = f"a version of {row.size_bytes} bytes came {row.modified_at:%Y-%m-%dT%H:%M:%SZ}, ignored"
        yield Finding("overlay", later.text, row.version_id, detail)
    for row in later.markers:
        detail = f"a delete marker of {row.modified_at:%Y-%m-%dT%H:%M:%SZ} hides it from a plain reader, ignored"
        yield Finding("delete_marker", later.text, row.version_id, detail)


def beside(vault: Vault, later: Name) -> Iterator[Finding]:
    """What lies under a name that was not there at the moment: nothing to say of what one of ours has sealed since.

    Bytes between an object's two ends are not read: nobody who opens the vault as of the moment uses any of them.
    Raises VaultError when the store can't be read at all.
    """
    if later.key is None:
        many = f"{len(later.versions)} versions" if later.versions else "a delete marker"
        yield Finding("foreign", later.text, None, f"{many} of a name that is not of this vault's form, came later")
        return
    if not later.versions:
        yield from on_top(later)
        return
    first, *others = later.versions
    refusal = _refusal(vault, later.key, first)
    if refusal is not None:
        detail = f"{kind_of_refusal(refusal)}, came {first.modified_at:%Y-%m-%dT%H:%M:%SZ}, ignored: {refusal.found}"
        yield Finding("lookalike", later.text, first.version_id, detail)
    yield from misdated(later, first)
    if others or later.markers:
        yield from on_top(Name(later.text, later.key, tuple(others), later.markers))


def _refusal(vault: Vault, key: ObjectKey, version: Version) -> VaultError | None:
    """Why this is none of ours; None if it is."""
    try:
        if version.size_bytes > stored_limit(key.stream):
            return VaultError("vault.malformed", f"{version.size_bytes} bytes, more than such an object can have", "-")
        if key.stream == KEYS:
            parse_key_object(get_authentic(vault.store, key, version.version_id).data, key=key, trust=vault.trust)
        else:
            vault.header(StoredObject(key, version.version_id, version.size_bytes, version.modified_at))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return error
    return None
