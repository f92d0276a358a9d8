"""Seeds that once were missed, or that are caught by one line of defence only: kept, so that it stays."""

import pytest

from dr_assets_tests.faults.vault.test_vault_damage_in_memory import run_trial

KEPT = (
    # The newest inventory itself is deleted: nothing in the vault speaks of it, only the witness does.
    *(("delete", seed) for seed in (65, 95, 108, 111)),
    # Cut to nothing: once told as missing besides being cut, which pointed at the wrong remedy.
    *(("cut", seed) for seed in (0, 1, 5, 10)),
)


@pytest.mark.parametrize(("kind", "seed"), KEPT)
def test_a_kept_seed_is_caught(kind: str, seed: int) -> None:
    """The damage is caught and named."""
    assert not run_trial(kind, seed)
