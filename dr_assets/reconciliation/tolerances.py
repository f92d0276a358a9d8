"""What a difference may be before it is a break, and how old a break is: a contract's `tolerances:`.

What belongs here: the values, their defaults, the one-row relation `settings` that the checks read them from. What
stays out: what is done with them (checks/).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dr_assets.estate.durations import parse_duration

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Tolerances:
    """Amounts in minor units, spans as durations.

    `in_flight`: what is younger and missing on one side is on its way. `aged_after`: an older break is an aged one.
    `date_window`: how far apart the two sides may date one payment. `payout_within`: when an approved withdrawal is
    overdue. `projection_lag`, `crm_lag`: how far a read model and the CRM may be behind. `lag_max`: records that a
    consumer group may be behind.
    """

    amount_minor: int = 0
    in_flight: timedelta = timedelta(days=3)
    aged_after: timedelta = timedelta(days=7)
    date_window: timedelta = timedelta(days=5)
    payout_within: timedelta = timedelta(days=3)
    projection_lag: timedelta = timedelta(minutes=1)
    crm_lag: timedelta = timedelta(hours=1)
    lag_max: int = 1000

    def settings(self, as_of: datetime) -> dict[str, int]:
        """The one row of `settings`."""
        return {
            "as_of_us": (as_of - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND,
            "amount_tolerance_minor": self.amount_minor,
            "in_flight_us": self.in_flight // _MICROSECOND,
            "aged_after_us": self.aged_after // _MICROSECOND,
            "date_window_us": self.date_window // _MICROSECOND,
            "payout_within_us": self.payout_within // _MICROSECOND,
            "projection_lag_us": self.projection_lag // _MICROSECOND,
            "crm_lag_us": self.crm_lag // _MICROSECOND,
            "lag_max": self.lag_max,
        }


_NUMBERS: Final = ("amount_minor", "lag_max")
NAMES: Final = tuple(Tolerances.__dataclass_fields__)


def tolerances_of(declared: dict[str, Any]) -> Tolerances:
    """Read `tolerances:`. Raises PolicyError (`policy.duration`) or ValueError with the reason."""
    values: dict[str, Any] = {}
    for name, value in declared.items():
        if name not in NAMES:
            message = f"there is no tolerance {name} (there are {', '.join(NAMES)})"
            raise ValueError(message)
        if name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                message = f"{name} must be a whole number, not negative"
                raise ValueError(message)
            values[name] = value
        else:
            values[name] = parse_duration(str(value))
    return Tolerances(**values)
