from datetime import timedelta

import pytest

from dr_assets.estate.model import Snapshot
from dr_assets.stores.postgres.summaries import judge_summaries

HOURLY = Snapshot(timedelta(hours=24), timedelta(hours=1))
FIT = {"server_version_num": "170010", "summarize_wal": "on", "wal_summary_keep_time": "14400"}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"server_version_num": "150018"}, "source.no_incrementals"),
        ({"summarize_wal": "off"}, "source.no_summaries"),
        ({"wal_summary_keep_time": "1439"}, "source.short_summaries"),
    ],
)
def test_what_stands_in_the_way_of_incrementals_is_named(changed: dict[str, str], code: str) -> None:
    """Version, switch and keep time, each with its own code, and only where incrementals are declared."""
    finding = judge_summaries(HOURLY, FIT | changed)
    assert finding is not None
    assert finding.code == code
    assert judge_summaries(Snapshot(timedelta(hours=24)), FIT | changed) is None


def test_summaries_that_are_kept_from_one_full_to_the_next_are_enough() -> None:
    """A day for a daily full, and for ever, which the server writes as 0."""
    for minutes in ("1440", "14400", "0"):
        assert judge_summaries(HOURLY, FIT | {"wal_summary_keep_time": minutes}) is None
    assert judge_summaries(Snapshot(timedelta(hours=24)), {"server_version_num": "150018"}) is None
