import re
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from dr_assets.engines.postgres import PostgresServer
from dr_assets.stores.postgres import wal
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn

pytestmark = pytest.mark.integration

SEGMENT = 16 << 20
LINE = re.compile(r"len \(rec/tot\): *\d+/ *(\d+), tx: *\d+, lsn: ([0-9A-F]+/[0-9A-F]+)")


def written(server: PostgresServer) -> tuple[int, int]:
    """Some WAL of every shape: small and huge records, full pages, a switch in the middle; its [begin, end)."""
    with psycopg.connect(server.dsn(), autocommit=True) as session:

        def answered(function: LiteralString) -> int:
            row = session.execute(f"SELECT {function}::text").fetchone()
            assert row is not None
            return parse_lsn(row[0])

        session.execute("SELECT pg_switch_wal()")
        session.execute("DROP TABLE IF EXISTS wal_shapes")
        begin = answered("pg_current_wal_insert_lsn()")
        session.execute("CREATE TABLE wal_shapes AS SELECT n, repeat('x', n % 300) FROM generate_series(1, 3000) n")
        session.execute("SELECT pg_logical_emit_message(false, 'big', repeat('y', 300000))")
        session.execute("UPDATE wal_shapes SET n = n + 1 WHERE n % 7 = 0")
        session.execute("SELECT pg_switch_wal()")
        session.execute("INSERT INTO wal_shapes SELECT 1, 'z' FROM generate_series(1, 200)")
        # A record's end as the server tells it: the place where it would write next lies behind a page's head at times.
        end = answered("pg_create_restore_point('flushed')")
        session.execute("SELECT pg_switch_wal()")
    return begin, end


@pytest.mark.parametrize("major", [15, 17, 18])
def test_records_are_those_that_the_server_s_own_reader_sees(
    session_postgres: Callable[[int], PostgresServer], major: int
) -> None:
    """Begin and length of every record agree with pg_waldump, on the WAL that each version writes."""
    server = session_postgres(major)
    begin, end = written(server)
    pg_wal = server.data_dir / "pg_wal"

    def page_of(position: int) -> bytes:
        path: Path = pg_wal / wal.segment_name(1, position, SEGMENT)
        with path.open("rb") as file:
            file.seek(position % SEGMENT)
            return file.read(wal.PAGE_BYTES)

    first = wal.page_begin(begin)
    ours = [(record.begin, record.total_bytes) for record in wal.records(page_of, first, end, SEGMENT)]
    range_ = ["--start", format_lsn(begin), "--end", format_lsn(end)]
    shown = server.run_tool("pg_waldump", ["--path", pg_wal, *range_], check=False).stdout
    theirs = [(parse_lsn(lsn), int(total)) for total, lsn in LINE.findall(shown)]
    assert len(theirs) > 3000
    assert [record for record in ours if record[0] >= theirs[0][0]] == theirs
    last = wal.last_complete_record(page_of, first, end, SEGMENT)
    assert last is not None
    assert (last.begin, last.total_bytes, last.end) == (*theirs[-1], end)
    cut = wal.last_complete_record(page_of, first, end - 1 - (-theirs[-1][1] % 8), SEGMENT)
    assert cut is not None
    assert (cut.begin, cut.total_bytes) == theirs[-2]
