"""Who runs an engine, and where its files can lie so that this user reaches them.

Servers refuse root, so as root we run them as `nobody`; as anyone else we run them as ourselves. `nobody` can't enter
a folder below, say, root's home. Then a place under /var/tmp is used instead and the reason is told.

`python -m dr_assets.engines.placement [--remove [FOLDER]]` lists those places, or deletes those of a folder.

What belongs here: users, reachability, the places under /var/tmp and their removal. What stays out: changing the
modes of folders that aren't ours (never done), and what the files are.
"""

import hashlib
import os
import pwd
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dr_assets.estate.errors import PolicyError

SHARED = Path("/var/tmp")  # noqa: S108 - sticky, survives reboots; our folder in it is checked for owner and kind
_LABEL = "preferred"
_PASS_THROUGH = 0o711


@dataclass(frozen=True)
class RunAs:
    """The user and group an engine runs under; no supplementary groups."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Place:
    """Where something really lies: `path`, whether that differs from what was preferred, and why (empty if not)."""

    path: Path
    moved: bool
    why: str


@dataclass(frozen=True)
class Leftover:
    """A place under /var/tmp that we made; `preferred` is the path it stands in for (as text, perhaps gone)."""

    path: Path
    preferred: str


def engine_user() -> RunAs:
    """Ourselves; `nobody` when we are root."""
    if os.geteuid() != 0:
        return RunAs(os.geteuid(), os.getegid(), own_name())
    entry = pwd.getpwnam("nobody")
    return RunAs(entry.pw_uid, entry.pw_gid, entry.pw_name)


def own_name() -> str:
    """Our user's name, or its number where the system knows no name for it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def may(user: RunAs, path: Path, wanted: int) -> bool:
    """Tell by owner, group and mode (bits as in `rwx`, 7 = all) whether `user` has the `wanted` rights on `path`."""
    status = path.stat()
    if user.uid == 0:
        return True
    if status.st_uid == user.uid:
        granted = status.st_mode >> 6
    elif status.st_gid == user.gid:
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & wanted == wanted


def barred_by(user: RunAs, path: Path) -> Path | None:
    """The topmost existing folder above `path` (symbolic links followed) that `user` cannot enter, or None."""
    for folder in reversed(path.resolve().parents):
        if not folder.exists():
            return None
        if not may(user, folder, 0o1):
            return folder
    return None


def engine_home(preferred: Path, user: RunAs | None = None) -> Place:
    """Make a folder for an engine's data directories, at `preferred` if the engine's user can get there.

    The folder is ours with mode 0711, so that the user passes through to what is its own. The same `preferred`
    always gives the same place. Raises PolicyError `engine.unsafe_place` if someone else made our folder in /var/tmp.
    """
    user = user or engine_user()
    preferred = preferred.absolute()
    barred = barred_by(user, preferred / "data")
    if barred is None:
        made = not preferred.exists()
        preferred.mkdir(parents=True, exist_ok=True)
        if made and user.uid != os.geteuid():
            # mkdir obeys the umask; only a folder made just now is ours to open.
            preferred.chmod(_PASS_THROUGH)
            barred = barred_by(user, preferred / "data")
        if barred is None:
            return Place(preferred, moved=False, why="")
    path = shared_folder("home", preferred)
    return Place(path, moved=True, why=f"{user.name} cannot enter {barred}, so the engine's data lies in {path}")


def reachable_trees(trees: Iterable[Path], user: RunAs | None = None) -> tuple[Path, Place]:
    """Make `trees` (programs and what they load) readable for the engine's user, as a copy if need be.

    Returns the folder that all of them lie below, and the place of that folder: the same one if nothing was copied.
    """
    user = user or engine_user()
    trees = [tree.resolve() for tree in trees]
    base = Path(os.path.commonpath([tree.parent for tree in trees]))
    barred = next((problem for tree in trees if (problem := _unreadable(user, tree)) is not None), None)
    if barred is None:
        return base, Place(base, moved=False, why="")
    path = _copy(trees, base)
    return base, Place(
        path, moved=True, why=f"{user.name} cannot read {barred}, so a copy of the programs in {path} runs"
    )


def shared_folder(kind: str, preferred: Path) -> Path:
    """A folder of ours under /var/tmp that stands in for `preferred`: always the same, mode 0711, found by `leftovers`.

    Raises PolicyError `engine.unsafe_place` if someone else made our folder in /var/tmp.
    """
    home = _shared_root(create=True)
    assert home is not None  # noqa: S101 - for the type checker: created just now
    path = home / _unique(kind, str(preferred))
    path.mkdir(exist_ok=True)
    path.chmod(_PASS_THROUGH)
    (path / _LABEL).write_text(str(preferred))
    return path


