"""Looking at a capture and its source once a second, and what a row says of all those looks.

What belongs here: samples and arithmetic over them. What stays out: making the outage.
"""

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dr_assets.stores.postgres.pieces import PIECE_CAP_BYTES

MIB: Final = 1 << 20
_MEMORY: Final = {"VmRSS": "rss", "VmHWM": "peak"}


@dataclass(frozen=True)
class Sample:
    """One look. Positions in bytes, times in seconds since the watch began."""

    at_s: float
    rss_bytes: int
    peak_bytes: int
    server_lsn: int
    stored_lsn: int
    received_lsn: int
    spooled_bytes: int
    spool_files_bytes: int
    retained_bytes: int
    acknowledged: int
    durability: str
    warnings: tuple[str, ...]
    trouble: str | None


def memory_of(pid: int) -> dict[str, int]:
    """Resident memory now and at its highest, in bytes."""
    found = {"rss": 0, "peak": 0}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in _MEMORY:
            found[_MEMORY[name]] = int(value.split()[0]) * 1024
    return found


def sample(began_s: float, status: dict[str, Any], pid: int, *, spool: Path, acknowledged: int, flushed: int) -> Sample:
    """Put one look together."""
    memory, slot = memory_of(pid), status.get("slot") or {}
    return Sample(
        at_s=round(time.monotonic() - began_s, 1),
        rss_bytes=memory["rss"],
        peak_bytes=memory["peak"],
        server_lsn=flushed,
        stored_lsn=status["stored_lsn"],
        received_lsn=status["received_lsn"],
        spooled_bytes=status.get("spooled_bytes", 0),
        spool_files_bytes=_size_bytes(spool),
        retained_bytes=slot.get("retained_bytes", 0),
        acknowledged=acknowledged,
        durability=status.get("durability", ""),
        warnings=tuple(status.get("warnings", ())),
        trouble=status.get("trouble"),
    )


def _size_bytes(folder: Path) -> int:
    """What the sealed files in a folder hold, while others come and go."""
    total = 0
    for path in folder.rglob("*.sealed"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@dataclass(frozen=True)
class Phases:
    """When the outage began and ended, and when everything was stored again; seconds since the watch began."""

    began_s: float
    ended_s: float
    caught_up_s: float


def judged(samples: list[Sample], phases: Phases, *, spool_max_bytes: int, slot_max_bytes: int) -> dict[str, Any]:
    """What a row says. `catch_up_ratio` is how much faster than it fell behind the capture caught up."""
    before = [one for one in samples if one.at_s < phases.began_s]
    during = [one for one in samples if phases.began_s <= one.at_s < phases.ended_s]
    after = [one for one in samples if one.at_s >= phases.ended_s]
    outage_s, catch_up_s = phases.ended_s - phases.began_s, max(0.1, phases.caught_up_s - phases.ended_s)
    behind = during[-1].server_lsn - during[-1].stored_lsn
    stored = after[-1].stored_lsn - during[-1].stored_lsn
    return {
        "outage_s": round(outage_s, 1),
        "catch_up_s": round(catch_up_s, 1),
        "behind_max_mib": _mib(behind),
        "fell_behind_mib_s": round(behind / outage_s / MIB, 3),
        "caught_up_mib_s": round(stored / catch_up_s / MIB, 3),
        "catch_up_ratio": round((stored / catch_up_s) / max(1.0, behind / outage_s), 2),
        "rss_before_mib": _mib(max(one.rss_bytes for one in before)),
        "rss_max_mib": _mib(max(one.peak_bytes for one in samples)),
        "spool_limit_mib": _mib(spool_max_bytes),
        "spool_max_mib": _mib(max(one.spool_files_bytes for one in samples)),
        "slot_limit_mib": _mib(slot_max_bytes),
        "slot_retained_max_mib": _mib(max(one.retained_bytes for one in samples)),
        "first_trouble_s": _first(during, phases, lambda one: bool(one.trouble)),
        "spool_warned_s": _first(during, phases, lambda one: _said(one, "spool")),
        "spool_full_s": _first(during, phases, lambda one: _is_full(one.spool_files_bytes, spool_max_bytes)),
        "slot_warned_s": _first(during, phases, lambda one: _said(one, "room for our slot")),
        "degraded_s": _first(during, phases, lambda one: one.durability == "degraded"),
        "commits_per_s_before": _rate(before),
        "commits_per_s_during": _rate(during),
        "commits_per_s_after": _rate(after),
    }


def verdicts(row: dict[str, Any]) -> list[str]:
    """What the row must show and doesn't: bounds kept, alarms before the ends, catching up faster than falling."""
    failures = []
    if row["spool_max_mib"] > row["spool_limit_mib"]:
        failures.append("the spool outgrew its limit")
    if row["rss_max_mib"] > 512:  # noqa: PLR2004 - the bound on memory, in MiB
        failures.append("more than 512 MiB of memory")
    if row["catch_up_ratio"] <= 1.0:
        failures.append("it caught up no faster than it fell behind")
    if row["spool_full_s"] is not None and not _before(row["spool_warned_s"], row["spool_full_s"]):
        failures.append("no warning before the spool was full")
    if row["slot_retained_max_mib"] > 0.9 * row["slot_limit_mib"] and row["slot_warned_s"] is None:
        failures.append("no warning before the slot's end")
    if row["lost"]:
        failures.append("acknowledged commits are missing in a restore")
    return failures


def as_dicts(samples: list[Sample], every: int) -> list[dict[str, Any]]:
    """Every so many looks, for a picture of the run; of warnings and trouble only that there were any."""
    return [
        {**dataclasses.asdict(one), "warnings": len(one.warnings), "trouble": one.trouble is not None}
        for one in samples[::every]
    ]


def _mib(size_bytes: float) -> float:
    return round(size_bytes / MIB, 1)


def _first(samples: list[Sample], phases: Phases, is_so: Any) -> float | None:
    return next((round(one.at_s - phases.began_s, 1) for one in samples if is_so(one)), None)


def _said(one: Sample, what: str) -> bool:
    return any(what in warning for warning in one.warnings)


def _is_full(used_bytes: int, limit_bytes: int) -> bool:
    """Whether the largest piece would not fit any more: then nothing is added."""
    return 0 < limit_bytes < used_bytes + PIECE_CAP_BYTES


def _before(early: float | None, late: float) -> bool:
    return early is not None and early < late


def _rate(samples: list[Sample]) -> float | None:
    if len(samples) < 2:  # noqa: PLR2004 - a rate wants two looks
        return None
    first, last = samples[0], samples[-1]
    return round((last.acknowledged - first.acknowledged) / max(0.1, last.at_s - first.at_s), 1)
