"""What a Kafka capture tells about itself: the report for people and Dagster.

What belongs here: plain values. What stays out: gathering them (capture_loop.py) and
serving them (observability/).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

KafkaState = Literal["streaming", "standby", "reconnecting", "stopped"]


@dataclass(frozen=True, slots=True)
class KafkaCaptureReport:
    """How a capture stands at `at`.

    `stored` is the number of the next pack: all before it were read back under their locks. `recovery_point_at` is the
    newest instant of the capture's clock up to which every record that was acknowledged to a producer is stored,
    `age_s` how long ago that is. `behind_records` is how far the logs' ends are ahead of what was fetched, `lag_s` from
    fetched to locked for the newest pack's first batch. `gaps` are jumps since the start: each is on record and red.
    """

    dataset: str
    state: KafkaState
    at: datetime
    system_id: str
    writer_epoch: int
    stored: int
    topics: int
    streams: int
    recovery_point_at: datetime | None
    age_s: float | None
    lag_s: float | None
    linger_s: float
    seal_s: float
    slowest_put_s: float
    behind_records: int
    in_flight_packs: int
    in_flight_bytes: int
    packs_stored: int
    records_stored: int
    bytes_stored: int
    upload_errors: int
    throttled_s: float
    gaps: int
    trouble: str | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        age = "unknown" if self.age_s is None else f"{self.age_s:.1f} s"
        trouble = f", {self.trouble}" if self.trouble else ""
        trouble += f", {self.gaps} gaps" if self.gaps else ""
        trouble += "".join(f", warning: {warning}" for warning in self.warnings)
        return (
            f"{self.dataset} {self.state}: {self.topics} topics, stored to pack {self.stored}, recovery point age "
            f"{age}, {self.behind_records} records behind, {self.in_flight_bytes} bytes in flight{trouble}"
        )
