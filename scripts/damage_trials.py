"""Run seeded trials of every kind of damage before a real SeaweedFS and write how many were caught.

    python scripts/damage_trials.py --seeds 200 --output .demo/damage.json

Exits 1 when a trial was missed or an undamaged vault raised an alarm; a failing seed belongs into
dr_assets_tests/faults/vault/test_vault_damage_kept_seeds.py.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.vault.storage.s3 import make_client
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.damage import KINDS
from dr_assets_tests.faults.vault.s3_proxy import LyingProxy
from dr_assets_tests.faults.vault.trials_s3 import S3Trials

BUCKET = "damage-trials"


def main() -> int:
    """Run everything; the exit code."""
    arguments = _arguments()
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dr-assets-damage-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)  # the engines run as another user
        with SeaweedRegion(Path(folder) / "region", "trials", find_programs("weed")) as region:
            region.start()
            region.create_bucket(BUCKET)
            with LyingProxy(region.endpoint) as proxy:
                true, through = (
                    make_client(endpoint, region.access_key, region.secret_key)
                    for endpoint in (region.endpoint, proxy.endpoint)
                )
                table = run(S3Trials(true, through, proxy, BUCKET), arguments.seeds, arguments.undamaged)
    table["duration_s"] = round(time.monotonic() - begin_s, 1)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {'every damage caught and named' if table['ok'] else 'MISSED, see the file'}")
    return 0 if table["ok"] else 1


def run(trials: S3Trials, seeds: int, undamaged: int) -> dict[str, object]:
    """The table: each kind with its trials, how many were caught, and the seeds that were not."""
    rows = {}
    for kind in sorted(KINDS):
        missed = {seed: why for seed in range(seeds) if (why := trials.run(kind, seed))}
        rows[kind] = {"trials": seeds, "caught": seeds - len(missed), "missed": missed}
        print(f"{kind:16} {seeds - len(missed):4} of {seeds}", flush=True)
    alarms = 0
    for seed in range(10_000, 10_000 + undamaged):
        sample = trials.build(seed)
        found = verify(sample.vault, witness=sample.witness).findings
        # The bucket has no default lock: with one, what the trials put on top could never be taken away again.
        alarms += any(finding.kind != "bucket_changed" for finding in found)
    print(f"{'undamaged':16} {alarms:4} alarms of {undamaged}", flush=True)
    return {
        "ok": not alarms and not any(row["missed"] for row in rows.values()),
        "kinds": rows,
        "undamaged": {"vaults": undamaged, "alarms": alarms},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="seeded trials of damage before a real S3 store")
    parser.add_argument("--seeds", type=int, default=200, help="trials of each kind")
    parser.add_argument("--undamaged", type=int, default=50, help="vaults without damage, which must raise no alarm")
    parser.add_argument("--output", type=Path, default=Path(".demo/damage.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
