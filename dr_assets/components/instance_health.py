"""Whether Dagster's instance answers and its daemon lives, for `dr-assets doctor`.

What belongs here: asking the instance. What stays out: judging and printing.
"""

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from dr_assets.estate.errors import PolicyError


def daemon_health() -> list[str]:
    """The daemons that should run by this instance's configuration and have no recent heartbeat; empty when all have.

    Raises PolicyError `dagster.no_instance`, `dagster.unreachable`.
    """
    try:
        instance = dg.DagsterInstance.get()
    except (dg.DagsterInvariantViolationError, dg.DagsterInvalidConfigError) as error:
        raise PolicyError(
            "dagster.no_instance", "DAGSTER_HOME leads to no instance", "it must hold dagster.yaml"
        ) from error
    except (SQLAlchemyError, dg.DagsterError, OSError) as error:
        raise _unreachable(error) from None
    with instance:
        try:
            statuses = instance.get_daemon_statuses()
        except (SQLAlchemyError, dg.DagsterError, OSError) as error:
            raise _unreachable(error) from None
    return sorted(name for name, status in statuses.items() if status.required and not status.healthy)


def _unreachable(error: Exception) -> PolicyError:
    # The drivers' own words may hold the storage's address and user, so only the kind of error is told.
    return PolicyError(
        "dagster.unreachable",
        f"Dagster's storage does not answer ({type(error).__name__})",
        "see the DAGSTER_PG_* variables and that server",
    )
