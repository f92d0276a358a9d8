"""Where the log's files lie in a vault: everything below `{estate}/log/`.

What belongs here: names and what they parse to. What stays out: reading and writing (files.py).

    checkpoint/{size:020d}             the signed note, once for each size; zeros in front, so text order is size order
    batch/{base:020d}-{attempt:04d}    the batch that follows a tree of `base` leaves
    tile/{L}/{N}[.p/{W}]               hashes, as C2SP tlog-tiles names them
    tile/entries/{N}[.p/{W}]           leaves
    witnessed|timestamp|anchor/{size:020d}/…    what outsiders say of a checkpoint
"""

import re
from typing import Final

from dr_assets.vault.format.keys import LOG
from dr_assets.vault.log.tiles import Tile

CHECKPOINT: Final = "checkpoint"
BATCH: Final = "batch"
OUTSIDE: Final = ("witnessed", "timestamp", "anchor")

_SIZED: Final = re.compile(r"[0-9]{20}", re.ASCII)
_BATCH: Final = re.compile(r"([0-9]{20})-([0-9]{4})", re.ASCII)
_OUTSIDE: Final = re.compile(rf"(?:{'|'.join(OUTSIDE)})/[0-9]{{20}}(?:/[A-Za-z0-9._-]{{1,128}})?", re.ASCII)


def log_prefix(estate: str) -> str:
    """The folder that holds a log, with its slash."""
    return f"{estate}/{LOG}/"


def checkpoint_name(estate: str, size: int) -> str:
    """Where the checkpoint of a tree of this size lies."""
    return f"{log_prefix(estate)}{CHECKPOINT}/{size:020d}"


def batch_name(estate: str, base: int, attempt: int) -> str:
    """Where a batch lies; another attempt is made only where something that was never ours has the name."""
    return f"{log_prefix(estate)}{BATCH}/{base:020d}-{attempt:04d}"


def tile_name(estate: str, tile: Tile) -> str:
    """Where a tile or a bundle lies."""
    return log_prefix(estate) + tile.path


def size_of(tail: str) -> int | None:
    """The size in a checkpoint's name, from what stands behind its folder; None for a stranger's."""
    return int(tail) if _SIZED.fullmatch(tail) else None


def base_of(tail: str) -> int | None:
    """The base in a batch's name, from what stands behind its folder; None for a stranger's."""
    found = _BATCH.fullmatch(tail)
    return int(found[1]) if found else None


def is_log_name(text: str) -> bool:
    """Whether a name of the store is of the log's form, whoever wrote what lies there."""
    _, _, rest = text.partition(f"/{LOG}/")
    folder, _, tail = rest.partition("/")
    if text.partition("/")[2] != f"{LOG}/{rest}":
        return False
    if folder == CHECKPOINT:
        return size_of(tail) is not None
    if folder == BATCH:
        return base_of(tail) is not None
    return Tile.parse(rest) is not None or _OUTSIDE.fullmatch(rest) is not None
