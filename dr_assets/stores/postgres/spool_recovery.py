"""What an earlier run left on the spool: put first, before anything new is captured.

What belongs here: which pieces continue what the vault holds, putting those, dropping the rest with a reason on record.
What stays out: the files (spool.py), streaming on from where that ends (taking.py).

If the source died, or has removed that WAL, these pieces are the only copy of their bytes, so they are put whether it
answers or not. Only where it answers, and we hold its slot, is anything dropped that the vault does not hold.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, takewhile
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.protocol import SystemIdentity
from dr_assets.stores.postgres.resume import StoredEnd, find_stored_end
from dr_assets.stores.postgres.spool import Spooled, SpoolFolder
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import WAL, ObjectKey
from dr_assets.vault.prefix import format_position
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")

SPOOL: Final = "spool"
_AT_ONCE: Final = 4
# No piece is longer, so the one that ends at a position begins no farther before it.
_LOOK_BACK_BYTES: Final = 16 << 20
STORED: Final = "the vault holds these positions already"
NOT_CONTINUED: Final = "it does not continue what the vault holds: other bytes or a hole lie between"
TORN: Final = "the file was not whole"


class SpoolRecovery:
    """Puts back what one dataset's spool holds, until `stopped`.

    Raises PolicyError `spool.foreign` for a folder with another estate's or dataset's pieces: none is touched.
    """

    def __init__(
        self, vault: Vault, dataset: str, folder: SpoolFolder, *, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._vault = vault
        self._dataset = dataset
        self._folder = folder
        self._stopped = stopped
        self._require_own()

    @property
    def is_empty(self) -> bool:
        """Whether no piece lies there."""
        return not self._folder.names()

    def put_back(self, *, drop_rest: bool, alive: Callable[[], None] = lambda: None) -> int:
        """Put what continues the vault's chains; how many pieces that were. `alive` is called now and then.

        With `drop_rest` (the source answers, and we are its one consumer) nothing is left on the spool afterwards,
        unless it was stopped: what was not put by then is still on the disk. So it is when VaultError is raised.
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
            held = [
                piece
                for piece in pieces
                if end is not None and end.begin <= piece.key.first and piece.key.last <= end.end
            ]
            self._drop(held, STORED)
            pieces = [piece for piece in pieces if piece not in held]
            following = self._following(pieces, end) or self._following_older(pieces, end)
            if not following or self._stopped():
                break
            log.info("%s: putting %d spooled pieces first", self._dataset, len(following))
            stored += self._put(following, alive)
            pieces = [piece for piece in pieces if piece not in following]
            if self._stopped():
                return stored
            # Some of what came behind these may have been stored in an earlier life.
            end = find_stored_end(self._vault, self._dataset, identity, known=end)
        if drop_rest and not self._stopped():
            self._drop(pieces, NOT_CONTINUED)
        return stored

    def _following(self, pieces: list[Spooled], end: StoredEnd | None) -> list[Spooled]:
        """The pieces that continue `end` and each other; of a stream of which nothing is stored, all from its first."""
        position, previous = (None, None) if end is None else (end.end, end.header)
        return self._linked(pieces, position, previous)

    def _following_older(self, pieces: list[Spooled], end: StoredEnd | None) -> list[Spooled]:
        """The same of a chain that was given up for the one that ends at `end`: all of it lies before that one.

        What reaches into the newer chain may be of another history, and is never put beside it.
        """
        older = [piece for piece in pieces if end is not None and piece.key.last <= end.begin]
        for index, piece in enumerate(older):
            previous = self._folder.header(piece.key).previous
            if previous is None or previous in self._headers_ending_at(piece.key):
                return self._linked(older[index:], piece.key.first, previous)
        return []

    def _headers_ending_at(self, key: ObjectKey) -> set[str]:
        """The digests of the stored headers of that stream whose pieces end where this one begins."""
        start = max(0, key.first - _LOOK_BACK_BYTES)
        objects = self._vault.objects(
            self._dataset, WAL, system_id=key.system_id, timeline=key.timeline, start_after_position=start
        )
        before = takewhile(lambda obj: obj.key.first < key.first, objects)
        return {self._vault.header(obj).digest for obj in before if obj.key.last == key.first}

    def _linked(self, pieces: list[Spooled], position: int | None, previous: str | None) -> list[Spooled]:
        following: list[Spooled] = []
        for piece in pieces:
            header = self._folder.header(piece.key)
            if header.previous == previous and position in (None, piece.key.first):
                following.append(piece)
                position, previous = piece.key.last, header.digest
        return following

    def _require_own(self) -> None:
        wanted = (self._vault.estate, self._dataset)
        foreign = [key for key in self._folder.names() if (key.estate, key.dataset) != wanted]
        if foreign:
            raise PolicyError(
                "spool.foreign",
                f"the spool's folder {self._folder.folder} holds {len(foreign)} pieces of {foreign[0].estate}/"
                f"{foreign[0].dataset}, this capture is of {'/'.join(wanted)}",
                "give every estate a folder of its own; a capture of theirs puts these, so delete none",
            )

    def _put(self, following: list[Spooled], alive: Callable[[], None]) -> int:
        put = 0
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="spooled") as pool:
            for key in pool.map(self._put_one, following):
                if key is None:
                    continue
                self._folder.drop(key)
                put += 1
                alive()
        return put

    def _put_one(self, piece: Spooled) -> ObjectKey | None:
        """None when it was stopped before this one."""
        if self._stopped():
            return None
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
