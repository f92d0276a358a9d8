"""Bundles: a vault's sealed objects as plain files, for a disk in a safe or a tape without any network.

What belongs here: what a bundle is (layout.py), writing one (export.py), reading one as a store (store.py). What stays
out: opening what is sealed, which needs keys and is done by the vault over that store.
"""

from dr_assets.vault.replication.bundle.export import Exported, export_bundle
from dr_assets.vault.replication.bundle.store import BundleStore

__all__ = ["BundleStore", "Exported", "export_bundle"]
