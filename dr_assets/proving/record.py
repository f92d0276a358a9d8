"""Measured values as a sealed fact holds them.

What belongs here: turning moments and floats into canonical JSON. What stays out: which facts there are.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dr_assets.stores.postgres.measured import measured
from dr_assets.vault.format.canonical import Json, format_time


def plain(values: Mapping[str, Any]) -> dict[str, Json]:
    """The same values in the vault's JSON: moments as text, durations and rates to the millisecond."""
    return {str(name): _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Json:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, float):
        return measured(value)
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(type(value).__name__)
