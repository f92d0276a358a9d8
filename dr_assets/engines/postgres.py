"""A throwaway Postgres server: made anew with `init`, or around a restored data directory with `adopt`.

What belongs here: one server's life (configure, start, ready, stop, crash, restart) and running its own tools.
What stays out: what is in the database, replication, recovery settings (the caller gives those).

The configuration lies beside the data directory, never in it, and the server is told so: a restored directory brings
its source's settings, among them commands to execute, and none of them may run here.
"""

import ctypes
import os
import re
import secrets
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from dr_assets.engines.errors import EngineError
from dr_assets.engines.placement import engine_home, engine_user, give, own_name, shared_folder
from dr_assets.engines.ports import LOOPBACK, free_port, is_free, start_on_free_ports
from dr_assets.engines.programs import Programs
from dr_assets.engines.supervise import Child, run_child, start_child, tail
from dr_assets.engines.waiting import START_TIMEOUT_S, STOP_TIMEOUT_S, wait_until
from dr_assets.estate.errors import PolicyError

Setting = str | int | float | bool
StopMode = Literal["smart", "fast", "immediate"]

SUPERUSER = "postgres"
_STOP_SIGNALS: dict[StopMode, int] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_DEFAULTS: dict[str, Setting] = {
    "wal_level": "replica",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "max_connections": 100,
    "shared_buffers": "64MB",
    # In the data directory instead of /dev/shm, where a crash would leave segments behind for good.
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": False,
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
# What a standby must not have less of than its source, by pg_controldata's labels.
_AT_LEAST = ("max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_xacts", "max_locks_per_xact")
_SETTING_OF = {"max_prepared_xacts": "max_prepared_transactions", "max_locks_per_xact": "max_locks_per_transaction"}
_STATUS_LINE = 7  # of postmaster.pid, written once the sockets are bound: starting, ready, standby or stopping
_SHARED_MEMORY_LINE = 6  # of postmaster.pid: key and id
_IPC_RMID = 0
_SOCKET_DIR_LIMIT_BYTES = 107 - len("/.s.PGSQL.5432.lock")  # what Linux takes as a socket's path, less the name


class PostgresServer:
    """One server on one data directory, on loopback only; leaving the context stops it.

    After `init` it listens on a TCP port with a generated password (scram-sha-256). After `adopt` it listens on a
    Unix socket only and knows its callers by their operating-system user, because a restored directory's passwords
    are its source's. `notes` tells whatever people should know (files that had to be placed elsewhere).

    `settings` are configuration parameters by name. `data_dir` may come out elsewhere than asked for (see
    placement); read it back.
    """

    def __init__(
        self,
        data_dir: Path,
        programs: Programs,
        *,
        port: int | None = None,
        settings: Mapping[str, Setting] | None = None,
        name: str = "",
        password: str | None = None,
    ) -> None:
        self.user = engine_user()
        place = engine_home(data_dir.parent, self.user)
        self.data_dir = place.path / data_dir.name
        self.run_dir = place.path / f"{data_dir.name}.run"
        self.programs = programs.reachable(self.user)
        self.notes = [note for note in (place.why, self.programs.note) if note]
        self.name = name or data_dir.name
        self.settings: dict[str, Setting] = {**_DEFAULTS, **(settings or {})}
        self.password = password
        self.log_path = self.run_dir / "postgres.log"
        self.child: Child | None = None
        self._superuser = SUPERUSER
        self._roles: tuple[str, ...] = (SUPERUSER,)
        self._socket = ""
        self._port_given = port is not None
        self.port = port or free_port()

    # -- making a data directory ------------------------------------------------------------------------------------

    def init(self) -> None:
        """Make an empty cluster with data checksums and a generated superuser password."""
        self.password = self.password or secrets.token_urlsafe(24)
        self._make_run_dir()
        secret = self.run_dir / "initial-password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        give(secret, self.user)
        self.data_dir.mkdir(mode=0o700)
        give(self.data_dir, self.user)
        try:
            self.run_tool(
                "initdb",
                [
                    *(f"--pgdata={self.data_dir}", f"--username={SUPERUSER}", f"--pwfile={secret}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"),
                    *("--no-sync", "--no-instructions"),
                ],
            )
        finally:
            secret.unlink()

    def adopt(self, superuser: str = SUPERUSER, tablespaces: Iterable[Path] = (), *, roles: Iterable[str] = ()) -> None:
        """Take over an existing data directory, as restored: owner, mode, and none of its source's configuration.

        Who may log in as `superuser` may as one of `roles`, too, once there is such a role.

        Its `postgresql.auto.conf`, which Postgres would read whatever we say, is set aside in the run directory and
        left empty. Limits that a standby must not lower are taken from its control file. Raises PolicyError
        `engine.not_a_data_directory` or `engine.wrong_major`.
        """
        version_file = self.data_dir / "PG_VERSION"
        if not version_file.is_file():
            raise PolicyError(
                "engine.not_a_data_directory",
                f"{self.data_dir} holds no PG_VERSION",
                "restore into the folder that dr_assets.engines.placement.engine_home gives",
            )
        found = version_file.read_text().strip()
        if found != str(self.programs.major):
            raise PolicyError(
                "engine.wrong_major",
                f"{self.data_dir} is of PostgreSQL {found}, the programs are {self.programs.describe()}",
                f"find programs of major version {found}",
            )
        self._make_run_dir()
        automatic = self.data_dir / "postgresql.auto.conf"
        if automatic.exists():
            shutil.copyfile(automatic, self.run_dir / "postgresql.auto.conf.source")
            os.truncate(automatic, 0)
        self.data_dir.chmod(0o700)
        for folder in (self.data_dir, *tablespaces):
            give(folder, self.user)
        self.password = None
        self._superuser = superuser
        self._roles = (superuser, *roles)
        self._socket = str(self._make_socket_dir())
        self.port = 5432  # part of the socket's name only: nothing listens on TCP
        self._raise_limits()

    @classmethod
    def standby_of(
        cls,
        primary: "PostgresServer",
        data_dir: Path,
        *,
        settings: Mapping[str, Setting] | None = None,
        slot: str | None = None,
        name: str = "",
    ) -> Self:
        """A new server in `data_dir`, copied from the running `primary`; once started it streams from there.

        With `slot` it streams from a physical slot of that name, which is created. `settings` replace single ones of
        the primary's. Raises EngineError `engine.tool_failed`.
        """
        merged = {**primary.settings, **(settings or {})}
        self = cls(data_dir, primary.programs, settings=merged, name=name, password=primary.password)
        self.data_dir.mkdir(mode=0o700)
        give(self.data_dir, self.user)
        kept = ["--create-slot", f"--slot={slot}"] if slot else []
        primary.run_tool(
            "pg_basebackup",
            [f"--pgdata={self.data_dir}", "--checkpoint=fast", "--no-sync", "--wal-method=stream", *kept],
        )
        self.follow(primary, slot=slot)
        return self

    def follow(self, primary: "PostgresServer", *, slot: str | None = None) -> None:
        """Be a standby of `primary` from the next start on, also after having been a primary.

        A slot must exist there. What this server has written beyond the place where `primary` left its timeline keeps
        it from streaming, as with any Postgres.
        """
        self._make_run_dir()
        passwords = self.run_dir / "primary.pgpass"
        passwords.touch(mode=0o600)
        escaped = re.sub(r"([:\\])", r"\\\1", primary.password or "")
        passwords.write_text(f"*:*:*:*:{escaped}\n")
        give(passwords, self.user)
        found = primary._tool_environment()  # noqa: SLF001 - another one of us
        self.settings["primary_conninfo"] = (
            f"host={found['PGHOST']} port={found['PGPORT']} user={found['PGUSER']} passfile={passwords} "
            f"application_name={self.name}"
        )
        self.settings["primary_slot_name"] = slot or ""
        signal_file = self.data_dir / "standby.signal"
        signal_file.touch(mode=0o600)
        give(signal_file, self.user)

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the server and, unless `wait` is False, wait until it accepts connections.

        A port that another process took meanwhile is picked anew, until a first start has fixed it. Raises
        EngineError `engine.did_not_start` with the tail of the log.
        """
        assert not self.running, f"{self.name} runs already"  # noqa: S101 - a bug of ours if it fails

        def start() -> None:
            self._launch()
            self.wait_bound(timeout_s) if not wait else self.wait_ready(timeout_s)

        begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        start_on_free_ports(start, lambda: self._halt("immediate"), lambda: self._moved(begin))
        self._port_given = True

    def wait_bound(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the server has its port or socket; it may still recover and refuse everyone."""
        self._wait(bool, timeout_s)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the server accepts connections (a standby: read-only ones)."""
        self._wait(lambda status: status == "ready", timeout_s)

    def stop(self, mode: StopMode = "fast", *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop the server as `pg_ctl stop -m` would; after `timeout_s` seconds everything is killed."""
        if self.child is None:
            return
        self._halt(mode, timeout_s)

    def kill(self) -> None:
        """Crash the server: SIGKILL for the postmaster and all its children in one instant. `start` works after it."""
        if self.child is not None:
            self.child.kill()
            self.child = None
            self._release_shared_memory()

    def promote(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Make a standby the primary, on a new timeline; returns once it accepts writes.

        Raises EngineError `engine.tool_failed`.
        """
        self.run_tool("pg_ctl", ["promote", f"--pgdata={self.data_dir}", "--wait", f"--timeout={timeout_s:.0f}"])

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop, then start on the same port."""
        self.stop(mode)
        self.start()

    @property
    def running(self) -> bool:
        """Whether the server's process tree lives."""
        return self.child is not None and self.child.alive

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self.child is not None, "the server was not started"  # noqa: S101 - a bug of ours if it fails
        return self.child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")

    # -- talking to it ----------------------------------------------------------------------------------------------

    def dsn(self, dbname: str = "postgres", user: str | None = None) -> str:
        """A connection URI, with the password where there is one: keep it out of logs and command lines."""
        user = user or self._superuser
        database = urllib.parse.quote(dbname, safe="")
        if self._socket:
            query = urllib.parse.urlencode({"host": self._socket, "port": self.port, "user": user})
            return f"postgresql:///{database}?{query}"
        secret = urllib.parse.quote(self.password or "", safe="")
        return f"postgresql://{urllib.parse.quote(user, safe='')}:{secret}@{LOOPBACK}:{self.port}/{database}"

    def run_tool(
        self, name: str, args: Sequence[str | Path] = (), *, check: bool = True, timeout_s: float = 3600.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of Postgres's own programs as the engine's user, with the connection given by environment.

        Raises EngineError `engine.tool_failed` unless it returns 0 or `check` is False.
        """
        result = run_child(
            [self.programs.path(name), *args], env=self._tool_environment(), user=self.user, timeout_s=timeout_s
        )
        if check and result.returncode != 0:
            raise EngineError(
                "engine.tool_failed",
                f"{name} returned {result.returncode}: {(result.stderr or result.stdout).strip()[-2000:]}",
                f"the data directory is {self.data_dir}, the programs are {self.programs.describe()}",
            )
        return result

    def pg_controldata(self) -> dict[str, str]:
        """The control file as pg_controldata prints it, value by label."""
        printed = self.run_tool("pg_controldata", ["-D", self.data_dir]).stdout
        pairs = (line.partition(":") for line in printed.splitlines() if ":" in line)
        return {label.strip(): value.strip() for label, _, value in pairs}

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the server's log."""
        return tail(self.log_path, lines)

    # -- within -----------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        self._write_configuration()
        self.child = start_child(
            [self.programs.path("postgres"), "-D", self.data_dir, "-c", f"config_file={self._config_path}"],
            env=_environment(),
            log_path=self.log_path,
            user=self.user,
            stop_signal=signal.SIGINT,
        )

    def _halt(self, mode: StopMode, timeout_s: float = STOP_TIMEOUT_S) -> None:
        if self.child is not None:
            self.child.stop(_STOP_SIGNALS[mode], timeout_s)
            self.child = None

    def _release_shared_memory(self) -> None:
        """Remove the System V segment by which a postmaster notices another: a crash leaves it, and they are limited.

        The server's pid file names it; a server that starts again takes a missing one for a finished one.
        """
        lines = self._pid_file()
        if len(lines) > _SHARED_MEMORY_LINE:
            segment = int(lines[_SHARED_MEMORY_LINE].split()[1])
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)

    def _pid_file(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _wait(self, wanted: Callable[[str], bool], timeout_s: float) -> None:
        child = self.child
        assert child is not None, "the server was not started"  # noqa: S101 - a bug of ours if it fails
        try:
            wait_until(
                lambda: not child.alive or wanted(self._status(child.pid)),
                timeout_s=timeout_s,
                what=f"{self.name} accepting connections",
            )
        except EngineError as error:
            raise self._did_not_start(error.found) from None
        if not child.alive:
            raise self._did_not_start(f"{self.name} ended with return code {child.poll()}")

    def _status(self, pid: int) -> str:
        """What this very postmaster says of itself; empty before it has its port.

        Asking over the port would not do: another server may have taken it and answer.
        """
        lines = self._pid_file()
        complete = len(lines) > _STATUS_LINE and lines[0] == str(pid)
        return lines[_STATUS_LINE].strip() if complete else ""

    def _did_not_start(self, found: str) -> EngineError:
        return EngineError(
            "engine.did_not_start", f"{found}; its log ends:\n{self.log_tail()}", f"the whole log is {self.log_path}"
        )

    def _moved(self, begin: int) -> bool:
        """Take another port if another process has ours; never once a first start has fixed it."""
        if self._port_given or self._socket:
            return False
        with self.log_path.open("rb") as log:
            log.seek(begin)
            if b"could not bind" not in log.read() or is_free(self.port):
                return False
        self.port = free_port()
        return True

    @property
    def _config_path(self) -> Path:
        return self.run_dir / "postgresql.conf"

    def _make_run_dir(self) -> None:
        self.run_dir.mkdir(mode=0o711, exist_ok=True)
        self.run_dir.chmod(0o711)

    def _make_socket_dir(self) -> Path:
        """A folder for the socket, in the run directory unless the path were too long for a socket's name."""
        folder = self.run_dir / "socket"
        if len(os.fsencode(folder)) > _SOCKET_DIR_LIMIT_BYTES:
            folder = shared_folder("socket", self.run_dir)
        folder.mkdir(exist_ok=True)
        give(folder, self.user)
        folder.chmod(0o711)
        return folder

    def _write_configuration(self) -> None:
        self._make_run_dir()
        ours: dict[str, Setting] = {
            "hba_file": str(self.run_dir / "pg_hba.conf"),
            "ident_file": str(self.run_dir / "pg_ident.conf"),
            "listen_addresses": "" if self._socket else LOOPBACK,
            "unix_socket_directories": self._socket,
            "port": self.port,
            "cluster_name": self.name,
        }
        settings = {**self.settings, **ours}
        self._publish("postgresql.conf", "".join(f"{key} = {quoted(value)}\n" for key, value in settings.items()))
        self._publish("pg_hba.conf", _PEER_RULES if self._socket else _PASSWORD_RULES)
        callers = sorted({self.user.name, own_name()})
        pairs = [(who, role) for who in callers for role in self._roles]
        self._publish("pg_ident.conf", "".join(f'ours "{who}" "{role}"\n' for who, role in pairs))

    def _publish(self, name: str, text: str) -> None:
        """Write a file that the engine's user reads; none of them holds a secret."""
        path = self.run_dir / name
        path.write_text(text)
        path.chmod(0o644)

    def _raise_limits(self) -> None:
        control = self.pg_controldata()
        for label in _AT_LEAST:
            name = _SETTING_OF.get(label, label)
            wanted, own = int(control[f"{label} setting"]), self.settings.get(name)
            self.settings[name] = max(wanted, int(own) if own is not None else 0)

    def _tool_environment(self) -> dict[str, str]:
        connection = {"PGHOST": self._socket or LOOPBACK, "PGPORT": str(self.port), "PGUSER": self._superuser}
        password = {"PGPASSWORD": self.password} if self.password else {}
        return {**_environment(), **connection, **password}


_PASSWORD_RULES = "\n".join(f"host {what} all {LOOPBACK}/32 scram-sha-256" for what in ("all", "replication")) + "\n"
_PEER_RULES = "\n".join(f"local {what} all peer map=ours" for what in ("all", "replication")) + "\n"


def quoted(value: Setting) -> str:
    """A parameter's value as the configuration file's grammar wants it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = re.sub(r"(['\\])", r"\1\1", str(value))
    return f"'{text}'"


def _environment() -> dict[str, str]:
    """Nothing of ours: environments hold secrets, and libpq in the server reads PG* variables."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
