"""Where a chain of packs begins now that what came before has expired: the expiry's own word.

What belongs here: reading that word. What stays out: choosing what expires (expiry_plan.py).
"""

from dr_assets.stores.kafka.capture_facts import TIMELINE
from dr_assets.vault.expiry_list import EXPIRY, begins_of
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.format.keys import PACKS, prefix_of
from dr_assets.vault.vault import Vault


def begin_on_record(vault: Vault, dataset: str, system_id: str) -> int:
    """The first pack of a cluster that the newest expiry has kept; 0 where none said anything. Raises VaultError."""
    newest = latest_fact(vault, dataset, EXPIRY)
    if newest is None:
        return 0
    return begins_of(newest.body).get(prefix_of(vault.estate, dataset, PACKS, system_id, TIMELINE), 0)
