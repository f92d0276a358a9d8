"""Many names examined at once, handed back in their order, in bounded memory.

What belongs here: threads and the bytes that they may hold. What stays out: what is done with a name.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

HELD_BYTES: Final = 192 << 20  # of sealed objects at once: what is read is bounded, whatever the number of threads
AHEAD: Final = 256  # names, which may be waiting behind a large object

Asked = TypeVar("Asked")
Told = TypeVar("Told")


def in_order(
    asked: Iterable[Asked], tell: Callable[[Asked], Told], size_of: Callable[[Asked], int], workers: int
) -> Iterator[tuple[Asked, Told]]:
    """`tell` of each in `asked`'s order, by `workers` threads.

    `size_of` is how many bytes telling holds at most; what is larger than all that may be held runs by itself.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        ahead: deque[tuple[Asked, int, Future[Told]]] = deque()
        held = 0
        try:
            for one in asked:
                size = size_of(one)
                while ahead and (held + size > HELD_BYTES or len(ahead) >= AHEAD):
                    done, freed, future = ahead.popleft()
                    yield done, future.result()
                    held -= freed
                ahead.append((one, size, pool.submit(tell, one)))
                held += size
            while ahead:
                done, _, future = ahead.popleft()
                yield done, future.result()
        finally:
            for _, _, future in ahead:
                future.cancel()
