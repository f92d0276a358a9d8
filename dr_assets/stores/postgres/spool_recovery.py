"""What an earlier run left on the spool: put first, before anything new is captured.

What belongs here: which pieces continue what the vault holds, putting those, dropping the rest with a reason on record.
What stays out: the files (spool.py), streaming on from where that ends (taking.py).

If the source died these pieces are the only copy of their bytes, so they are put whether it answers or not. Only where
it answers, and we hold its slot, is anything dropped that the vault does not hold.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Final

from dr_assets.stores.postgres.protocol import SystemIdentity
from dr_assets.stores.postgres.resume import StoredEnd, find_stored_end
from dr_assets.stores.postgres.spool import Spooled, SpoolFolder
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.prefix import format_position
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")

SPOOL: Final = "spool"
_AT_ONCE: Final = 4
STORED: Final = "the vault holds these positions already"
NOT_CONTINUED: Final = "it does not continue what the vault holds: other bytes or a hole lie between"
TORN: Final = "the file was not whole"


class SpoolRecovery:
    """Puts back what one dataset's spool holds."""

    def __init__(self, vault: Vault, dataset: str, folder: SpoolFolder) -> None:
        self._vault = vault
        self._dataset = dataset
        self._folder = folder

    def put_back(self, *, drop_rest: bool, alive: Callable[[], None] = lambda: None) -> int:
        """Put what continues the vault's chains; how many pieces that were. `alive` is called now and then.

        With `drop_rest` (the source answers, and we are its one consumer) nothing is left on the spool afterwards.
        Raises VaultError; what was put by then is stored, what was not is still on the disk.
        """
        whole, torn = self._folder.scan()
        if drop_rest:
            self._drop(torn, TORN)
        stored = 0
        for (system_id, timeline), pieces in groupby(whole, lambda found: (found.key.system_id, found.key.timeline)):
            stored += self._stream(SystemIdentity(system_id, timeline, 0), list(pieces), alive, drop_rest=drop_rest)
        return stored

    def _stream(
        self, identity: SystemIdentity, pieces: list[Spooled], alive: Callable[[], None], *, drop_rest: bool
    ) -> int:
        stored = 0
        end = find_stored_end(self._vault, self._dataset, identity)
        while True:
            held = [piece for piece in pieces if end is not None and piece.key.last <= end.end]
            self._drop(held, STORED)
            pieces = [piece for piece in pieces if piece not in held]
            following = self._following(pieces, end)
            if not following:
                break
            log.info("%s: putting %d spooled pieces first", self._dataset, len(following))
            self._put(following, alive)
            stored += len(following)
            pieces = [piece for piece in pieces if piece not in following]
            # Some of what came behind these may have been stored in an earlier life.
            end = find_stored_end(self._vault, self._dataset, identity, known=end)
        if drop_rest:
            self._drop(pieces, NOT_CONTINUED)
        return stored

    def _following(self, pieces: list[Spooled], end: StoredEnd | None) -> list[Spooled]:
        """The pieces that continue `end` and each other; of a stream of which nothing is stored, all from its first."""
        following: list[Spooled] = []
        position, previous = (None, None) if end is None else (end.end, end.header)
        for piece in pieces:
            header = self._folder.header(piece.key)
            if header.previous == previous and position in (None, piece.key.first):
                following.append(piece)
                position, previous = piece.key.last, header.digest
        return following

    def _put(self, following: list[Spooled], alive: Callable[[], None]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="spooled") as pool:
            for key in pool.map(self._put_one, following):
                self._folder.drop(key)
                alive()

    def _put_one(self, piece: Spooled) -> ObjectKey:
        sealed = self._folder.load(piece.key)
        return self._vault.put(sealed, self._vault.locks.lock(self._dataset, "wal", self._vault.clock())).key

    def _drop(self, pieces: list[Spooled], reason: str) -> None:
        """Sealed first: a piece that is gone leaves a word behind."""
        if not pieces:
            return
        keys = sorted(piece.key for piece in pieces)
        body: dict[str, Json] = {
            "event": "dropped",
            "reason": reason,
            "pieces": len(keys),
            "size_bytes": sum(piece.size_bytes for piece in pieces),
            "system_id": keys[0].system_id,
            "timeline": keys[0].timeline,
            "first": format_position(keys[0].first),
            "last": format_position(max(key.last for key in keys)),
        }
        record_fact(self._vault, self._dataset, SPOOL, body)
        log.warning("%s: %d spooled pieces dropped: %s", self._dataset, len(keys), reason)
        for key in keys:
            self._folder.drop(key)
