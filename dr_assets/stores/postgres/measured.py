"""Measured values in facts: rounded, so that a sealed statement holds no false precision.

What belongs here: that rounding. What stays out: what is measured.
"""

from typing import cast

from dr_assets.vault.format.canonical import Json


def measured(value: float, digits: int = 3) -> Json:
    """`value` with `digits` decimals. Canonical JSON takes finite floats, though its type doesn't name them."""
    return cast("Json", round(value, digits))
