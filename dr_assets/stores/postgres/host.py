"""What the host's C library can do for volumes that Python's own modules don't ask of it.

What belongs here: memory that stays ours, room for a file before it is written. What stays out: whose volumes. Both are
speed alone: where the library or the file system doesn't know them, nothing else changes.
"""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_HEAPS: Final = -8
_KEPT_BYTES: Final = 256 << 20
# A frame and what it takes to make one lie in the heap; a whole object would tear holes into it.
_HEAP_BLOCK_BYTES: Final = 4 << 20
# Below this the file system finds room well enough by itself.
_WORTH_BYTES: Final = 1 << 20


def keep_freed_memory() -> None:
    """Keep up to 256 MiB of freed memory in this process, for good, instead of giving every buffer back.

    Buffers of a MiB are otherwise mapped and zeroed by the kernel anew each time: as much work as unpacking what they
    hold. All threads share one heap, so that what one of them lets go the next one uses: with a heap for each, every
    one grows until it has held the most that a thread ever holds. Call it before there are threads. glibc alone knows
    these settings (`mallopt`, malloc.h).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _HEAP_BLOCK_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_HEAPS, 1)


def allocate(descriptor: int, size_bytes: int) -> None:
    """Have room for an empty file's `size_bytes` found at once, which also sets its size. Where that can't be, nothing.

    Not `os.posix_fallocate`: that writes zeros on a file system that cannot do it.
    """
    fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
    if fallocate is not None and size_bytes >= _WORTH_BYTES:
        fallocate(descriptor, 0, ctypes.c_long(0), ctypes.c_long(size_bytes))
