"""Whether Dagster's instance answers and its daemon lives, for `dr-assets doctor`.

What belongs here: asking the instance, and what its storage raises when it is away. What stays out: judging, printing.
"""

from typing import Final

import dagster as dg
from dagster._core.errors import DagsterHomeNotSetError  # has no public name
from dagster_postgres.utils import DagsterPostgresException  # what it raises when it gave up trying again
from sqlalchemy.exc import SQLAlchemyError

from dr_assets.estate.errors import PolicyError

STORAGE_AWAY: Final = (SQLAlchemyError, dg.DagsterError, DagsterPostgresException, OSError)


def daemon_health() -> list[str]:
    """The daemons that should run by this instance's configuration and have no recent heartbeat; empty when all have.

    Raises PolicyError `dagster.no_instance`, `dagster.unreachable`.
    """
    try:
        instance = dg.DagsterInstance.get()
    except (DagsterHomeNotSetError, dg.DagsterInvariantViolationError, dg.DagsterInvalidConfigError) as error:
        raise PolicyError(
            "dagster.no_instance", "DAGSTER_HOME leads to no instance", "it must hold dagster.yaml"
        ) from error
    except STORAGE_AWAY as error:
        raise _unreachable(error) from None
    with instance:
        try:
            statuses = instance.get_daemon_statuses()
        except STORAGE_AWAY as error:
            raise _unreachable(error) from None
    return sorted(name for name, status in statuses.items() if status.required and not status.healthy)


def _unreachable(error: Exception) -> PolicyError:
    # The drivers' own words may hold the storage's address and user, so only the kind of error is told.
    return PolicyError(
        "dagster.unreachable",
        f"Dagster's storage does not answer ({type(error).__name__})",
        "see the DAGSTER_PG_* variables and that server",
    )
