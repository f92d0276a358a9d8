"""What a capture tells about itself: the report for people and Dagster.

What belongs here: plain values. What stays out: gathering them (capture.py) and
serving them (observability/).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import Room

CaptureState = Literal["streaming", "reconnecting", "stopped"]
Durability = Literal["asynchronous", "synchronous", "degraded"]


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """How a capture stands at `at`.

    `stored_lsn` ends the contiguous prefix that the vault has read back under its lock; `received_lsn` is in our
    memory only. `recovery_point_at` is the newest instant of the source's clock up to which every commit is stored;
    `age_s` is how far the source's clock has gone on since. `lag_s` is commit to locked, for the newest piece's first
    byte. `slowest_put_s` is the age of the oldest put under way, `seal_s` how long the last seal took: with the
    linger they bound what a crash of source and capture together may lose. `trouble` is None while all is well.
    `durability` is `degraded` from `durability_since` (the source's clock) on while a dataset that is declared zero
    loss commits without waiting for the vault: red. `spooled_bytes` wait on the capture's disk for the vault.
    `warnings` are what comes to an end some day (a disk, a limit) or is not as declared: yellow.
    """

    dataset: str
    state: CaptureState
    at: datetime
    system_id: str
    timeline: int
    writer_epoch: int
    stored_lsn: int
    received_lsn: int
    server_lsn: int
    recovery_point_at: datetime | None
    age_s: float | None
    lag_s: float | None
    linger_s: float
    seal_s: float
    slowest_put_s: float
    in_flight_pieces: int
    in_flight_bytes: int
    segments_stored: int
    bytes_stored: int
    upload_errors: int
    slot: SlotStatus | None
    trouble: str | None
    durability: Durability = "asynchronous"
    durability_since: datetime | None = None
    durability_reason: str | None = None
    spooled_bytes: int = 0
    spool_max_bytes: int = 0
    slot_room: Room | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        age = "unknown" if self.age_s is None else f"{self.age_s:.1f} s"
        trouble = f", {self.trouble}" if self.trouble else ""
        if self.durability != "asynchronous":
            trouble = f", {self.durability}{trouble}"
        if self.spooled_bytes:
            trouble = f", {self.spooled_bytes} bytes spooled{trouble}"
        trouble += "".join(f", warning: {warning}" for warning in self.warnings)
        return (
            f"{self.dataset} {self.state}: stored to {format_lsn(self.stored_lsn)}, recovery point age {age}, "
            f"{self.in_flight_bytes} bytes in flight{trouble}"
        )
