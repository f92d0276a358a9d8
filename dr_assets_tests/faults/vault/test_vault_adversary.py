"""An attacker with a writer's or an administrator's keys to a real store: nothing lost, nothing used, all noticed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets_tests.faults.vault.adversary import ATTACKS
from dr_assets_tests.faults.vault.adversary_trials import WHOSE, Ground, Trials, writer_identity

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("adversary")]

SEEDS = range(10)
Prepared = tuple[Trials, dict[str, Ground]]


@pytest.fixture(scope="module")
def prepared(engines_dir: Path, weed_programs: Programs) -> Iterator[Prepared]:
    """A region with a writer's identity, and a vault for each attack."""
    writer = writer_identity()
    with SeaweedRegion(engines_dir / "adversary", "adversary", weed_programs, identities=[writer]) as region:
        region.start()
        trials = Trials(region, writer)
        yield trials, trials.grounds(list(ATTACKS))


@pytest.mark.parametrize("whose", WHOSE)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_changes_what_is_opened_and_each_is_named(prepared: Prepared, attack: str, whose: str) -> None:
    """Ten seeds: all that a restore would use is byte for byte what it was, and `verify --as-of` names each attack.

    What the store refuses changes nothing. An administrator's attacks must have effect, or nothing was tried.
    """
    trials, grounds = prepared
    outcome = trials.run(attack, whose, grounds[attack], SEEDS)
    assert outcome.wrong == []
    assert outcome.trials == len(SEEDS)
    assert outcome.did + outcome.refused > 0
    if whose == "admin" and attack != "removals":
        assert outcome.did >= len(SEEDS)
    if attack == "removals":
        assert outcome.refused > 10 * len(SEEDS)