def leftovers() -> list[Leftover]:
    """The places under /var/tmp that this user made, whoever uses them now."""
    home = _shared_root(create=False)
    if home is None:
        return []
    return [Leftover(path, _label(path)) for path in sorted(home.iterdir()) if path.is_dir() and not path.is_symlink()]


def _label(place: Path) -> str:
    """What it stands in for; nothing where none was written yet, or another process removes the place just now."""
    try:
        return (place / _LABEL).read_text()
    except FileNotFoundError:
        return ""


def remove(leftover: Leftover) -> None:
    """Delete a place of ours; the engines in it must have been stopped."""
    if leftover.path.parent != _shared_root(create=False):
        raise ValueError(f"{leftover.path} is not a place of ours")
    shutil.rmtree(leftover.path)


def remove_below(folder: Path) -> list[Leftover]:
    """Delete every place of ours that stands in for something in `folder`; then our folder in /var/tmp, if empty."""
    ours = [found for found in leftovers() if Path(found.preferred).is_relative_to(folder.absolute())]
    for leftover in ours:
        remove(leftover)
    root = _shared_root(create=False)
    if root is not None and not any(root.iterdir()):
        root.rmdir()
    return ours


def give(path: Path, user: RunAs) -> None:
    """Hand `path` and everything below it to `user`; symbolic links themselves, not what they point to."""
    if user.uid == os.geteuid():
        return
    os.chown(path, user.uid, user.gid, follow_symlinks=False)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), user.uid, user.gid, follow_symlinks=False)  # noqa: PTH118 - hot loop


def _unreadable(user: RunAs, tree: Path) -> Path | None:
    """The first thing in or above `tree` that `user` cannot enter or read, or None."""
    if (barred := barred_by(user, tree)) is not None:
        return barred
    for folder, _, files in os.walk(tree):
        if not may(user, Path(folder), 0o5):
            return Path(folder)
        for path in (Path(folder, name) for name in files):
            if path.exists() and not may(user, path, 0o4):
                return path
    return tree if tree.is_file() and not may(user, tree, 0o5) else None


def _copy(trees: list[Path], base: Path) -> Path:
    """Copy `trees` below a folder of ours, readable for all, once per source and state of it; atomic."""
    newest = max(tree.stat().st_mtime_ns for tree in trees)
    name = _unique("programs", f"{newest} {' '.join(map(str, trees))}")
    home = _shared_root(create=True)
    assert home is not None  # noqa: S101 - for the type checker: created just now
    final = home / name
    if final.exists():
        return final
    draft = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=home))
    for tree in trees:
        target = draft / tree.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        if tree.is_dir():
            shutil.copytree(tree, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))
        else:
            shutil.copy2(tree, target)
    _open_for_reading(draft)
    (draft / _LABEL).write_text(str(base))
    try:
        draft.rename(final)
    except OSError:
        # Another process of ours finished the same copy first.
        shutil.rmtree(draft)
    return final


def _open_for_reading(copy: Path) -> None:
    """Let everyone read a copy that is ours, and execute what its owner can."""
    copy.chmod(0o755)
    for folder, folders, files in os.walk(copy):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _unique(kind: str, text: str) -> str:
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _shared_root(*, create: bool) -> Path | None:
    """Our folder in /var/tmp, where anyone could have made one of that name before us: then it is refused."""
    path = SHARED / f"dr-assets-{os.geteuid()}"
    if create:
        path.mkdir(mode=_PASS_THROUGH, exist_ok=True)
    elif not path.exists():
        return None
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PolicyError(
            "engine.unsafe_place",
            f"{path} exists and is not a folder of ours",
            f"find out who made it, remove it, and try again; or keep the data where {engine_user().name} can reach it",
        )
    path.chmod(_PASS_THROUGH)
    return path


def _main(argv: list[str]) -> int:
    """List the places under /var/tmp; with `--remove [FOLDER]` delete those of FOLDER (the current one)."""
    if argv[:1] == ["--remove"]:
        found, did = remove_below(Path(*argv[1:2])), "removed"
    else:
        found, did = leftovers(), "found"
    for leftover in found:
        sys.stdout.write(f"{did} {leftover.path}, in place of {leftover.preferred or 'something unknown'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
