"""Statistics of a restored sandbox, gathered and judged while it is there.

What belongs here: when to look, and that a look that fails is told and stops nothing. What stays out: the numbers
(stores/postgres/statistics.py) and what is strange about them (observability/anomalies/).
"""

import time
from typing import Any

import psycopg

from dr_assets.estate.errors import DrError
from dr_assets.observability.anomalies.record import STATISTICS, look, record_unseen
from dr_assets.stores.postgres.guarded import superuser_dsn
from dr_assets.stores.postgres.restore import Restored
from dr_assets.stores.postgres.statistics import Statistics, gather_statistics
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.vault import Vault


def look_for_drift(vault: Vault, restored: Restored) -> dict[str, Any]:
    """Gather, judge, put on record; what to say of it beside the restore test. Raises nothing of the sandbox's.

    Only what is newer than the last look is judged: a restore to an older moment says nothing about drift.
    """
    begin_s, dataset = time.monotonic(), restored.plan.dataset
    at = restored.recovered_at or restored.last_commit_at
    if at is None or restored.plan.target.kind != "latest":
        return {"outcome": "not looked", "why": "nobody knows of which moment this is, or it is not the newest"}
    try:
        fact = latest_fact(vault, dataset, STATISTICS)
        before = None if fact is None else Statistics.from_json(fact.body)
        if before is not None and at <= before.at:
            return {"outcome": "not looked", "why": "the last look was at this moment or a later one"}
        with psycopg.connect(superuser_dsn(restored.server), autocommit=True) as session:
            session.execute("CHECKPOINT")  # pages are looked at in their files, where new ones are zeros until then
        gathered = gather_statistics(restored.reader_dsn(), at, restored.data_dir, before)
        gathered_s = time.monotonic() - begin_s
        judged = look(vault, dataset, gathered)
    except (psycopg.Error, DrError) as error:
        # Not the server's text: it may hold a row.
        why = error.code if isinstance(error, DrError) else f"SQLSTATE {error.sqlstate or 'unknown'}"
        record_unseen(vault, dataset, why)
        return {"outcome": "failed", "why": why}
    return {
        "outcome": judged.outcome,
        "suspicions": [one.why for one in judged.suspicions],
        "relations": len(gathered.relations),
        "gathered_s": gathered_s,
        "judged_s": time.monotonic() - begin_s - gathered_s,
    }
