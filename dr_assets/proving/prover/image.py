"""A copy of a running standby's data directory, from which a server of its own goes on.

What belongs here: which files, in which order, shared with the original where the file system can. What stays out:
servers, when it is taken (deep.py).

Between two restartpoints a standby's directory is what a crash would leave at any moment, while it replays as well: a
page that is copied half old and half new is made whole by the WAL from the restartpoint on, as after a power cut, for
the source writes whole pages into it. So nothing waits for the copy. The control file comes after all pages, for it
says how far they may be; WAL comes after that. A restartpoint meanwhile would take that WAL's begin away: the caller
holds them off.
"""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from dr_assets.engines.placement import engine_user, give
from dr_assets.proving.prover.sandbox import Sandbox
from dr_assets.stores.postgres.lay import TABLESPACES
from dr_assets.stores.postgres.site import Site
from dr_assets.stores.postgres.wal import segment_begin, segment_name

_CONTROL: Final = "global/pg_control"
# What a server makes anew at its start: a base backup leaves it out as well.
_EMPTIED: Final = frozenset(
    {"pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"}
)
_LEFT_OUT: Final = frozenset({"postmaster.pid", "postmaster.opts"})
_FICLONE: Final = 0x40049409


def take_image(sandbox: Sandbox, into: Site) -> int:
    """Copy a sandbox's data directory and tablespaces to `into`; returns the end of the WAL that the copy holds.

    The sandbox goes on replaying. The copy's server has to replay to that end before it means anything.
    """
    home = into.data_dir
    with sandbox.restartpoints:
        _copy_tree(sandbox.site.data_dir, home)
        for folder in sandbox.site.tablespaces():
            _copy_tree(folder, into.tablespace(int(folder.name)))
        for folder in into.tablespaces():
            link = home / TABLESPACES / folder.name
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
        _copy_file(sandbox.site.data_dir / _CONTROL, home / _CONTROL)
        # Pages and the control file are from before this, so nothing in them is from behind it.
        end = sandbox.end_lsn
        _copy_wal(sandbox, into, end)
    (home / "standby.signal").touch()
    user = engine_user()
    for folder in (home, *into.tablespaces()):
        give(folder, user)
    return end


def size_of(*folders: Path) -> int:
    """What folders take on their disks. Files that go away meanwhile count as nothing."""
    total = 0
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH118 - hot loop
                except FileNotFoundError:
                    continue
    return total


def _copy_tree(source: Path, target: Path) -> None:
    """Folders and files; a relation that is dropped meanwhile is dropped in the copy's WAL, too."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, folders, names in os.walk(source):
        here = target / Path(path).relative_to(source)
        here.mkdir(mode=0o700, exist_ok=True)
        if Path(path) == source:
            names = [name for name in names if name not in _LEFT_OUT]  # noqa: PLW2901 - what is left of it
        if Path(path).parent == source and Path(path).name in _EMPTIED:
            folders.clear()
            continue
        for name in names:
            inner = Path(path, name)
            if inner.relative_to(source).as_posix() != _CONTROL:
                _copy_file(inner, here / name)


def _copy_wal(sandbox: Sandbox, into: Site, end: int) -> None:
    """Every file that the server has left of its WAL; the one that `end` lies in is cut there, and none follow it."""
    wal, segment_bytes = sandbox.site.pg_wal, sandbox.plan.base.segment_bytes
    target = into.pg_wal
    for folder in ("archive_status", "summaries"):
        (target / folder).mkdir(mode=0o700, exist_ok=True)
    last = segment_name(0, segment_begin(end, segment_bytes), segment_bytes)[8:]
    for path in sorted(wal.iterdir()):
        if path.suffix == ".history":
            _copy_file(path, target / path.name)
        elif len(path.name) == len(last) + 8 and path.name[8:] <= last:
            _copy_file(path, target / path.name)
            if path.name[8:] == last:
                _cut(target / path.name, end % segment_bytes, segment_bytes)


def _cut(path: Path, length: int, segment_bytes: int) -> None:
    os.truncate(path, length)
    os.truncate(path, segment_bytes)


def _copy_file(source: Path, target: Path) -> None:
    """One file; its blocks are shared where the file system can."""
    try:
        with source.open("rb") as old, target.open("wb") as new:
            try:
                fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            except OSError:
                shutil.copyfileobj(old, new, 1 << 20)
    except FileNotFoundError:
        return
    target.chmod(0o600)
