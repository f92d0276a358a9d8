"""Laid WAL looked through by pg_waldump before any server replays it.

What belongs here: that it is whole to the end that we found, and that replaying it harms nobody on this host. What
stays out: finding that end (wal.py), replay (recovery.py).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.lay_wal import WalFrame, frame_holding
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal import Record, page_begin

_RECORD: Final = re.compile(r"len \(rec/tot\): *\d+/ *(\d+), tx: *\d+, lsn: ([0-9A-F]+/[0-9A-F]+)")
_CREATED: Final = re.compile(r'lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: CREATE \d+ "(.+)"$', re.MULTILINE)
_ENDED: Final = re.compile(
    r"tx: *(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: (?:COMMIT|ABORT)(?:_PREPARED)? (?:(\d+): )?.*?"
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC"
)
_XIDS: Final = 1 << 32
_SAID_MAX: Final = 500


def check_wal(
    server: PostgresServer, pg_wal: Path, frames: Sequence[WalFrame], begin: int, record: Record, target: Target
) -> int:
    """Look through the WAL from `begin` to `record`, the last complete one that the vault's bytes hold.

    Returns the timeline on which a server will stop for `target`: of several, only that one may be recovered to, for a
    server that stops before its recovery's timeline begins writes a false history. Raises VaultError
    (`restore.wal_disagrees`) when the laid files say otherwise, PolicyError (`restore.tablespace_created`) when
    replaying up to `target` would create a tablespace in a folder that is not empty.
    """
    _require_same_end(server, pg_wal, frame_holding(frames, record.begin), record)
    dumps = [
        _Dump(server, pg_wal, frame.timeline, max(begin, frame.begin), min(frame.end, record.end))
        for frame in frames
        if max(begin, frame.begin) < min(frame.end, record.end)
    ]
    created = [
        (parse_lsn(lsn), Path(location)) for d in dumps for lsn, location in _CREATED.findall(d.of("Tablespace"))
    ]
    stops = _stops_at(dumps, target) if created or len(dumps) > 1 else None
    for lsn, location in created:
        if stops is None or lsn < stops:
            _require_own_ground(location)
    return next((d.timeline for d in dumps if stops is not None and stops < d.end), dumps[-1].timeline)


@dataclass(frozen=True, slots=True)
class _Dump:
    """pg_waldump over one stretch of laid WAL."""

    server: PostgresServer
    pg_wal: Path
    timeline: int
    begin: int
    end: int

    def of(self, resource_manager: str) -> str:
        """Its lines about one resource manager; whatever that is, every record is read and its CRC compared."""
        range_ = ["--start", format_lsn(self.begin), "--end", format_lsn(self.end)]
        place: list[str | Path] = ["--path", self.pg_wal, "--timeline", str(self.timeline)]
        looked = self.server.run_tool("pg_waldump", [*place, *range_, "--rmgr", resource_manager], check=False)
        if looked.returncode != 0:
            said = looked.stderr.strip()[:_SAID_MAX]
            raise _disagrees(f"pg_waldump cannot read it to {format_lsn(self.end)}: {said}")
        return looked.stdout


def _stops_at(dumps: Sequence[_Dump], target: Target) -> int | None:
    """Where a server will stop for `target`, when that can be told from the WAL alone; None when it can't."""
    if target.lsn is not None:
        return target.lsn
    for dump in dumps if target.at is not None or target.xid is not None else ():
        for header_xid, lsn, prepared_xid, text in _ENDED.findall(dump.of("Transaction")):
            if target.xid is not None and int(prepared_xid or header_xid) == target.xid % _XIDS:
                return parse_lsn(lsn)
            if target.at is not None and datetime.fromisoformat(text).replace(tzinfo=UTC) > target.at:
                return parse_lsn(lsn)
    return None


def _require_same_end(server: PostgresServer, pg_wal: Path, frame: WalFrame, record: Record) -> None:
    """`record` was found in the authenticated bytes, so this also sees what a disk did to the laid ones."""
    start = format_lsn(max(frame.begin, page_begin(record.begin)))
    result = server.run_tool(
        "pg_waldump", ["--path", pg_wal, "--timeline", str(frame.timeline), "--start", start], check=False
    )
    found = _RECORD.findall(result.stdout)
    total_bytes, lsn = (int(found[-1][0]), parse_lsn(found[-1][1])) if found else (0, 0)
    if (lsn, total_bytes) != (record.begin, record.total_bytes):
        raise _disagrees(
            f"pg_waldump finds the last record of the laid WAL at {format_lsn(lsn)} ({total_bytes} bytes), the stored "
            f"WAL has it at {format_lsn(record.begin)} ({record.total_bytes} bytes)"
        )


def _require_own_ground(location: Path) -> None:
    """Replay of CREATE TABLESPACE empties the folder that it names: on the source's own host, the source's data."""
    if not location.is_absolute() or (location.is_dir() and not any(location.iterdir())):
        return
    raise PolicyError(
        "restore.tablespace_created",
        f"the WAL creates a tablespace at {location}, which is {'in use' if location.exists() else 'not there'} on "
        "this host; replaying that would remove what lies in it",
        "take a base backup, which brings the tablespace along; or restore to a target before it was created; or, on a "
        "host of its own, create that folder, empty, for the server's user",
    )


def _disagrees(found: str) -> VaultError:
    return VaultError(
        "restore.wal_disagrees",
        found,
        "the laid files are not what the vault holds; check this host's disk and restore again",
    )
