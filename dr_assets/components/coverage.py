"""The asset `estate/coverage`: databases that our credentials see and no dataset declares.

What belongs here: the asset, its check and its daily schedule. What stays out: looking (stores/postgres/discover.py).
"""

import os
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from dr_assets.components.failures import shown_as_failure
from dr_assets.components.labels import cadence_window, estate_labels
from dr_assets.components.parts import schedule_of
from dr_assets.estate.model import Estate
from dr_assets.stores.postgres.discover import UndeclaredDatabase, undeclared_databases

CRON: Final = "30 5 * * *"
KEY: Final = dg.AssetKey(["estate", "coverage"])


def coverage_asset(estate: Estate) -> dg.AssetsDefinition:
    """What is there against what is declared; a database nobody declared is a failed check, not a failed run."""
    labels = estate_labels(estate)

    @dg.asset(
        key=KEY,
        description="Databases that the estate's credentials can see, compared with those that a dataset declares.",
        kinds={"postgres"},
        freshness_policy=cadence_window(timedelta(days=1)),
        check_specs=[
            dg.AssetCheckSpec("coverage", asset=KEY, description="Every database that can be seen is declared.")
        ],
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def coverage() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster reads the bare class
        with shown_as_failure():
            undeclared = undeclared_databases(estate, os.environ)
        result = dg.AssetCheckResult(
            passed=not undeclared,
            check_name="coverage",
            description=_sentence(undeclared),
            metadata=_listed(undeclared),
        )
        counts = {"declared_datasets": len(estate.datasets), "undeclared_databases": len(undeclared)}
        return dg.MaterializeResult(metadata=counts, check_results=[result])

    return coverage


def coverage_schedule(job: Any) -> dg.ScheduleDefinition:
    """Daily: databases appear without anybody telling us."""
    told = "Compares what is there with what is declared, daily."
    return schedule_of("estate_coverage", job, CRON, told)


def _sentence(undeclared: list[UndeclaredDatabase]) -> str:
    if not undeclared:
        return "every database that the credentials see is declared"
    names = ", ".join(f"{database.server}/{database.database}" for database in undeclared)
    return f"declared by no dataset: {names}"


def _listed(undeclared: list[UndeclaredDatabase]) -> dict[str, Any]:
    columns = [dg.TableColumn("server"), dg.TableColumn("database"), dg.TableColumn("owner")]
    columns += [dg.TableColumn("size_bytes", type="int"), dg.TableColumn("seen_by")]
    records = [
        dg.TableRecord(
            {
                "server": database.server,
                "database": database.database,
                "owner": database.owner,
                "size_bytes": database.size_bytes,
                "seen_by": database.seen_by,
            }
        )
        for database in undeclared
    ]
    return {"undeclared": dg.MetadataValue.table(records, dg.TableSchema(columns=columns))}
