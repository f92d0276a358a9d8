"""The asset `estate/coverage`: databases, topics and buckets that our credentials see and no dataset declares.

What belongs here: the asset, its check and its daily schedule. What stays out: looking (stores/discover.py).
"""

import os
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from dr_assets.components.failures import shown_as_failure
from dr_assets.components.labels import cadence_window, estate_labels
from dr_assets.components.parts import schedule_of
from dr_assets.estate.model import Estate
from dr_assets.stores.discover import Undeclared, undeclared

CRON: Final = "30 5 * * *"
SHOWN: Final = 10
KEY: Final = dg.AssetKey(["estate", "coverage"])


def coverage_asset(estate: Estate) -> dg.AssetsDefinition:
    """What is there against what is declared; a database nobody declared is a failed check, not a failed run."""
    labels = estate_labels(estate)

    @dg.asset(
        key=KEY,
        description="Databases, topics and buckets that the credentials can see, against those that are declared.",
        kinds={"postgres", "kafka", "s3"},
        freshness_policy=cadence_window(timedelta(days=1)),
        check_specs=[
            dg.AssetCheckSpec(
                "coverage", asset=KEY, description="Every database, topic and bucket that can be seen is declared."
            )
        ],
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def coverage() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster reads the bare class
        with shown_as_failure():
            found = undeclared(estate, os.environ)
        result = dg.AssetCheckResult(
            passed=not found, check_name="coverage", description=_sentence(found), metadata=_listed(found)
        )
        counts = {
            "declared_datasets": len(estate.datasets),
            "undeclared_databases": len(found.databases),
            "undeclared_topics": len(found.topics),
            "undeclared_buckets": len(found.places),
        }
        return dg.MaterializeResult(metadata=counts, check_results=[result])

    return coverage


def coverage_schedule(job: Any) -> dg.ScheduleDefinition:
    """Daily: databases appear without anybody telling us."""
    told = "Compares what is there with what is declared, daily."
    return schedule_of("estate_coverage", job, CRON, told)


def _sentence(found: Undeclared) -> str:
    if not found:
        return "every database, topic and bucket that the credentials see is declared"
    names = [f"{database.server}/{database.database}" for database in found.databases]
    names += [f"topic {topic.topic}" for topic in found.topics]
    names += [f"bucket {place.bucket}/{place.prefix}" for place in found.places]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"declared by no dataset: {', '.join(names[:SHOWN])}{more}"


def _listed(found: Undeclared) -> dict[str, Any]:
    columns = [dg.TableColumn(name) for name in ("kind", "where", "name", "size", "seen_by")]
    rows = [("database", one.server, one.database, f"{one.size_bytes} bytes", one.seen_by) for one in found.databases]
    rows += [("topic", one.cluster_id, one.topic, f"{one.partitions} partitions", one.seen_by) for one in found.topics]
    rows += [("bucket", one.endpoint, f"{one.bucket}/{one.prefix}", "", one.seen_by) for one in found.places]
    records = [dg.TableRecord(dict(zip((column.name for column in columns), row, strict=True))) for row in rows]
    return {"undeclared": dg.MetadataValue.table(records, dg.TableSchema(columns=columns))}
