"""As of a moment: what a reader believes is what the log of then vouches for, and behind it the tail.

What belongs here: leaving out what the log should know and doesn't. What stays out: signatures and chains, which
every reader judges anyway.

An object that was stored before the log was last compared with the whole vault is in the log, if it was there then. One
that isn't came later, whatever the store says of its time: somebody turned a clock back, or put it beneath the lock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Checkpoint, origin_of
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.view import Listing, View

MARGIN: Final = timedelta(minutes=10)  # what is put while the vault is being compared may be in this log or the next


@dataclass(slots=True)
class Trusted:
    """A vault as the log of a moment vouches for it. `left_out` fills while it is listed.

    Stored before `sure_until` counts only what is in the log; `checkpoint` is None where there was no log, and all is
    judged by signature and chain.
    """

    vault: Vault
    checkpoint: Checkpoint | None = None
    sure_until: datetime | None = None
    left_out: set[str] = field(default_factory=set)


def trusted(vault: Vault, as_of: datetime) -> Trusted:
    """The vault as of a moment of the store's clock, without what its log should know and doesn't.

    Reads all names that were logged up to then. Raises VaultError `log.damaged`, `log.malformed`, `log.bad_leaf`.
    """
    reader = LogReader.open(vault, as_of=as_of)
    if reader is None:
        return Trusted(vault)
    swept_at = reader.last_batch().swept_at
    if swept_at is None:
        return Trusted(vault, reader.checkpoint)
    sure_until = swept_at - MARGIN
    names = {hash(name) for vouched in reader.vouched() for name in vouched.names}
    seen = Trusted(vault, reader.checkpoint, sure_until)

    def select(listed: Listing, stream: str | None, moment: datetime | None) -> Iterator[StoredObject]:
        del stream
        for obj in listed(moment):
            if obj.modified_at > sure_until or hash(str(obj.key)) in names:
                yield obj
            else:
                seen.left_out.add(str(obj.key))

    seen.vault = View(vault, select)
    return seen


def is_vouched_for(vault: Vault, name: str, stored_at: datetime | None = None) -> bool:
    """Whether the newest log vouches for an object; False where there is no log.

    Raises VaultError when the log is damaged or the store can't be read.
    """
    reader = LogReader.open(vault)
    return reader is not None and reader.find(name, stored_at) is not None


def require_continues(vault: Vault, known: Checkpoint) -> None:
    """Raise VaultError `vault.older_than_witness` unless the vault's log is that of a known checkpoint, grown.

    Raises VaultError `log.forked` for a log that was rewritten.
    """
    reader = LogReader.open(vault)
    own = origin_of(vault.estate, vault.name)
    if reader is not None and reader.checkpoint.origin != known.origin != own:
        return  # another log: this one was never known
    if reader is None or reader.checkpoint.size < known.size:
        there = 0 if reader is None else reader.checkpoint.size
        raise VaultError(
            "vault.older_than_witness",
            f"the log of {known.origin} had {known.size} leaves once, and has {there} here",
            "the vault was set back or emptied: restore from a replica, or give --as-of and no witness knowingly",
        )
    reader.require_extends(known)
