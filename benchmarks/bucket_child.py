"""`python -m benchmarks.bucket_child`: one copy or restore in a process of its own, to be measured and killed.

It reads what to do as JSON from standard input, writes its progress to `status`, and its result as JSON to standard
output.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.bucket_rig import Rig, peak_bytes
from dr_assets.stores.bucket.copy import CopyProgress, copy
from dr_assets.stores.bucket.plan import Wanted, plan_restore
from dr_assets.stores.bucket.restore import RestoreProgress, restore
from dr_assets.vault.subjects.erased import read_list

_EVERY: Final = 50  # documents: telling of each took three quarters of the loop's time


def main() -> None:
    """Do it."""
    asked: dict[str, Any] = json.load(sys.stdin)
    rig = Rig(**asked["rig"])
    status = Path(asked["status"])
    begin_s = time.monotonic()
    if asked["what"] == "copy":

        def told(progress: CopyProgress) -> None:
            if progress.phase == "copying" and progress.done % _EVERY == 0:
                status.write_text(str(progress.done))

        result = copy(rig.site(), rig.bucket(rig.source_bucket), progress=told)
        said = {
            "kind": result.kind,
            "copied": result.counts.copied,
            "held": result.held.to_json(),
            "parts": result.parts,
            "stored_bytes": result.stored_bytes,
        }
    else:

        def put(progress: RestoreProgress) -> None:
            status.write_text(str(progress.done))

        site = rig.site()
        plan = plan_restore(site, Wanted(), read_list(site.vault), target=asked["target"])
        done = restore(plan, site, rig.bucket(asked["target"]), progress=put)
        said = {
            "restored": done.restored.to_json(),
            "erased": done.erased.to_json(),
            "resumed": plan.is_resumed,
            "target": done.target.to_json(),
        }
    print(json.dumps(said | {"duration_s": time.monotonic() - begin_s, "peak_bytes": peak_bytes()}))  # noqa: T201


main()
