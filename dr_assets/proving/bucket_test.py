"""A restore test of a bucket: plan, restore into a throwaway bucket, compare with the inventory, put on record.

What belongs here: that order. What stays out: restoring (stores/bucket), comparing (bucket_compare.py), judging whether
a proof is recent enough (components/), planted damage (drills/).
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.model import BucketDataset, Estate
from dr_assets.proving.attempt import Attempt, attempted, fresh_workdir
from dr_assets.proving.bucket_compare import Compared, Expected
from dr_assets.stores.bucket.plan import RestorePlan, Wanted, plan_restore
from dr_assets.stores.bucket.restore import Restored, restore
from dr_assets.stores.bucket.site import Site, open_site
from dr_assets.stores.bucket.source import Place, place_of
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.subjects.gather import gather
from dr_assets.vault.vault import Vault

THROWAWAY: Final = "restore-test"
Inspect = Callable[[Place, Expected], None]


def run_bucket_restore_test(
    vault: Vault,
    estate: Estate,
    dataset: BucketDataset,
    *,
    env: Mapping[str, str] | None = None,
    workdir: Path | None = None,
    inspect: Inspect | None = None,
) -> Attempt:
    """Restores `dataset` from `vault` alone into a throwaway SeaweedFS bucket, seals the fact `restore_test`.

    Erasures are applied as in every restore. The newest version of every name is compared with the inventory by a
    reading of its own: digest, size, nothing missing, nothing foreign. `inspect` may look at the throwaway bucket after
    everything passed and is on record. Raises what stood in the way, which is on record as failed.
    """
    env = os.environ if env is None else env
    folder = workdir or fresh_workdir(dataset.name, env)
    folder.mkdir(mode=0o700, parents=True)
    try:
        with SeaweedRegion(folder / "bucket", THROWAWAY, find_programs("weed", env=env)) as region:
            with attempted(vault, dataset) as attempt:
                site = open_site(estate, dataset, vault, env, folder, signing=False)
                erasures = gather(estate, vault, env)
                with attempt.phase("plan"):
                    plan = plan_restore(site, Wanted(), erasures, target=THROWAWAY)
                with attempt.phase("start"):
                    into = _throwaway(region)
                with attempt.phase("restore"):
                    restored = restore(plan, site, into, erasures_now=lambda: gather(estate, vault, env))
                with attempt.phase("compare"):
                    expected = _expected(site, plan, restored, folder)
                    compared = expected.compare(into)
                _note(attempt, plan, restored, compared, erasures)
                attempt.judge(compared.broken(), "restored, and every document is the one that was copied")
            if inspect is not None and attempt.ok:
                inspect(into, expected)
            return attempt
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _throwaway(region: SeaweedRegion) -> Place:
    region.start()
    region.create_bucket(THROWAWAY, object_lock=False)
    return place_of(region.endpoint, THROWAWAY, access_key=region.access_key, secret_key=region.secret_key)


def _expected(site: Site, plan: RestorePlan, restored: Restored, folder: Path) -> Expected:
    gone = frozenset((*plan.erased_people, *restored.erased_people, *restored.erased_meanwhile))
    return Expected.of(site, plan.run, gone, folder / "expected.sqlite")


def _note(attempt: Attempt, plan: RestorePlan, restored: Restored, compared: Compared, erasures: ErasureList) -> None:
    attempt.recovered(plan.point_at)
    attempt.details |= {
        "run": str(plan.run.key),
        "system_id": plan.run.key.system_id,
        "recovery_point_at": plan.point_at,
        "documents": compared.objects,
        "size_bytes": compared.size_bytes,
        "restore_mb_s": restored.mb_s,
        "missing": compared.missing,
        "foreign": compared.foreign,
        "differing": compared.differing,
        "erased_versions": restored.erased.versions,
        "erased_people": len(restored.erased_people),
        "erasures_known": len(erasures),
        "erasures_newest_at": erasures.newest_at,
        "notes": list(plan.notes),
    }
