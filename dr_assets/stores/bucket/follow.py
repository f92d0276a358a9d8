"""Copying on and on: a listing at its cadence, events in between, trouble told and waited out.

What belongs here: when to run. What stays out: a run (copy.py).
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.bucket.copy import Asked, CopyResult, copy
from dr_assets.stores.bucket.events import Queue
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place
from dr_assets.vault.storage import STORE_AWAY

EVENTS_WAIT_S: Final = 5
_RETRY_S: Final = 10.0
# Somebody has to act on these before another try makes sense; a store that is away comes back by itself.
_PASSING: Final = frozenset({"bucket.unreachable", "bucket.queue", "bucket.unread", "bucket.not_complete"}) | STORE_AWAY


def follow(
    site: Site,
    place: Place,
    queue: Queue | None,
    *,
    say: Callable[[str], None],
    stop: threading.Event | None = None,
    ran: Callable[[CopyResult], None] | None = None,
) -> None:
    """Copy until `stop` is set. `say` is told in words, `ran` every run's result.

    Raises what doesn't pass by itself: PolicyError, and errors of damage.
    """
    stop = stop or threading.Event()
    every_s = site.dataset.copy_every.total_seconds()
    due_s = time.monotonic()
    while not stop.is_set():
        try:
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + every_s
                _tell(copy(site, place), say, ran)
            elif queue is not None:
                copy_told(site, place, queue, say=say, ran=ran)
            else:
                stop.wait(min(1.0, max(0.0, due_s - time.monotonic())))
        except (SourceError, VaultError) as error:
            if error.code not in _PASSING:
                raise
            say(f"{error.code}: {error.found}")
            stop.wait(_RETRY_S)


def copy_told(
    site: Site,
    place: Place,
    queue: Queue,
    *,
    say: Callable[[str], None],
    ran: Callable[[CopyResult], None] | None = None,
    wait_s: int = EVENTS_WAIT_S,
) -> CopyResult | None:
    """Copy what the queue tells of, then let the messages go; None where it tells nothing.

    Raises SourceError `bucket.queue`, and what `copy` raises: then the messages come again.
    """
    told = queue.receive(wait_s)
    if not told:
        return None
    names = sorted(name for name in told.names if name.startswith(place.prefix))
    result = copy(site, place, Asked(names=names, retagged=told.retagged)) if names else None
    queue.let_go(told)
    if result is not None:
        _tell(result, say, ran)
    return result


def _tell(result: CopyResult, say: Callable[[str], None], ran: Callable[[CopyResult], None] | None) -> None:
    if result.kind != "unchanged":
        counts = result.counts
        say(f"{result.kind}: {counts.copied} versions ({counts.copied_bytes / 1e6:.1f} MB) copied, {result.gone} gone")
    if ran is not None:
        ran(result)
