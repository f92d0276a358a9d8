"""The micro-segments of one stream from a position on, seen through a window of bounded size.

What belongs here: listing ahead, and the chain within the window. What stays out: what is done with it (rollup.py).
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from dr_assets.stores.postgres.full_cut import MICROS_MAX
from dr_assets.vault.believed import believed
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import WAL, ObjectKey
from dr_assets.vault.vault import StoredObject, Vault

# Twice what a full can cover: forks behind the next cut are then decided by what comes after them, as ever.
WINDOW_MICROS: Final = 2 * MICROS_MAX


class MicroWindow:
    """Names are listed once, in order; only those in the window are in memory."""

    def __init__(self, vault: Vault, dataset: str, system_id: str, timeline: int, position: int) -> None:
        self._vault = vault
        self._listing: Iterator[StoredObject] = vault.objects(
            dataset, WAL, system_id=system_id, timeline=timeline, start_after_position=position
        )
        self._names: deque[StoredObject] = deque()
        self._headers: dict[ObjectKey, Header] = {}
        self._is_whole = False

    @property
    def is_whole(self) -> bool:
        """Whether the window reaches to the end of what is listed."""
        self._fill()
        return self._is_whole

    def first(self) -> StoredObject | None:
        """The piece with the lowest position; None when there is none."""
        self._fill()
        return self._names[0] if self._names else None

    def behind(self, position: int) -> StoredObject | None:
        """The first piece that begins at or behind `position`."""
        self._fill()
        return next((obj for obj in self._names if obj.key.first >= position), None)

    def chain(
        self, position: int, joint: str | None, *, strict: bool = False, until: int | None = None
    ) -> tuple[StoredObject, ...]:
        """What continues `joint` at exactly `position`, as far as the window reaches. Raises VaultError.

        `joint` None is the begin of a chain. Unless `strict`, names decide where they leave no choice: whoever opens
        the pieces must see that they join, and ask again strictly where they don't. `until` leaves out what ends
        beyond it, so that no piece up to there wins a fork by what follows it.
        """
        self._fill()
        names = [obj for obj in self._names if until is None or obj.key.last <= until]
        begins = [obj for obj in names if obj.key.first == position and self._follows(obj, joint)]
        if not begins and joint is None:  # what came before may have been on record and is gone
            begins = [obj for obj in names if obj.key.first == position]
        beyond = [obj for obj in names if obj.key.first > position]
        return resolve([*begins, *beyond], self.header, position, strict=strict).segments

    def drop_below(self, position: int) -> None:
        """Nobody asks for these any more."""
        while self._names and self._names[0].key.first < position:
            self._headers.pop(self._names.popleft().key, None)

    def header(self, obj: StoredObject) -> Header:
        """Verified, read once. Raises VaultError."""
        if obj.key not in self._headers:
            self._headers[obj.key] = self._vault.header(obj)
        return self._headers[obj.key]

    def _follows(self, obj: StoredObject, joint: str | None) -> bool:
        header = believed(self.header, obj)
        return header is not None and header.previous == joint  # rubbish under a fitting name continues nothing

    def _fill(self) -> None:
        wanted = WINDOW_MICROS - len(self._names)
        if wanted <= 0 or self._is_whole:
            return
        before = len(self._names)
        self._names.extend(islice(self._listing, wanted))
        self._is_whole = len(self._names) - before < wanted
