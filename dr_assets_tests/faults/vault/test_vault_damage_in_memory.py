"""200 seeds of every kind of damage, beneath and on top of a store in memory."""

import random
from functools import lru_cache

import pytest

from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.damage import KINDS, Plan, apply_in_memory, judge
from dr_assets_tests.faults.vault.sample import Sample, StillClock, build_sample

SEEDS = 200
SAMPLES = 10


@lru_cache(maxsize=SAMPLES)
def _sample(seed: int) -> Sample:
    return build_sample(seed)


def _damaged(sample: Sample, plan: Plan) -> Vault:
    """A copy of the sample's vault with the damage done."""
    whole = sample.vault
    assert isinstance(whole.store, MemoryStore)
    store = whole.store.copy()
    apply_in_memory(plan, store)
    clock = StillClock(whole.clock())
    return throwaway_vault(
        store=store, estate=whole.estate, signer=whole.signer, provider=whole.keys.provider, clock=clock
    )


def run_trial(kind: str, seed: int) -> str:
    """Why the trial failed; nothing if it did not."""
    sample = _sample(seed % SAMPLES)
    plan = KINDS[kind](sample, random.Random(f"{kind} {seed}"))
    return judge(plan, sample, _damaged(sample, plan))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_damage_is_caught_and_named(kind: str) -> None:
    """Verification names the damaged object in each of 200 trials, and opening it fails; overlays change nothing."""
    failed = {seed: why for seed in range(SEEDS) if (why := run_trial(kind, seed))}
    assert not failed


def test_no_alarm_without_damage() -> None:
    """50 undamaged vaults give no finding of any severity."""
    for seed in range(1000, 1050):
        sample = build_sample(seed)
        assert verify(sample.vault, witness=sample.witness).findings == ()
