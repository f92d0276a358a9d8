"""Moments as people type them, and as machines read them."""

from datetime import UTC, datetime

from dr_assets.estate.errors import PolicyError


def parse_moment(text: str) -> datetime:
    """An ISO 8601 moment as aware UTC; one without an offset is refused, since a guessed zone decides what is lost."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise PolicyError(
            "cli.bad_time", f"'{text}' is not an ISO 8601 time", "write it like 2026-11-21T23:04:05.123Z"
        ) from error
    if moment.tzinfo is None:
        raise PolicyError("cli.bad_time", f"'{text}' names no time zone", f"append Z for UTC: {text}Z")
    return moment.astimezone(UTC)


def iso(moment: datetime | None) -> str | None:
    """A moment for JSON."""
    return None if moment is None else moment.isoformat()
