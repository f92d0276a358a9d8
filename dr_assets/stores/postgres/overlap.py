"""The newest bytes of a stream that we hold: what a source has to show before anything of it is believed.

What belongs here: keeping those bytes, finding them in the vault, the first position at which a source disagrees.
What stays out: streaming them (source_stream.py) and what follows from a disagreement (capture.py).

A primary that comes back from an older snapshot has the same system and timeline as before. Once it has written past
our end, only the bytes tell its history from the one that was captured.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.resume import StoredEnd
from dr_assets.vault.format.keys import WAL, ObjectKey
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")

TAIL_BYTES: Final = 16 << 10
# Behind a WAL switch a segment holds nothing but zeros, and zeros are the same in every history.
_TELLING_BYTES: Final = 512
_PIECES_MAX: Final = 256
_LOOK_BACK_BYTES: Final = 16 << 20


class DivergedError(SourceError):
    """The source's bytes at `position` are not those that were captured: another history (`source.rewound`)."""

    def __init__(self, position: int, end: int) -> None:
        super().__init__(
            "source.rewound",
            f"the source's WAL differs from {format_lsn(position)} on from what was captured, which reaches "
            f"{format_lsn(end)}: it was set back to an older copy without a new timeline and has gone on since",
            "compare it with a restore of the vault, which holds what it lost; to protect it as it is now, start the "
            "capture with --accept-gap and take a base backup at once",
        )
        self.position = position


@dataclass(slots=True)
class Tail:
    """The newest bytes before `end`: up to 16 KiB of `data`, and `zeros` zero bytes behind them."""

    end: int
    data: bytes = b""
    zeros: int = 0

    @property
    def begin(self) -> int:
        """Position of the first byte that is known."""
        return self.end - self.zeros - len(self.data)

    def add(self, data: memoryview | bytes) -> None:
        """The stream goes on with `data`."""
        self.end += len(data)
        if len(data) >= TAIL_BYTES and data[-1]:
            self.data, self.zeros = bytes(data[-TAIL_BYTES:]), 0
            return
        data = bytes(data)
        said = data.rstrip(b"\0")
        if not said:
            self.zeros += len(data)
            return
        if len(said) < TAIL_BYTES:
            said = self.data + bytes(min(self.zeros, TAIL_BYTES)) + said
        self.data, self.zeros = said[-TAIL_BYTES:], len(data) - len(data.rstrip(b"\0"))

    def differs_at(self, begin: int, data: memoryview | bytes) -> int | None:
        """The first position at which `data` is not what is known; what lies beyond the end is not judged."""
        data = data[: max(0, self.end - begin)]
        offset = begin - self.begin
        own = self.data[offset : offset + len(data)].ljust(len(data), b"\0")
        if own == data:
            return None
        return begin + next(index for index, pair in enumerate(zip(own, data, strict=True)) if pair[0] != pair[1])


def stored_tail(vault: Vault, dataset: str, end: StoredEnd) -> Tail:
    """The newest bytes of a stored chain, enough of them to know its history by; empty for an empty chain.

    A chain that begins where another timeline was left names a piece of that one, whose bytes up to there are its own.
    A piece that can't be opened is `vault verify`'s business and no reason to capture nothing: it ends the tail.
    Raises VaultError when the store can't be read.
    """
    pieces: list[Opened] = []
    telling = 0
    for opened in _backwards(vault, dataset, end):
        pieces.append(opened)
        telling += len(opened.plaintext) - opened.plaintext.count(0)
        if telling >= _TELLING_BYTES or len(pieces) == _PIECES_MAX:
            break
    tail = Tail(pieces[-1].header.first if pieces else end.end)
    for opened in reversed(pieces):
        tail.add(opened.plaintext[: end.end - opened.header.first])
    return tail


def _backwards(vault: Vault, dataset: str, end: StoredEnd) -> Iterator[Opened]:
    """The chain's pieces from its last one on, opened, each the one that the later one names."""
    key = None if end.segment is None else ObjectKey.parse(end.segment)
    if key is None or not key.first < end.end <= key.last:
        return
    opened = _opened(vault, key)
    if opened is None:
        return
    yield opened
    begin = max(0, opened.header.first - _LOOK_BACK_BYTES)
    earlier = list(
        vault.objects(dataset, WAL, system_id=key.system_id, timeline=key.timeline, start_after_position=begin)
    )
    while opened is not None:
        later = opened.header
        found = (_opened(vault, obj.key) for obj in earlier if obj.key.last == later.first)
        opened = next((each for each in found if each and each.header.digest == later.previous), None)
        if opened is not None:
            yield opened


def _opened(vault: Vault, key: ObjectKey) -> Opened | None:
    try:
        return vault.open(vault.find(key))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        log.warning("the source can't be held to %s: %s", key, error.found)
        return None
