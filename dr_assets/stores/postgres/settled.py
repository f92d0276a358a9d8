"""A person's word that the commits which a failover left behind were dealt with.

What belongs here: the fact kind "diverged_settled" and recording it. What stays out: finding them (diverged.py).
"""

from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.diverged import DIVERGED
from dr_assets.vault.facts import Fact, facts, record_fact
from dr_assets.vault.vault import Vault

SETTLED: Final = "diverged_settled"


def unsettled(vault: Vault, dataset: str) -> list[Fact]:
    """The `diverged` facts with commits in them that nobody has settled, oldest first. Raises VaultError."""
    found = [fact for fact in facts(vault, dataset, DIVERGED) if fact.body.get("commits_total")]
    names = {fact.body.get("fact") for fact in facts(vault, dataset, SETTLED)} if found else set()
    return [fact for fact in found if str(fact.key) not in names]


def settle(vault: Vault, dataset: str, *, by: str, note: str) -> list[Fact]:
    """Seal that all of them were dealt with: by whom, and what was done. Returns which.

    Raises PolicyError `settle.nothing`, `settle.words`; VaultError.
    """
    if not by.strip() or not note.strip():
        raise PolicyError("settle.words", "who settled it, or what was done, is empty", "an auditor will ask for both")
    found = unsettled(vault, dataset)
    if not found:
        raise PolicyError(
            "settle.nothing", f"no commit of {dataset} waits to be settled", "`dr-assets doctor` shows what is open"
        )
    for fact in found:
        record_fact(vault, dataset, SETTLED, {"fact": str(fact.key), "by": by.strip(), "note": note.strip()})
    return found
