"""A vault with keys that die with the process: for tests, dry runs and trials of damage.

What belongs here: putting the parts together without an estate's files. What stays out: anything that must last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from dr_assets.vault.keys.life.choice import follow_facts
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider import KeyProvider
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.retention import LockRules, RetentionRule
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class ThrowawayRetention:
    """A retention rule without a declaration."""

    lock: Literal["compliance", "governance"] = "governance"
    days: int = 14
    lock_days: int | None = None


def throwaway_vault(
    *,
    store: ObjectStore | None = None,
    estate: str = "casino",
    name: str = "throwaway",
    rules: Mapping[str, tuple[RetentionRule, timedelta]] | None = None,
    provider: KeyProvider | None = None,
    providers: Providers | None = None,
    signer: Signer | None = None,
    trust: Trust | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Vault:
    """A vault in memory unless `store` is given. Its dataset is `ledger` unless `rules` names others.

    Give the same `store`, `provider` (or `providers`) and `signer` again to open the same vault a second time.
    """
    clock = clock or (lambda: datetime.now(UTC))
    signer = signer or Signer.generate()
    store = store or MemoryStore(clock)
    trust = trust or Trust.of(signer)
    locks = LockRules(rules or {"ledger": (ThrowawayRetention(), timedelta(days=1))})
    keys = KeyRing(
        store=store,
        estate=estate,
        providers=providers or Providers.of(provider or MemoryKeyProvider()),
        trust=trust,
        signer=signer,
        locks=locks,
        clock=clock,
    )
    vault = Vault(
        store=store, estate=estate, name=name, keys=keys, trust=trust, signer=signer, locks=locks, clock=clock
    )
    return follow_facts(vault)
