"""Names of the log under which several versions lie: which of them is the log's, so that it is that one that goes over.

What belongs here: the choice. What stays out: judging the log's bytes (verify/log_files.py), copying.

A name of the log has no digest in it, so its oldest version may be a stranger's, laid there and hidden again before the
log came to it. Copied write-once, it would keep the log's own bytes out of the other region for as long as its lock.
"""

from dataclasses import replace

from dr_assets.vault.replication.walk import Pair
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify.log_files import LogFilesJudge


class Overlaid:
    """For one pass over one vault."""

    def __init__(self, source: Vault) -> None:
        self._judge = LogFilesJudge(source, source.clock())

    def settled(self, pair: Pair) -> Pair | None:
        """The pair with the log's version first; None as long as none of them can be told to be it.

        Raises VaultError when the store can't be read.
        """
        if pair.key is not None or len(pair.source) == 1:
            return pair
        own = self._judge.own(pair.text, pair.source)
        return None if own is None else replace(pair, source=(own, *(row for row in pair.source if row is not own)))
