"""What a round came to, and the table over all of them.

What belongs here: values, lines, sums. What stays out: measuring them.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from scripts.crash.kinds import KINDS, Kind


@dataclass
class Round:
    """One kill and what came back. Times in milliseconds unless the name says otherwise.

    `lost` were acknowledged without a warning and are in no restored ledger; `warned` were answered with one. Of a
    fail-over, `diverged` were acknowledged by the old primary and never reached the new one: they are restored from
    the old timeline and count as lost only if they are not there either. `bound_ms` is how much the linger, the
    slowest put and an outage of the store may cost together.
    """

    number: int
    kind: str
    zero_loss: bool
    seed: int
    acknowledged: int
    lost: int
    warned: int
    warned_lost: int
    diverged: int
    loss_window_ms: float
    linger_ms: float
    seal_ms: float
    slowest_put_ms: float
    outage_ms: float
    bound_ms: float
    recovery_point_age_s: float | None = None
    recovery_duration_s: float = 0.0
    round_s: float = 0.0
    detail: str = ""
    durability: str = ""
    timeline: int = 1
    stored_lsn: str = ""
    replayed_lsn: str = ""
    orphans: int = 0
    holes: int = 0
    gaps: int = 0
    breaks: int = 0
    wal_compared_bytes: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def within_bound(self) -> bool:
        """Whether no more was lost than what can be under way at any moment."""
        return self.loss_window_ms <= self.bound_ms


def failed(number: int, kind: Kind, seed: int, error: BaseException) -> Round:
    """A round that had no end, and so says nothing but why."""
    nothing: dict[str, Any] = dict.fromkeys(("acknowledged", "lost", "warned", "warned_lost", "diverged"), 0)
    times = ("loss_window_ms", "linger_ms", "seal_ms", "slowest_put_ms", "outage_ms", "bound_ms")
    nothing |= dict.fromkeys(times, 0.0)
    why = " ".join(f"{type(error).__name__}: {error}".split())[:600]
    return Round(number=number, kind=kind.name, zero_loss=kind.zero_loss, seed=seed, failures=[why], **nothing)


HEAD = (
    f"{'round':>5} {'kind':<27} {'acked':>6} {'lost':>5} {'window ms':>9} {'bound ms':>8} {'put ms':>7} "
    f"{'outage':>7} {'restore s':>9} {'round s':>7} {'holes':>5} {'breaks':>6}  failures"
)


def line(row: Round) -> str:
    """One row for a person."""
    return (
        f"{row.number:>5} {row.kind:<27} {row.acknowledged:>6} {row.lost:>5} {row.loss_window_ms:>9} "
        f"{row.bound_ms:>8} {row.slowest_put_ms:>7} {row.outage_ms:>7.0f} {row.recovery_duration_s:>9} "
        f"{row.round_s:>7} {row.holes:>5} {row.breaks:>6}  {'; '.join(row.failures) or row.detail or '-'}"
    )


def summed(rows: list[Round]) -> dict[str, Any]:
    """One entry for each kind that was run."""
    summary: dict[str, Any] = {}
    for kind in KINDS:
        own = [row for row in rows if row.kind == kind.name]
        if own:
            summary[kind.name] = {
                "rounds": len(own),
                "zero_loss": kind.zero_loss,
                "acknowledged": sum(row.acknowledged for row in own),
                "lost": sum(row.lost for row in own),
                "warned": sum(row.warned for row in own),
                "diverged": sum(row.diverged for row in own),
                "loss_window_max_ms": max(row.loss_window_ms for row in own),
                "within_bound": sum(row.within_bound for row in own),
                "holes": sum(row.holes for row in own),
                "breaks": sum(row.breaks for row in own),
                "failures": sum(bool(row.failures) for row in own),
            }
    return summary


def whole(rows: list[Round], finals: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """The document that is written: every row, the sums, and whether all of it held."""
    lost = sum(final["lost"] for final in finals)
    errors = [finding for final in finals for finding in final["verify_errors"]]
    return {
        "about": about,
        "ok": not any(row.failures for row in rows) and not lost and not errors,
        "summary": summed(rows),
        "zero_loss_lost": sum(row.lost for row in rows if row.zero_loss),
        "final": {
            "acknowledged": sum(final["acknowledged"] for final in finals),
            "lost": lost,
            "verified_objects": sum(final["verified_objects"] for final in finals),
            "verify_errors": errors,
        },
        "rounds": [dataclasses.asdict(row) for row in rows],
    }
