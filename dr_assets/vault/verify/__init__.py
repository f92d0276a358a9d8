"""Verification: re-read everything and name every object that is not as it was sealed.

What belongs here: judging bytes, locks, memberships and claims. What stays out: money (reconciliation/) and repair.
"""

from dr_assets.vault.verify.levels import Depth
from dr_assets.vault.verify.report import Finding, VerifyReport
from dr_assets.vault.verify.run import verify

__all__ = ["Depth", "Finding", "VerifyReport", "verify"]
