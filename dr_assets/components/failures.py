"""Errors a person has to act on, shown in Dagster as their one line and hint.

What belongs here: the translation. What stays out: our own bugs, which keep their traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dr_assets.estate.errors import DrError, PolicyError


@contextmanager
def shown_as_failure() -> Iterator[None]:
    """Turn a `DrError` into the step's failure. A `PolicyError` isn't retried: nothing changes until somebody acts."""
    try:
        yield
    except DrError as error:
        raise failure_of(error) from error


def failure_of(error: DrError) -> dg.Failure:
    """The step's failure for an error that was caught on the way."""
    return dg.Failure(
        description=str(error),
        metadata={"code": error.code, "hint": error.hint},
        allow_retries=not isinstance(error, PolicyError),
    )
