from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.stores.postgres.restore import Restored

if TYPE_CHECKING:
    from conftest import Source

pytestmark = pytest.mark.integration


def ids(restored: Restored) -> list[int]:
    """What is in the test's table."""
    with psycopg.connect(restored.dsn()) as session:
        return [row[0] for row in session.execute("SELECT id FROM t ORDER BY id").fetchall()]


@pytest.mark.parametrize("major", [15, 17, 18])
def test_latest_has_every_commit_that_was_stored(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored], major: int
) -> None:
    """A base backup and the WAL behind it bring back the last commit, and the heartbeat dates it."""
    source = make_source(major)
    source.sql("CREATE TABLE t (id int)")
    source.sql("INSERT INTO t SELECT generate_series(1, 1000)")
    source.snapshot()
    source.sql("INSERT INTO t SELECT generate_series(1001, 20000)")
    at = source.beat()
    end = source.feed()
    restored = recover(source)
    assert ids(restored) == list(range(1, 20001))
    assert restored.recovered_at == at
    assert restored.replayed_lsn == restored.end_lsn <= end
    assert restored.timeline == 2
