"""Checks of restored data with PostgreSQL's own programs, by level.

What belongs here: which program runs when, and what its refusal means. What stays out: money (reconciliation/), the
vault's own digests, WAL (wal_check.py), replay.

`quick`: every file is what `backup_manifest` says, before anything starts. `standard`: also every page of the recovered
cluster, by its checksum, or by reading every table where the source has none. `deep`: also every index entry.
"""

import os
from pathlib import Path
from typing import Final

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Level
from dr_assets.stores.postgres.guarded import stop_cleanly
from dr_assets.stores.postgres.lay import SETTINGS_FILES

_SAID_MAX: Final = 1500
_UNIQUE_SINCE: Final = 17
# Terabytes take hours to read; a program that hangs for a day is broken.
_TOOL_TIMEOUT_S: Final = 86400.0


def verify_files(server: PostgresServer, data_dir: Path | None = None) -> None:
    """Compare every file with `backup_manifest`, before the first start. Raises VaultError (`backup.damaged`).

    Of the server's own directory, or of another one that was laid with its programs' format.

    The source's settings files are not laid; their digests were compared when they were set aside.
    """
    ignored = [f"--ignore={name}" for name in SETTINGS_FILES]
    args = ["--no-parse-wal", "--quiet", *ignored, str(data_dir or server.data_dir)]
    result = server.run_tool("pg_verifybackup", args, check=False, timeout_s=_TOOL_TIMEOUT_S)
    if result.returncode != 0:
        raise _damaged("pg_verifybackup", result.stdout + result.stderr)


def check_data(server: PostgresServer, level: Level, *, has_checksums: bool) -> tuple[str, ...]:
    """Check the promoted cluster as `level` asks; the programs that ran.

    Raises VaultError: `restore.data_damaged`, and `restore.not_stopped` for a server that would not stop for it.
    The server is stopped and started again where a program needs that. Extensions are installed in this cluster only.
    """
    programs: list[str] = []
    if level == "quick":
        return ()
    if has_checksums:
        _checksums(server)
        programs.append("pg_checksums")
    if level == "deep" or not has_checksums:
        _amcheck(server, deep=level == "deep")
        programs.append("pg_amcheck")
    return tuple(programs)


def _checksums(server: PostgresServer) -> None:
    stop_cleanly(server)
    args = ["--check", "-D", str(server.data_dir)]
    result = server.run_tool("pg_checksums", args, check=False, timeout_s=_TOOL_TIMEOUT_S)
    if result.returncode != 0:
        raise _damaged("pg_checksums", result.stdout + result.stderr, code="restore.data_damaged")
    server.start()


def _amcheck(server: PostgresServer, *, deep: bool) -> None:
    """Every table through the buffer manager; `deep`: every index against its table and its own order as well."""
    options = ["--all", "--install-missing", f"--jobs={max(2, os.cpu_count() or 1)}"]
    if deep:
        options += ["--heapallindexed", "--parent-check"]
        options += ["--checkunique"] if server.programs.major >= _UNIQUE_SINCE else []
    else:
        options += ["--no-dependent-indexes"]
    result = server.run_tool("pg_amcheck", options, check=False, timeout_s=_TOOL_TIMEOUT_S)
    if result.returncode != 0:
        raise _damaged("pg_amcheck", result.stdout + result.stderr, code="restore.data_damaged")


def _damaged(program: str, said: str, *, code: str = "backup.damaged") -> VaultError:
    return VaultError(
        code,
        f"{program} found damage: {' '.join(said.split())[:_SAID_MAX]}",
        "nothing is kept of this restore; restore from an older base backup (--as-of), and check the source with "
        f"{program}: the damage may have been there when the base backup was taken",
    )
