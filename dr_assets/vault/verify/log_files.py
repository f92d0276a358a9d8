"""The log's own files, judged beside the objects that it speaks of.

What belongs here: one name below `{estate}/log/`: is it what the newest checkpoint leads to, and is it locked. What
stays out: what the log vouches for, and what outsiders say of its checkpoints (log/offline.py).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import LOG, is_log_folder
from dr_assets.vault.log.batch import BATCH_LIMIT_BYTES, parse_batch
from dr_assets.vault.log.checkpoint import Checkpoint, origin_of, verify_checkpoint
from dr_assets.vault.log.merkle import HASH_BYTES, leaf_hash
from dr_assets.vault.log.names import (
    BATCH,
    CHECKPOINT,
    OUTSIDE,
    base_of,
    checkpoint_name,
    is_log_name,
    log_prefix,
    size_of,
)
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.shelf import Proof
from dr_assets.vault.log.tiles import HEIGHT, WIDTH, Tile, decode_bundle, holder_of
from dr_assets.vault.log.trust import require_continues
from dr_assets.vault.retention.judged import LOCK_TOLERANCE
from dr_assets.vault.storage import STORE_AWAY, Version
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify.report import Finding

_OURS: Final = "ours"
_TOO_WEAK: Final = ("GOVERNANCE", "COMPLIANCE")


@dataclass(frozen=True)
class LogFilesJudge:
    """Judges names of one vault's log by its newest checkpoint; threads may share it."""

    vault: Vault
    now: datetime

    @cached_property
    def _reader(self) -> LogReader | None:
        return LogReader.open(self.vault)

    def checkpoints(self) -> list[Checkpoint]:
        """The newest checkpoint: what a witness remembers."""
        return [] if self._reader is None else [self._reader.checkpoint]

    def against(self, known: Iterable[Checkpoint]) -> Iterator[Finding]:
        """What contradicts checkpoints of this estate that are known from elsewhere."""
        for checkpoint in known:
            if checkpoint.origin.startswith(origin_of(self.vault.estate, "")):
                try:
                    require_continues(self.vault, checkpoint)
                except VaultError as error:
                    if error.code in STORE_AWAY:
                        raise
                    kind = "forked_log" if error.code == "log.forked" else "missing"
                    name = checkpoint_name(self.vault.estate, checkpoint.size)
                    yield Finding(kind, name, None, f"was witnessed: {error.found}")

    def judge(self, name: Name) -> tuple[Finding, ...] | None:
        """What there is to say of a name; None if it is no name of a log of this estate.

        Raises VaultError only when the store can't be read.
        """
        if not is_log_folder(name.text) or not is_log_name(name.text):
            return None
        if not name.versions:
            return (Finding("missing", name.text, None, "only delete markers are left of it"),)
        return tuple(self._findings(name))

    def own(self, text: str, versions: Iterable[Version]) -> Version | None:
        """The oldest of a name's versions that is the log's; None if none is, or none can be told to be it yet.

        Raises VaultError only when the store can't be read.
        """
        return next((version for version in versions if self._verdict(text, version) is None), None)

    def _findings(self, name: Name) -> Iterator[Finding]:
        verdicts: list[tuple[Version, Finding | None]] = []
        for version in name.versions:
            verdict = self._verdict(name.text, version)
            verdicts.append((version, verdict))
            if verdict is None or verdict.kind == "unfinished":
                break
        chosen, verdict = verdicts[-1] if verdicts[-1][1] is None else verdicts[0]
        if verdict is not None:
            yield verdict
            return
        for row in name.versions:
            if row is not chosen:
                yield Finding("overlay", name.text, row.version_id, f"a version of {row.size_bytes} bytes, ignored")
        for row in name.markers:
            yield Finding("delete_marker", name.text, row.version_id, "hides it from a plain reader, ignored")
        yield from self._lock(name.text, chosen)

    def _verdict(self, text: str, version: Version) -> Finding | None:
        """None for bytes that are the log's."""
        try:
            blob = self.vault.store.get(text, version.version_id, limit_bytes=2 * BATCH_LIMIT_BYTES)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            return Finding("foreign", text, version.version_id, f"not the log's: {error.found}")
        try:
            kind, detail = self._say(text, blob.data)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            # Where other files are damaged nothing can be said of this one: they are named by themselves.
            kind, detail = _OURS if error.code == "log.damaged" else "foreign", f"not the log's: {error.found}"
        if blob.head.sha256 not in {None, hashlib.sha256(blob.data).hexdigest()}:
            return Finding("flipped", text, version.version_id, "the bytes are not those that the store took")
        return None if kind == _OURS else Finding(kind, text, version.version_id, detail)

    def _say(self, text: str, data: bytes) -> tuple[str, str]:
        """`ours`, or a kind of finding with its detail. Raises VaultError for what is no file of a log at all."""
        rest = text.removeprefix(log_prefix(self.vault.estate))
        folder, _, tail = rest.partition("/")
        if folder == CHECKPOINT:
            return self._checkpoint(size_of(tail) or 0, data)
        if folder == BATCH:
            return self._batch(base_of(tail) or 0, data)
        if folder in OUTSIDE:  # what it proves, whoever believes outsiders judges; by its name it is what was put
            return (_OURS, "") if Proof.of(rest, data) else ("foreign", "its bytes are not those of its name")
        tile = Tile.parse(rest)
        return (_OURS, "") if tile is None else self._tile(tile, data)

    def _checkpoint(self, size: int, data: bytes) -> tuple[str, str]:
        signed, reader = verify_checkpoint(data, self.vault.trust).checkpoint, self._reader
        if signed.size != size or reader is None:
            return "foreign", "a checkpoint of another size"
        if signed.origin != reader.checkpoint.origin:
            return "foreign", f"a checkpoint of another log, {signed.origin}"
        if size <= reader.checkpoint.size and reader.root_at(size) != signed.root:
            return "forked_log", f"signed, but the tree of {reader.checkpoint.size} leaves does not begin with it"
        return _OURS, ""

    def _batch(self, base: int, data: bytes) -> tuple[str, str]:
        batch, reader = parse_batch(data, self.vault.trust), self._reader
        if batch.base != base or (reader is not None and batch.origin != reader.checkpoint.origin):
            return "foreign", "a batch that belongs elsewhere"
        if reader is None or batch.size > reader.checkpoint.size:
            return "unfinished", "decided on, and its checkpoint is not there yet: the sequencer goes on with it"
        if list(map(leaf_hash, batch.leaves)) != reader.leaf_hashes(base, batch.size):
            return "foreign", "signed, and never appended: another batch was decided on first"
        return _OURS, ""

    def _tile(self, tile: Tile, data: bytes) -> tuple[str, str]:
        reader, level = self._reader, max(tile.level, 0)
        size = 0 if reader is None else reader.checkpoint.size
        if reader is None or tile.index * WIDTH + tile.width > size >> (HEIGHT * level):
            return "unfinished", "beyond the newest checkpoint: the sequencer goes on with it"
        hashes = list(reader.hashes(holder_of(level, tile.index * WIDTH, size)))[: tile.width]
        found = _entry_hashes(data, tile) if tile.level < 0 else _split(data)
        if found == hashes:
            return _OURS, ""
        in_tree = tile == holder_of(tile.level, tile.index * WIDTH, size)
        return ("flipped" if in_tree else "foreign"), "not what the newest checkpoint leads to"

    def _lock(self, text: str, version: Version) -> Iterator[Finding]:
        head = self.vault.store.head(text, version.version_id)
        rule = self.vault.locks.lock(LOG, "log", version.modified_at)
        held = None if head is None else head.lock
        if held is None:
            yield Finding("unlocked", text, version.version_id, "has no retention lock")
        elif held.retain_until + LOCK_TOLERANCE < rule.retain_until or (held.mode, rule.mode) == _TOO_WEAK:
            detail = f"{held.mode} until {held.retain_until:%Y-%m-%d %H:%M}Z, its rule says {rule.mode} until"
            yield Finding("unlocked", text, version.version_id, f"{detail} {rule.retain_until:%Y-%m-%d %H:%M}Z")
        elif held.retain_until <= self.now:
            yield Finding("lock_expired", text, version.version_id, f"its lock ended {held.retain_until:%Y-%m-%d}")


def _entry_hashes(data: bytes, tile: Tile) -> list[bytes]:
    return list(map(leaf_hash, decode_bundle(data, tile.width)))


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
