"""What the transparency log vouches for, held to what is there: nothing that it names may have vanished.

What belongs here: the claims of the log's leaves. What stays out: the log's own files (log_files.py), and the claims of
facts and manifests (tally.py).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.keys import ObjectKey, prefix_of
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.reader import LogReader, Vouched
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.tally import Tally

_STORED_AT: Final = "stored_at"


def newest_log(vault: Vault, as_of: datetime | None) -> Signed | VaultError | None:
    """The newest checkpoint (of a moment), None without a log, or why there is none to be believed.

    Raises VaultError only when the store can't be read.
    """
    try:
        reader = LogReader.open(vault, as_of=as_of)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return error
    return None if reader is None else reader.signed


def vouched_findings(
    vault: Vault, dataset: str | None, newest: Signed | VaultError | None, tally: Tally
) -> Iterator[Finding]:
    """`missing` for every object that the log vouches for and that nothing accounts for; one for a log that is broken.

    Asks `tally` once everything was added to it. Raises VaultError only when the store can't be read.
    """
    if newest is None:
        return
    try:
        if isinstance(newest, VaultError):
            raise newest
        for vouched in LogReader(LogFiles(vault), newest).vouched():
            at = _stored_at(vouched)
            for name in vouched.names:
                key = ObjectKey.parse(name)
                if key is None or dataset not in {None, key.dataset} or not tally.lacks(key, at):
                    continue
                yield Finding("missing", name, None, f"leaf {vouched.index} of the log vouches for it")
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        detail = f"what it vouches for can't all be read: {error.code}: {error.found}"
        yield Finding("missing", f"{prefix_of(vault.estate)}log/", None, detail)


def _stored_at(vouched: Vouched) -> datetime | None:
    """When the store took it, by its own clock; None where the leaf doesn't say."""
    try:
        return canonical.parse_time(vouched.statement.predicate.get(_STORED_AT), _STORED_AT)
    except VaultError:
        return None
