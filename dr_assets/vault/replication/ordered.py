"""Work done by a pool, its results in the order of what was asked, in bounded memory.

What belongs here: the window. What stays out: the work.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

WINDOW_BYTES: Final = 192 << 20
WINDOW_STEPS: Final = 128

Step = TypeVar("Step")
Result = TypeVar("Result")


def in_order(
    pool: ThreadPoolExecutor, steps: Iterable[Step], work: Callable[[Step], Result], weight: Callable[[Step], int]
) -> Iterator[tuple[Step, Result]]:
    """Each step with its result; raises what the first step (in order) raised, and begins no more of them.

    At most 128 steps are under way, and no more than `weight` says fit into 192 MiB, but always one.
    """
    waiting: deque[tuple[Step, Future[Result], int]] = deque()
    under_way_bytes = 0
    try:
        for step in steps:
            size_bytes = weight(step)
            while waiting and (len(waiting) >= WINDOW_STEPS or under_way_bytes + size_bytes > WINDOW_BYTES):
                first, future, its_bytes = waiting.popleft()
                under_way_bytes -= its_bytes
                yield first, future.result()
            waiting.append((step, pool.submit(work, step), size_bytes))
            under_way_bytes += size_bytes
        while waiting:
            first, future, _ = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future, _ in waiting:
            future.cancel()
