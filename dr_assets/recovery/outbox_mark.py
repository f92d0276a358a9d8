"""Telling the ledger that its events are out, so that the application's relay does not send them again.

What belongs here: the contract's own statement, run for what the topics hold. What stays out: sending. This is the only
step of a replay that writes to the ledger, so the ledger has to be promoted and the relay still stopped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.contract import load_section
from dr_assets.recovery.outbox import loaded_outbox, missing_events, require_cluster
from dr_assets.recovery.outbox_plan import OutboxPlan
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.stores.postgres.dsn import describe_dsn, masked

SECTION: Final = "outbox_mark"
_BATCH: Final = 1000
_PRESENT: Final = """
    SELECT CAST(o.transfer_id AS VARCHAR) AS transfer
    FROM outbox o JOIN held h ON h.topic = o.topic AND h.idempotency_key = o.idempotency_key
    WHERE NOT o.published AND o.transfer_id NOT IN (
        -- A mark is for all events of a transfer: one that its topic lacks would never be sent.
        SELECT l.transfer_id FROM outbox l
        ANTI JOIN held k ON k.topic = l.topic AND k.idempotency_key = l.idempotency_key WHERE NOT l.published)
    GROUP BY 1 ORDER BY min(o.position), transfer
"""


def load_mark(contract: str) -> str:
    """The statement: it takes `%(transfers)s`, an array of texts. Raises PolicyError (`outbox.no_mark`)."""
    section = load_section(contract, SECTION)
    file = section.value
    entry = None if not isinstance(file, str) or "/" in file else section.folder / file
    if entry is None or not entry.is_file():
        raise PolicyError(
            "outbox.no_mark",
            f"contract {contract} does not say how an event is marked as published",
            f"name a file under `{SECTION}` in its contract.yaml, or mark the rows as your application does",
        )
    return entry.read_text(encoding="utf-8")


def mark_outbox(plan: OutboxPlan, dsn: str, cluster: Cluster, *, workdir: Path | None = None) -> int:
    """Mark every transfer whose events the topics hold and the ledger does not know to be out; how many they were.

    What the topics lack stays unmarked, whatever the plan says. Safe to run again. Raises PolicyError
    (`outbox.other_cluster`, `outbox.no_mark`, and as `plan_outbox`), SourceError (`outbox.ledger`).
    """
    require_cluster(plan.cluster_id, cluster)
    statement = load_mark(plan.contract)
    with loaded_outbox(dsn, plan.contract, workdir) as events:
        missing_events(events, cluster, plan.rules, plan.partitioner, plan.since, workdir)
        transfers = events.engine.rows(_PRESENT)["transfer"].to_pylist()
    try:
        with psycopg.connect(dsn) as ledger:
            for batch in _batches(transfers):
                ledger.execute(statement.encode(), {"transfers": batch})
                ledger.commit()
    except psycopg.Error as error:
        raise SourceError(
            "outbox.ledger",
            f"{describe_dsn(dsn)} does not take the marks: {masked(str(error), dsn)}",
            "is it promoted, and may this role change the outbox? What was marked stays so: run it again",
        ) from None
    return len(transfers)


def _batches(transfers: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(transfers), _BATCH):
        yield transfers[first : first + _BATCH]
