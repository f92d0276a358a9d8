"""What the vault's facts say of its keys, for the ring to obey.

What belongs here: reading the decisions. What stays out: making them (rotation.py, retirement.py).
"""

from typing import Final

from dr_assets.vault.facts import facts, latest_fact
from dr_assets.vault.format.canonical import malformed, parse_hex
from dr_assets.vault.vault import Vault

ROTATION: Final = "key_rotation"
BEGUN: Final = "key_rotation_begun"
RETIRED: Final = "key_retired"
ESTATE: Final = "vault"  # the dataset of facts that are about the whole estate


class FactChoice:
    """A KeyChoice by the facts of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def writing_key_id(self, dataset: str) -> str | None:
        """As the port says."""
        fact = latest_fact(self._vault, dataset, ROTATION)
        return None if fact is None else parse_hex(fact.body.get("key_id"), 16, f"{fact.key}: key_id")

    def retired_keks(self) -> frozenset[str]:
        """As the port says."""
        return frozenset(retired_at(self._vault))


def retired_at(vault: Vault) -> dict[str, float]:
    """When each retired key-encryption key was retired, as seconds since the epoch, by its id."""
    found: dict[str, float] = {}
    for fact in facts(vault, ESTATE, RETIRED):
        kek_id = fact.body.get("kek_id")
        if not isinstance(kek_id, str):
            raise malformed(f"{fact.key}: no retired key")
        found.setdefault(kek_id, fact.at.timestamp())
    return found


def follow_facts(vault: Vault) -> Vault:
    """The same vault, whose ring now obeys the facts in it."""
    vault.keys.choice = FactChoice(vault)
    return vault
