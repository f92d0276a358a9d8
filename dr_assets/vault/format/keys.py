"""Names of objects: an object's key says what it holds and the digest of its bytes.

What belongs here: the text form of keys and of their prefixes. What stays out: listing and storage.
"""

import re
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import VaultError

POSITION_END: Final = 1 << 64
TIMELINE_END: Final = 1 << 32
DIGEST_HEX: Final = 32

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_NAME_TEXT: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
_KEY: Final = re.compile(
    rf"(?P<estate>{_NAME_TEXT})/(?P<dataset>{_NAME_TEXT})/(?P<stream>{_NAME_TEXT})/(?P<system_id>{_NAME_TEXT})"
    r"/(?P<timeline>[0-9A-F]{8})/(?P<first>[0-9A-F]{16})-(?P<last>[0-9A-F]{16})-(?P<digest>[0-9a-f]{32})",
    re.ASCII,
)

WAL: Final = "wal"
BASE: Final = "base"
KEYS: Final = "keys"
PACKS: Final = "packs"  # of Kafka record batches; first is a pack's running number there, last the same plus one
LOG: Final = "log"  # no dataset: what lies below `{estate}/log/` has names of its own (log/names.py)


def part_stream(snapshot_id: str) -> str:
    """The stream that holds one base backup's parts; first and last are part ordinals there."""
    return f"{BASE}-{snapshot_id}"


def fact_stream(kind: str) -> str:
    """The stream of one kind of fact; first is microseconds since the epoch there, last the same plus one."""
    return f"facts-{kind}"


def is_name(text: str) -> bool:
    """Whether `text` may stand between two slashes of a key."""
    return _NAME.fullmatch(text) is not None


def require_name(text: str, what: str) -> str:
    """`text`, or VaultError `vault.bad_name` when it may not stand in a key."""
    if not is_name(text):
        raise VaultError(
            "vault.bad_name",
            f"{what} '{text[:80]}' can't be part of an object's name",
            "use up to 63 lower-case letters, digits, dots, dashes and underscores, a letter or digit first",
        )
    return text


def is_log_folder(prefix: str) -> bool:
    """Whether a prefix, or a name, lies in an estate's log."""
    return prefix.split("/", 2)[1:2] == [LOG]


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """One object's name, ordered as the store lists it within a stream.

    `first` and `last` are positions in the stream, half-open: [first, last). `digest` is the first 16 bytes of the
    SHA-256 of the object's bytes, in hex.
    """

    estate: str
    dataset: str
    stream: str
    system_id: str
    timeline: int
    first: int
    last: int
    digest: str

    def __str__(self) -> str:
        return f"{self.place}{self.first:016X}-{self.last:016X}-{self.digest}"

    @property
    def place(self) -> str:
        """What comes before the positions: `{estate}/{dataset}/{stream}/{system_id}/{timeline}/`."""
        return f"{self.estate}/{self.dataset}/{self.stream}/{self.system_id}/{self.timeline:08X}/"

    @classmethod
    def parse(cls, text: str) -> "ObjectKey | None":
        """The key that `text` is the exact form of, or None: a name that isn't ours is reported, never fatal."""
        found = _KEY.fullmatch(text)
        if found is None:
            return None
        first, last = int(found["first"], 16), int(found["last"], 16)
        if first > last:
            return None
        estate, dataset, stream, system_id = found.group("estate", "dataset", "stream", "system_id")
        return cls(estate, dataset, stream, system_id, int(found["timeline"], 16), first, last, found["digest"])


def prefix_of(
    estate: str,
    dataset: str | None = None,
    stream: str | None = None,
    system_id: str | None = None,
    timeline: int | None = None,
) -> str:
    """The longest prefix that the given parts fix; a part after a missing one can only be filtered, not listed."""
    prefix = f"{estate}/"
    for part in (dataset, stream, system_id, None if timeline is None else f"{timeline:08X}"):
        if part is None:
            break
        prefix += f"{part}/"
    return prefix
