"""What a base backup is made of: a full alone, or a full with the incrementals that lead to the one wanted.

What belongs here: following manifests from an incremental to its full, and whether every part of them is stored. What
stays out: choosing a base backup (plan.py), putting layers together (combine.py), taking them (incremental.py).
"""

from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest, Parent
from dr_assets.vault.format.keys import ObjectKey, part_stream
from dr_assets.vault.vault import StoredObject, Vault


@dataclass(frozen=True, slots=True)
class BaseLayer:
    """One full or incremental base backup with its stored objects, in the manifest's order."""

    manifest: BaseManifest
    stored: StoredObject
    parts: tuple[StoredObject, ...]


def layers_of(
    vault: Vault, manifest: BaseManifest, stored: StoredObject, *, as_of: datetime | None = None
) -> tuple[BaseLayer, ...]:
    """The base backup and all that it builds on, the full first, itself last.

    Raises VaultError `restore.parent_missing`, `restore.part_missing`, and what reading a manifest raises.
    """
    layers = [BaseLayer(manifest, stored, stored_parts(vault, manifest, as_of=as_of))]
    while (parent := layers[-1].manifest.parent) is not None:
        manifest, stored = _parent_of(vault, layers[-1].manifest, parent, as_of)
        layers.append(BaseLayer(manifest, stored, stored_parts(vault, manifest, as_of=as_of)))
    return tuple(reversed(layers))


def stored_parts(vault: Vault, manifest: BaseManifest, *, as_of: datetime | None = None) -> tuple[StoredObject, ...]:
    """The parts that `manifest` lists, in its order. Raises VaultError (`restore.part_missing`)."""
    listed = {
        str(obj.key): obj
        for obj in vault.objects(
            manifest.dataset,
            part_stream(manifest.snapshot_id),
            system_id=manifest.system_id,
            timeline=manifest.timeline,
            as_of=as_of,
        )
    }
    missing = [part.key for part in manifest.parts if part.key not in listed]
    if missing:
        raise VaultError(
            "restore.part_missing",
            f"{len(missing)} of {len(manifest.parts)} parts of base backup {manifest.snapshot_id} are not in the "
            f"vault, the first is {missing[0]}",
            "run `dr-assets vault verify`; restore from another vault",
        )
    return tuple(listed[part.key] for part in manifest.parts)


def _parent_of(
    vault: Vault, child: BaseManifest, parent: Parent, as_of: datetime | None
) -> tuple[BaseManifest, StoredObject]:
    """The manifest that the child names, which must be what the child says of it: so no chain runs in a circle."""
    key = ObjectKey.parse(parent.key)
    try:
        if key is None:
            raise _no_parent(child, parent, "is no name of an object")
        stored = vault.find(key, as_of=as_of)
    except VaultError as error:
        if error.code != "vault.missing":
            raise
        raise _no_parent(child, parent, "is not in the vault") from None
    manifest = base_manifest.decode(vault.open(stored).plaintext, name=str(key))
    own = (manifest.snapshot_id, manifest.full_snapshot_id, manifest.depth, manifest.system_id)
    if own != (parent.snapshot_id, parent.full_snapshot_id, parent.depth - 1, child.system_id):
        raise _no_parent(child, parent, "is the manifest of another base backup")
    return manifest, stored


def _no_parent(child: BaseManifest, parent: Parent, found: str) -> VaultError:
    return VaultError(
        "restore.parent_missing",
        f"incremental {child.snapshot_id} builds on {parent.snapshot_id}, and {parent.key} {found}",
        "run `dr-assets vault verify`; restore from another vault",
    )
