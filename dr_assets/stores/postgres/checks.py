"""Checks of restored data with PostgreSQL's own programs, by level.

What belongs here: which program runs when, and what its refusal means. What stays out: money (reconciliation/), the
vault's own digests, replay.

`quick`: every file is what `backup_manifest` says, before anything starts. `standard`: also every page of the recovered
cluster, by its checksum, or by reading every table where the source has none. `deep`: also every index entry.
"""

import os
import re
from pathlib import Path
from typing import Final

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Level
from dr_assets.stores.postgres.lay import SETTINGS_FILES
from dr_assets.stores.postgres.lay_wal import WalFrame
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.wal import Record, page_begin

_SAID_MAX: Final = 1500
_UNIQUE_SINCE: Final = 17
_RECORD: Final = re.compile(r"len \(rec/tot\): *\d+/ *(\d+), tx: *\d+, lsn: ([0-9A-F]+/[0-9A-F]+)")


def verify_files(server: PostgresServer) -> None:
    """Compare every file with `backup_manifest`, before the first start. Raises VaultError (`backup.damaged`).

    The source's settings files are not laid; their digests were compared when they were set aside.
    """
    ignored = [f"--ignore={name}" for name in SETTINGS_FILES]
    result = server.run_tool("pg_verifybackup", ["--no-parse-wal", "--quiet", *ignored, server.data_dir], check=False)
    if result.returncode != 0:
        raise _damaged("pg_verifybackup", result.stdout + result.stderr)


def require_same_last_record(server: PostgresServer, pg_wal: Path, frame: WalFrame, record: Record) -> None:
    """Have pg_waldump find the last record in the laid files. Raises VaultError (`restore.wal_disagrees`).

    `record` was found in the authenticated bytes, so this also sees what a disk did to the laid ones.
    """
    start = format_lsn(max(frame.begin, page_begin(record.begin)))
    result = server.run_tool(
        "pg_waldump", ["--path", pg_wal, "--timeline", str(frame.timeline), "--start", start], check=False
    )
    found = _RECORD.findall(result.stdout)
    total_bytes, lsn = (int(found[-1][0]), parse_lsn(found[-1][1])) if found else (0, 0)
    if (lsn, total_bytes) != (record.begin, record.total_bytes):
        raise VaultError(
            "restore.wal_disagrees",
            f"pg_waldump finds the last record of the laid WAL at {format_lsn(lsn)} ({total_bytes} bytes), the stored "
            f"WAL has it at {format_lsn(record.begin)} ({record.total_bytes} bytes)",
            "the laid files are not what the vault holds; check this host's disk and restore again",
        )


def check_data(server: PostgresServer, level: Level, *, has_checksums: bool) -> tuple[str, ...]:
    """Check the promoted cluster as `level` asks; the programs that ran. Raises VaultError (`restore.data_damaged`).

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
    server.stop("fast")
    result = server.run_tool("pg_checksums", ["--check", "-D", server.data_dir], check=False)
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
    result = server.run_tool("pg_amcheck", options, check=False)
    if result.returncode != 0:
        raise _damaged("pg_amcheck", result.stdout + result.stderr, code="restore.data_damaged")


def _damaged(program: str, said: str, *, code: str = "backup.damaged") -> VaultError:
    return VaultError(
        code,
        f"{program} found damage: {' '.join(said.split())[:_SAID_MAX]}",
        "nothing is kept of this restore; restore from an older base backup (--as-of), and check the source with "
        f"{program}: the damage may have been there when the base backup was taken",
    )
