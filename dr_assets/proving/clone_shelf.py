"""The shelf of clones on this host: one record a clone, with the deadline after which nothing of it may be left.

What belongs here: records, whether a clone's keeper lives, taking away what is overdue. What stays out: making a clone
and holding it (clones.py).

A record lies before anything else does, and goes last, so that a clone whose keeper was killed, or whose host was
started anew, is still found and taken away. A keeper holds a lock on its record's neighbour for as long as it lives:
the kernel lets go of it however the keeper ends, and no process id is ever taken for another's.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from dr_assets.engines.placement import engine_home, shared_folder
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Level
from dr_assets.stores.postgres.site import Site, abandon
from dr_assets.vault.format.canonical import format_time, parse_time

CLONES_DIR_ENV: Final = "DR_ASSETS_CLONES_DIR"
UNKNOWN: Final = "clone.unknown"
# A keeper ends its clone by itself; one that is so late hangs, and is ended.
LATE: Final = timedelta(seconds=90)
State = Literal["starting", "ready", "failed", "ending"]
_CLONE_ID: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)
_SERVER_GONE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class CloneRecord:
    """One clone. `into` is the folder that was asked for, `home` where the files lie; neither holds anything else.

    `dsn` has no secret: who may connect is told by the operating system. `pid` is the keeper's.
    """

    clone_id: str
    dataset: str
    target: str
    by: str
    reason: str
    into: str
    home: str
    made_into: bool
    begin_at: datetime
    deadline_at: datetime
    os_users: tuple[str, ...] = ()
    level: Level = "quick"
    state: State = "starting"
    phase: str = ""
    pid: int = 0
    dsn: str = ""
    recovered_at: datetime | None = None
    why: str = ""
    phases_s: Mapping[str, float] = field(default_factory=dict)

    def encode(self) -> str:
        """JSON for the record's file."""
        said = asdict(self)
        for name in _TIMES:
            at = getattr(self, name)
            said[name] = None if at is None else format_time(at)
        return json.dumps(said, indent=1) + "\n"

    @classmethod
    def decode(cls, text: str) -> "CloneRecord":
        """What `encode` wrote; raises ValueError, KeyError or TypeError for anything else."""
        said: dict[str, Any] = json.loads(text)
        for name in _TIMES:
            said[name] = None if said[name] is None else parse_time(said[name], name)
        return cls(**{**said, "os_users": tuple(said["os_users"])})


_TIMES: Final = ("begin_at", "deadline_at", "recovered_at")


