"""Our own replicator's hands: what is not proven is brought there, and then proven.

What belongs here: copying sealed bytes as they are, lengthening locks. What stays out: judging (proof.py), deleting.

Nothing is opened: no key is needed, and none could be taken from here. A name's digest is compared with the bytes
before they are put; what can't be believed at the source is not spread. A put is write-once and read back, so a run
that was killed anywhere is simply run again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.replication.proof import (
    LOG_LIMIT_BYTES,
    Proven,
    Unproven,
    Verdict,
    lock_asked,
    prove,
)
from dr_assets.vault.replication.walk import Pair
from dr_assets.vault.storage import STORE_AWAY, Head, Lock, ObjectStore, Version
from dr_assets.vault.storage.versions import get_authentic
from dr_assets.vault.storage.write_once import ensure_locked, put_locked, require_clock

SHORTEST_LOCK: Final = timedelta(days=1)  # for what is over at the source: no put goes without a lock


class Copier:
    """Brings objects from one store to another; threads may share it."""

    def __init__(self, source: ObjectStore, replica: ObjectStore, clock: Callable[[], datetime]) -> None:
        self._source = source
        self._replica = replica
        self._clock = clock

    def mend(self, unproven: Unproven, now: datetime) -> Verdict:
        """Do what lacks, then prove it.

        Damage at the source, rotten bytes under a locked version, or a stranger's under the name stay unproven.
        """
        held = unproven.held
        if held is None or unproven.why == "rotten":
            return unproven
        try:
            if unproven.why in {"missing", "differs"}:
                done = self._copy(unproven.pair, held, now)
                if held.held:
                    self._replica.set_hold(done.pair.text, done.pair.replica[-1].version_id, held=True)
                    return prove(self._source, self._replica, done.pair, now)
                return done
            extended = self._follow(unproven, held, now)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            why = "tampered" if error.code == "vault.tampered" else unproven.why
            return replace(unproven, why=why, detail=f"{error.code}: {error.found}")
        verdict = prove(self._source, self._replica, unproven.pair, now)
        return replace(verdict, extended=extended) if isinstance(verdict, Proven) else verdict

    def _copy(self, pair: Pair, held: Head, now: datetime) -> Proven:
        """Put and read back: that is the proof. Raises VaultError."""
        lock = self._lock(held, pair.key, now)
        if pair.key is None:
            return self._copy_of_log(pair, held, lock)
        data = get_authentic(self._source, pair.key, held.version_id or None).data
        receipt = put_locked(self._replica, pair.key, data, hashlib.sha256(data).hexdigest(), lock, clock=self._clock)
        stored = Version(pair.text, receipt.version_id, len(data), receipt.stored_at)
        return Proven(_with(pair, stored), receipt.lock.retain_until, len(data))

    def _copy_of_log(self, pair: Pair, held: Head, lock: Lock) -> Proven:
        """What the log wrote has no digest in its name; whoever reads it holds it to signatures and roots."""
        data = self._source.get(pair.text, held.version_id, limit_bytes=LOG_LIMIT_BYTES).data
        sha256 = hashlib.sha256(data).hexdigest()
        require_clock(self._replica, self._clock)
        put = self._replica.put(pair.text, data, sha256, lock)
        self._lengthen_log(pair.text, put.version_id, lock)
        head = self._replica.head(pair.text, put.version_id)
        if head is None or head.sha256 not in {sha256, None} or head.lock is None:
            raise VaultError("vault.not_stored", f"{pair.text} does not read back", "don't trust that store")
        stored = Version(pair.text, put.version_id, len(data), put.store_at)
        return Proven(_with(pair, stored), head.lock.retain_until, len(data))

    def _lengthen_log(self, text: str, version_id: str, lock: Lock) -> None:
        head = self._replica.head(text, version_id)
        if head is None or head.lock is None or head.lock.retain_until < lock.retain_until:
            self._replica.extend(text, version_id, lock)

    def _follow(self, unproven: Unproven, held: Head, now: datetime) -> bool:
        """A lock that grew at the source grows there, too, and a hold is placed; none is ever released from here."""
        found, pair = unproven.found, unproven.pair
        if found is None:
            return False
        if held.held and not found.held:
            self._replica.set_hold(pair.text, found.version_id, held=True)
        lock = self._lock(held, pair.key, now)
        if pair.key is None:
            require_clock(self._replica, self._clock)
            self._lengthen_log(pair.text, found.version_id, lock)
            return True
        return ensure_locked(self._replica, pair.key, found.version_id, lock, clock=self._clock)

    def _lock(self, held: Head, key: ObjectKey | None, now: datetime) -> Lock:
        asked = lock_asked(held.lock, key, now)
        shortest = (now + SHORTEST_LOCK).replace(microsecond=0)
        if asked is None:
            return Lock("GOVERNANCE" if held.lock is None else held.lock.mode, shortest)
        return replace(asked, retain_until=max(asked.retain_until, shortest))


def _with(pair: Pair, stored: Version) -> Pair:
    """As both stores will list it the next time."""
    known = tuple(row for row in pair.replica if row.version_id != stored.version_id)
    return replace(pair, replica=(*known, stored))
