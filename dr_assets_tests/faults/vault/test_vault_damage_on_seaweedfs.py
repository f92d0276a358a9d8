"""Seeds of every kind of damage before and on a real SeaweedFS; `scripts/damage_trials.py` runs 200 of each."""

from collections.abc import Iterator

import pytest

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.vault.storage.s3 import make_client
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.damage import KINDS
from dr_assets_tests.faults.vault.s3_proxy import LyingProxy
from dr_assets_tests.faults.vault.trials_s3 import S3Trials

SEEDS = 10
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]


@pytest.fixture(scope="module")
def trials(region: SeaweedRegion) -> Iterator[S3Trials]:
    """One bucket with a lying proxy before it."""
    name = "damage-trials"
    region.create_bucket(name)
    with LyingProxy(region.endpoint) as proxy:
        true, through = (
            make_client(endpoint, region.access_key, region.secret_key)
            for endpoint in (region.endpoint, proxy.endpoint)
        )
        yield S3Trials(true, through, proxy, name)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_damage_is_caught_and_named(trials: S3Trials, kind: str) -> None:
    """As in memory, through HTTP and a real store's versions, delete markers and listings."""
    failed = {seed: why for seed in range(SEEDS) if (why := trials.run(kind, seed))}
    assert not failed


def test_no_alarm_without_damage(trials: S3Trials) -> None:
    """Undamaged vaults in one bucket, beside each other and beside damaged ones, give no finding.

    But that the bucket has no default lock: with one, what the trials put on top could never be taken away again.
    """
    for seed in range(2000, 2005):
        sample = trials.build(seed)
        found = verify(sample.vault, witness=sample.witness).findings
        assert [finding.kind for finding in found] == ["bucket_changed"]
