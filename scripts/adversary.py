"""Attack a vault on a real SeaweedFS with a writer's and an administrator's keys, seed after seed.

    python scripts/adversary.py --seeds 50 --output .demo/adversary.json

After each seed everything that a restore as of the moment before would use is opened and compared, and `vault verify
--as-of` has to name what was done. Exits 1 when a byte was lost or used, or an attack went unnoticed.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets_tests.faults.vault.adversary import ATTACKS
from dr_assets_tests.faults.vault.adversary_trials import WHOSE, Outcome, Trials, writer_identity


def main() -> int:
    """Run everything; the exit code."""
    arguments = _arguments()
    begin_s = time.monotonic()
    attacks = arguments.only.split(",") if arguments.only else list(ATTACKS)
    writer = writer_identity()
    with tempfile.TemporaryDirectory(prefix="dr-assets-adversary-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)  # the engines run as another user
        region = SeaweedRegion(Path(folder) / "region", "adversary", find_programs("weed"), identities=[writer])
        with region:
            region.start()
            trials = Trials(region, writer)
            outcomes = list(run(trials, attacks, arguments.seeds))
    table = {
        "ok": all(outcome.ok for outcome in outcomes),
        "attacks": [asdict(outcome) for outcome in outcomes],
        "duration_s": round(time.monotonic() - begin_s, 1),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {'nothing lost, nothing unnoticed' if table['ok'] else 'WRONG, see the file'}")
    return 0 if table["ok"] else 1


def run(trials: Trials, attacks: list[str], seeds: int) -> list[Outcome]:
    """A line each."""
    outcomes = []
    grounds = trials.grounds(attacks)
    for attack in attacks:
        for whose in WHOSE:
            outcome = trials.run(attack, whose, grounds[attack], range(seeds), each=True)
            said = f"{outcome.did} calls took effect, {outcome.refused} were refused"
            print(
                f"{attack:22} {whose:7} {seeds} seeds: {said}; {'ok' if outcome.ok else outcome.wrong[0]}", flush=True
            )
            outcomes.append(outcome)
    return outcomes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--only", default="", help="attacks, with commas between them; all by default")
    parser.add_argument("--output", type=Path, default=Path(".demo/adversary.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
