"""Keeping: how long each kind of object is locked, holds, sampling of what is old, cold classes, changes of policy.

What belongs here: the names that the rest of the house uses for lock lengths. What stays out: the rules themselves
(lengths.py), and everything that needs a vault (holds.py, sampling.py, thawing.py, policy_change.py import it, so they
are asked for by their own names).
"""

from dr_assets.estate.regimes import LOCK_CAP, SLACK
from dr_assets.vault.retention.lengths import (
    CLOCK_SKEW_LIMIT,
    KEY_MARGIN,
    MICRO_LOCK,
    Kind,
    LockRules,
    RetentionRule,
    check_skew,
    lock_for,
    lock_length,
)

__all__ = [
    "CLOCK_SKEW_LIMIT",
    "KEY_MARGIN",
    "LOCK_CAP",
    "MICRO_LOCK",
    "SLACK",
    "Kind",
    "LockRules",
    "RetentionRule",
    "check_skew",
    "lock_for",
    "lock_length",
]