class CloneShelf:
    """The folder with the records of this host's clones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "CloneShelf":
        """DR_ASSETS_CLONES_DIR, or a folder below /var/tmp that outlives a restart of the host."""
        asked = env.get(CLONES_DIR_ENV)
        if not asked:
            return cls(shared_folder("clones", Path("/clones")))
        folder = Path(asked).absolute()
        if not folder.is_dir():
            folder.mkdir(parents=True)
            folder.chmod(0o711)
        return cls(folder)

    def path(self, clone_id: str) -> Path:
        """The record's file; raises PolicyError `clone.unknown` for what is no clone's id."""
        if _CLONE_ID.fullmatch(clone_id) is None:
            raise _unknown(clone_id)
        return self.folder / f"{clone_id}.json"

    def log_path(self, clone_id: str) -> Path:
        """What its keeper said."""
        return self.path(clone_id).with_suffix(".log")

    def write(self, record: CloneRecord) -> None:
        """Replace the record in one step; only this user reads it."""
        path = self.path(record.clone_id)
        draft = path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(record.encode())
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)

    def read(self, clone_id: str) -> CloneRecord:
        """One record; raises PolicyError `clone.unknown`, `clone.unreadable`."""
        try:
            return CloneRecord.decode(self.path(clone_id).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise _unknown(clone_id) from None
        except (ValueError, KeyError, TypeError) as error:
            path = self.path(clone_id)
            raise PolicyError(
                "clone.unreadable",
                f"the record of clone {clone_id} can't be read ({type(error).__name__}): {path}",
                "nothing takes that clone away by itself: remove the folder that the record names as `home`, then it",
            ) from None

    def records(self) -> list[CloneRecord]:
        """All of them, oldest first. Raises PolicyError `clone.unreadable`."""
        found = []
        for path in self.folder.glob("*.json"):
            if _CLONE_ID.fullmatch(path.stem):
                try:
                    found.append(self.read(path.stem))
                except PolicyError as error:
                    if error.code != UNKNOWN:  # taken away meanwhile
                        raise
        return sorted(found, key=lambda record: record.begin_at)

    @contextmanager
    def kept(self, clone_id: str) -> Iterator[bool]:
        """Hold the clone's lock; False where somebody else does, its keeper."""
        descriptor = os.open(self.path(clone_id).with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def has_keeper(self, clone_id: str) -> bool:
        """Whether a process holds this clone up."""
        with self.kept(clone_id) as ours:
            return not ours

    def ask_to_end(self, clone_id: str) -> None:
        """Tell the keeper to end; it looks twice a second."""
        self.path(clone_id).with_suffix(".drop").touch()

    def is_asked_to_end(self, clone_id: str) -> bool:
        """Whether somebody dropped it."""
        return self.path(clone_id).with_suffix(".drop").exists()

    def take_away(self, clone_id: str) -> bool:
        """Remove a clone that nobody keeps: its files, then its record. False while its keeper lives."""
        with self.kept(clone_id) as ours:
            if not ours:
                return False
            record = self.read(clone_id)
            wait_server_gone(Path(record.home) / "data")
            remove_files(record)
            self.forget(clone_id)
            return True

    def forget(self, clone_id: str) -> None:
        """Remove what the shelf holds of a clone whose files are gone; the record last."""
        path = self.path(clone_id)
        for suffix in (".drop", ".log", ".draft", ".lock", ".json"):
            path.with_suffix(suffix).unlink(missing_ok=True)

    def sweep(self, now: datetime) -> list[CloneRecord]:
        """Take away every clone whose deadline is over, whoever made it; those that were.

        A keeper ends its own clone at the deadline. One that is late by more than `LATE` is killed: the guard of its
        server then ends that, too.
        """
        gone = []
        for record in self.records():
            if now < record.deadline_at:
                continue
            if self.has_keeper(record.clone_id):
                if now < record.deadline_at + LATE or not record.pid:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)
                _wait(lambda clone_id=record.clone_id: not self.has_keeper(clone_id))
            with contextlib.suppress(PolicyError):  # somebody else swept it at the same time
                if self.take_away(record.clone_id):
                    gone.append(record)
        return gone


def new_record(record: CloneRecord) -> CloneRecord:
    """The same with the place where the server's user can really enter; makes that place."""
    into = Path(record.into).absolute()
    made = not into.exists()
    place = engine_home(into)
    return replace(record, into=str(into), home=str(place.path), made_into=made)


def remove_files(record: CloneRecord) -> None:
    """Remove all that was laid for a clone, and its folders where they are ours and empty now."""
    into, home = Path(record.into), Path(record.home)
    for folder in {into, home}:
        if folder.is_dir():
            abandon(Site(folder, folder, "", made=False))
    if home != into:
        shutil.rmtree(home, ignore_errors=True)
    if record.made_into:
        with contextlib.suppress(OSError):  # somebody put something of their own there
            into.rmdir()


def wait_server_gone(data_dir: Path) -> None:
    """Wait: a guard may still be ending the server of a process of ours that was killed."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return
    comm = Path(f"/proc/{pid}/comm")

    def gone() -> bool:
        try:
            return comm.read_text().strip() != "postgres"
        except OSError:
            return True

    _wait(gone)


def _wait(done: Any) -> None:
    deadline_s = time.monotonic() + _SERVER_GONE_S
    while not done() and time.monotonic() < deadline_s:
        time.sleep(0.1)


def _unknown(clone_id: str) -> PolicyError:
    return PolicyError(
        UNKNOWN,
        f"there is no clone {clone_id[:40]!r} on this host",
        "`dr-assets clone list` shows those there are",
    )
