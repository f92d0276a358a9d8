"""How deep a verification looks: names and the store's word, a share of the bytes, or all of them.

What belongs here: the levels, and which objects a sample takes. What stays out: looking.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.format.keys import BASE, PACKS, WAL, ObjectKey, part_stream
from dr_assets.vault.format.pack_list import PACK_LIST
from dr_assets.vault.full_segment import FULL

Level = Literal["index", "sample", "full"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
DEFAULT_SHARE: Final = 0.05
_HASH_END: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Depth:
    """`share` (above 0, at most 1) of the bulk is read at level `sample`, picked by `seed` and name."""

    level: Level = "full"
    share: float = DEFAULT_SHARE
    seed: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise PolicyError(
                "verify.unknown_level", f"there is no level '{self.level}'", f"one of {', '.join(LEVELS)}"
            )
        if not 0 < self.share <= 1:
            raise PolicyError("verify.bad_share", f"a share of {self.share:g}", "above 0 and at most 1")

    @property
    def reads_all(self) -> bool:
        """Whether every byte is read, so that headers are known of everything."""
        return self.level == "full"

    def reads(self, key: ObjectKey) -> bool:
        """Whether this object's bytes are read. What speaks of other objects always is: it is small, and claims."""
        if self.reads_all or not is_bulk(key):
            return True
        if self.level == "index":
            return False
        digest = hashlib.sha256(f"{self.seed}\n{key}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.share * _HASH_END


FULL_DEPTH: Final = Depth()


def depth_of(level: str, share: float = DEFAULT_SHARE, seed: str = "") -> Depth:
    """For words that a person typed. Raises PolicyError `verify.unknown_level`, `verify.bad_share`."""
    return Depth(cast("Level", level), share, seed)


def is_bulk(key: ObjectKey) -> bool:
    """WAL in segments of either kind, packs, catalogues, parts of base backups: nearly all bytes, and no claims."""
    if key.stream in {WAL, FULL, PACKS, PACK_LIST}:
        return True
    return key.stream.startswith(part_stream("")) and key.stream != BASE
