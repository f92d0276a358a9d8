"""The code location: everything under defs/, run one step after another in the run's own process.

What belongs here: loading. What stays out: definitions themselves (components/ and defs/*/defs.yaml make them).
"""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors; reads no environment variable and reaches no network."""
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # Each job is one chain on one restore host, so a process per step would only add start-up time to the RTO.
    return dg.Definitions.merge(loaded, dg.Definitions(executor=dg.in_process_executor))
