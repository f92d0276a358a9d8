"""An export: the log as a folder of files, for anybody to serve or to check without the vault.

What belongs here: which files, their order, going on where an export was stopped. What stays out: checking a copy.

The folder is a C2SP tlog-tiles log: `checkpoint`, `tile/…`. Beside it lie all checkpoints (`checkpoints/{size:020d}`),
the batches with the names behind leaves (`batch/…`), and what outsiders said, named as in the vault.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.names import BATCH, OUTSIDE, log_prefix
from dr_assets.vault.log.reader import LogReader, read_checkpoint
from dr_assets.vault.log.shelf import Proof
from dr_assets.vault.log.tiles import HEIGHT, WIDTH, Tile, encode_bundle, holder_of
from dr_assets.vault.storage.versions import scan

CHECKPOINTS: Final = "checkpoints"
OUTSIDE_LIMIT_BYTES: Final = 1 << 20
DRAFT: Final = ".draft-"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to; `files` were written now, `kept` were there already."""

    size: int
    files: int
    kept: int


def export_log(reader: LogReader, folder: Path) -> Exported:
    """Write the log of the reader's checkpoint to `folder`, or bring an earlier export up to it.

    `checkpoint` comes last, so that whatever it speaks of is there. Raises VaultError `log.damaged`, `log.other_copy`
    when the folder holds another log, and what the store raises; OSError from the disk.
    """
    files = kept = 0
    _remove_drafts(folder)
    for name, data in _files(reader, folder):
        target = folder / name
        if target.exists():
            if target.stat().st_size == len(data) and target.read_bytes() == data:
                kept += 1
                continue
            raise VaultError(
                "log.other_copy", f"{target} holds something else than this log's {name}", "export to another folder"
            )
        _write(target, data)
        files += 1
    _write(folder / "checkpoint", reader.note)
    return Exported(reader.checkpoint.size, files + 1, kept)


def _remove_drafts(folder: Path) -> None:
    """What a run that was killed left behind: whoever checks the copy would call it damage."""
    own = [folder / name for name in ("tile", CHECKPOINTS, BATCH, *OUTSIDE)]
    for draft in [*folder.glob(f"{DRAFT}*"), *(draft for place in own for draft in place.rglob(f"{DRAFT}*"))]:
        draft.unlink()


def _files(reader: LogReader, folder: Path) -> Iterator[tuple[str, bytes]]:
    yield from _tiles(reader, folder)
    for batch in reader.batches():
        name, data = reader.batch_file(batch.base)
        yield name.removeprefix(log_prefix(reader.vault.estate)), data
        signed = read_checkpoint(reader.files, batch.size, batch.origin)
        if signed is not None:
            yield f"{CHECKPOINTS}/{batch.size:020d}", signed.note
    yield from _outside(reader)


def _tiles(reader: LogReader, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Hash tiles and bundles of the newest tree; full ones that an earlier export left are not fetched again."""
    size, level = reader.checkpoint.size, 0
    while size >> (HEIGHT * level):
        count = size >> (HEIGHT * level)
        for index in range(-(-count // WIDTH)):
            tile = holder_of(level, index * WIDTH, size)
            yield tile.path, b"".join(reader.hashes(tile))
            bundle = Tile(-1, index, tile.width)
            if level == 0 and not (tile.width == WIDTH and (folder / bundle.path).exists()):
                yield bundle.path, encode_bundle(reader.bundle(index))
        level += 1


def _outside(reader: LogReader) -> Iterator[tuple[str, bytes]]:
    """What outsiders said, as it lies there; bytes that are not those the name was made for are left behind."""
    vault, prefix = reader.vault, log_prefix(reader.vault.estate)
    for kind in OUTSIDE:
        for name in scan(vault.store, f"{prefix}{kind}/", as_of=reader.files.as_of):
            path = name.text.removeprefix(prefix)
            for data in reader.files.versions(name.text, limit_bytes=OUTSIDE_LIMIT_BYTES):
                if Proof.of(path, data) is not None:
                    yield path, data
                    break


def _write(target: Path, data: bytes) -> None:
    """In one step: a file is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=DRAFT)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(draft).chmod(0o644)
    Path(draft).replace(target)
