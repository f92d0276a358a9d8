"""Whether a source's summaries of its WAL fit the declared incrementals: two findings of the preflight.

What belongs here: `summarize_wal` and `wal_summary_keep_time` against the policy. What stays out: taking incrementals
(incremental.py) and every other finding (preflight.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import Snapshot

SUMMARY_SETTINGS: Final = ("server_version_num", "summarize_wal", "wal_summary_keep_time")
_MIN_VERSION: Final = 170000


@dataclass(frozen=True, slots=True)
class SummaryFinding:
    """What stands in the way of the incrementals, and the statement that changes it."""

    code: str
    found: str
    hint: str


def judge_summaries(cadence: Snapshot, settings: Mapping[str, str]) -> SummaryFinding | None:
    """What is wrong, None if nothing is or no incrementals are declared. `settings` as pg_settings shows them."""
    if cadence.incremental_every is None:
        return None
    declared = f"incrementals every {format_duration(cadence.incremental_every)} are declared"
    version = int(settings["server_version_num"])
    if version < _MIN_VERSION:
        found = f"{declared}, and PostgreSQL {version // 10000} can't give any: they came with 17"
        return SummaryFinding("source.no_incrementals", found, "leave out `snapshot.incremental_every`, or upgrade")
    if settings["summarize_wal"] != "on":
        found = f"{declared}, and summarize_wal is off: the server doesn't keep track of changed blocks"
        hint = "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf()"
        return SummaryFinding("source.no_summaries", found, hint)
    kept = timedelta(minutes=int(settings["wal_summary_keep_time"]))  # 0 keeps them for ever
    if kept and kept < cadence.every:
        found = f"wal_summary_keep_time is {format_duration(kept)}, shorter than the time between two fulls"
        hint = f"ALTER SYSTEM SET wal_summary_keep_time = '{_longer_min(cadence)}min'; SELECT pg_reload_conf()"
        return SummaryFinding("source.short_summaries", found, hint)
    return None


def _longer_min(cadence: Snapshot) -> int:
    """Two intervals, so that one backup may fail."""
    return int(2 * cadence.every.total_seconds() // 60)
