"""A standby that gets its WAL from the vault alone, by its own restore_command.

What belongs here: answering what the standby asks, in this process, through files. What stays out: what the vault
gives (stores/postgres/wal_feed.py); `dr-assets wal get` is the same as a command, with the keys at hand.
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dr_assets.cli.wal import NOT_STORED, STOP
from dr_assets.engines.placement import RunAs, give
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.wal_feed import NotStoredError, WalFeed

# `<name>.ask` holds the path that the segment is to lie at, `<name>.code` the answer.
_ASK: Final = (
    'echo "$PWD/%p" > {box}/%f.new; mv {box}/%f.new {box}/%f.ask; '
    "while [ ! -e {box}/%f.code ]; do sleep 0.02; done; code=$(cat {box}/%f.code); rm -f {box}/%f.*; exit $code"
)


class Feeder:
    """Answers one standby's requests from `feed` while the context lasts."""

    def __init__(self, feed: WalFeed, box: Path, user: RunAs) -> None:
        self._feed = feed
        self._box = box
        self._user = user
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self.given = 0

    @staticmethod
    def command(box: Path) -> str:
        """The standby's restore_command."""
        return _ASK.format(box=box)

    def __enter__(self) -> Self:
        self._box.mkdir(exist_ok=True)
        give(self._box, self._user)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more; again is harmless."""
        self._over.set()
        self._thread.join(30)

    def _answer(self) -> None:
        while not self._over.wait(0.02):
            for ask in self._box.glob("*.ask"):
                code = self._fetch(ask.stem, Path(ask.read_text().strip()))
                ask.unlink()
                ask.with_suffix(".code").write_text(str(code))

    def _fetch(self, name: str, path: Path) -> int:
        try:
            self._feed.fetch(name, path)
        except NotStoredError:
            return NOT_STORED
        except VaultError:
            return STOP
        give(path, self._user)
        self.given += 1
        return 0
