"""How a vault's log stands: does each checkpoint continue the one before, and what is not logged yet.

What belongs here: looking, with nothing written. What stays out: verdicts and colours (components/vault_checkpoint.py).
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.feed import look_for_new
from dr_assets.vault.log.reader import LogReader, read_checkpoint
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import Vault

EARLIER: Final = 8


@dataclass(frozen=True, slots=True)
class LogStanding:
    """What a look at a log told. `unlogged` objects are stored and not in it, the oldest since `oldest_at`.

    `trouble` says why it can't be believed, with nothing else known then. `compared` earlier checkpoints are its own.
    """

    now: datetime
    checkpoint: Checkpoint | None = None
    looked_at: datetime | None = None
    compared: int = 0
    unlogged: int = 0
    oldest_at: datetime | None = None
    trouble: str | None = None


def log_standing(vault: Vault) -> LogStanding:
    """Look at the newest checkpoint, some before it, and at what is new in the vault since.

    Raises VaultError when the store can't be read.
    """
    now = vault.store.now()
    try:
        reader = LogReader.open(vault)
        if reader is None:
            look = look_for_new(vault, {}, {})
            return LogStanding(now, unlogged=look.names_total, oldest_at=look.oldest_at)
        compared = _compared(reader)
        last = reader.last_batch()
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return LogStanding(now, trouble=str(error))
    look = look_for_new(vault, last.marks, last.closed)
    return LogStanding(now, reader.checkpoint, last.looked_at, compared, look.names_total, look.oldest_at)


def _compared(reader: LogReader) -> int:
    """How many of the checkpoints before this one it continues; raises VaultError `log.forked` if not one."""
    compared = 0
    for size in islice(reader.files.sizes_down(reader.checkpoint.size), EARLIER):
        earlier = read_checkpoint(reader.files, size, reader.checkpoint.origin)
        if earlier is not None:
            reader.require_extends(earlier.checkpoint)
            compared += 1
    return compared
