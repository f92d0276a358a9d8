"""Errors a person has to act on, shown in Dagster as their one line and hint.

What belongs here: the translation. What stays out: our own bugs, which keep their traceback.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import dagster as dg

from dr_assets.estate.errors import DrError, PolicyError


@contextmanager
def shown_as_failure() -> Iterator[None]:
    """Turn a `DrError` into the step's failure. A `PolicyError` isn't retried: nothing changes until somebody acts."""
    try:
        yield
    except DrError as error:
        raise failure_of(error) from error


@contextmanager
def each_shown_as_failure() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Several attempts of which each is made though others fail: the first `DrError` is the step's failure at the end.

    A vault that is away keeps no other from being looked after.
    """
    failed: list[DrError] = []

    @contextmanager
    def attempt() -> Iterator[None]:
        try:
            yield
        except DrError as error:
            failed.append(error)

    yield attempt
    if failed:
        raise failure_of(failed[0]) from failed[0]


def failure_of(error: DrError) -> dg.Failure:
    """The step's failure for an error that was caught on the way."""
    return dg.Failure(
        description=str(error),
        metadata={"code": error.code, "hint": error.hint},
        allow_retries=not isinstance(error, PolicyError),
    )
