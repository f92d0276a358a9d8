"""Where a full segment is cut, and the bytes gathered for it.

What belongs here: the rule, as arithmetic over headers, so that every roller cuts the same micro-segments at the same
places. What stays out: reading and writing.

A full ends before the micro-segment with which it would hold more than 64 MiB, span more than an hour of the source's
clock, or cover more micros than a list should name. It is due once that next one is there; a stream that has ended is
closed off with what is left.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import FULL_LIMIT_BYTES, MICRO_KEYS, Covered, extra_of
from dr_assets.vault.inventory import digest_of
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, format_position

SPAN: Final = timedelta(hours=1)
MICROS_MAX: Final = 16384


@dataclass(frozen=True, slots=True)
class Limits:
    """What one full may hold at most. `span` is time of the source's clock; tests make these small."""

    size_bytes: int = FULL_LIMIT_BYTES
    span: timedelta = SPAN
    micros: int = MICROS_MAX

    def count_by_name(self, keys: Sequence[ObjectKey]) -> int:
        """How many of these, in order, one full can hold going by positions and number alone; at least one of any."""
        if not keys:
            return 0
        end = keys[0].first + self.size_bytes
        count = next((number for number, key in enumerate(keys) if key.last > end), len(keys))
        return max(1, min(count, self.micros))

    def without_end(self) -> "Limits":
        """For a full that was cut already: whatever it holds belongs to it."""
        return Limits(self.size_bytes, timedelta.max, self.micros)

    def is_over(self, begin_at: datetime, end_at: datetime) -> bool:
        """Whether a micro that ends at `end_at` is too late for a full that begins at `begin_at`."""
        return end_at - begin_at > self.span


@dataclass(slots=True)
class FullDraft:
    """Micro-segments that continue one another, gathered into the next full."""

    limits: Limits
    data: bytearray = field(default_factory=bytearray)
    covered: list[Covered] = field(default_factory=list)
    first: Header | None = None
    last: Header | None = None
    recovery_point_at: str | None = None

    def takes(self, header: Header) -> bool:
        """Whether the micro with this header still belongs to this full."""
        if self.first is None:
            return True
        size_bytes = header.last - self.first.first
        over = size_bytes > self.limits.size_bytes or len(self.covered) >= self.limits.micros
        return not over and not self.limits.is_over(self.first.begin_at, header.end_at)

    def add(self, key: ObjectKey, opened: Opened) -> None:
        """The next micro; ValueError unless it continues the last one."""
        header = opened.header
        if self.last is not None and (header.previous != self.last.digest or header.first != self.last.last):
            raise ValueError(f"{key} does not continue {self.last.first:016X}-{self.last.last:016X}")
        self.data += opened.plaintext
        self.covered.append(Covered(key, header.plaintext_sha256))
        self.first, self.last = self.first or header, header
        self.recovery_point_at = header.extra.get(RECOVERY_POINT_AT, self.recovery_point_at)

    @property
    def ends(self) -> tuple[Header, Header]:
        """The headers of the first and the last micro; ValueError for an empty draft."""
        if self.first is None or self.last is None:
            raise ValueError("an empty draft")
        return self.first, self.last

    def makes(self, header: Header) -> bool:
        """Whether a full with this header holds the same bytes of the same micros."""
        keys_sha256 = digest_of(str(row.key) for row in self.covered)
        own = (hashlib.sha256(self.data).hexdigest(), keys_sha256)
        return own == (header.plaintext_sha256, header.extra.get(MICRO_KEYS))

    def take(self) -> bytes:
        """The plaintext; it is gone from here, for it is large."""
        plaintext = bytes(self.data)
        self.data = bytearray()
        return plaintext

    def extra(self) -> dict[str, str]:
        """The words of the full's header."""
        first, last = self.ends
        extra = extra_of(first, last, digest_of(str(row.key) for row in self.covered), len(self.covered))
        # All below the full's end was stored before it was made.
        extra[ACKNOWLEDGED_TO] = format_position(last.last)
        if self.recovery_point_at is not None:
            extra[RECOVERY_POINT_AT] = self.recovery_point_at
        return extra
