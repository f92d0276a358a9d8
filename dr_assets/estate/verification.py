"""When a vault is verified, and how deep: the policy, how declared strings become it, and what of them is refused.

What belongs here: three cadences and the share of a sample. What stays out: verifying (vault/verify).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from dr_assets.estate import cadence
from dr_assets.estate.documents import Document
from dr_assets.estate.findings import Finding
from dr_assets.estate.schema import EstateDeclaration, VerificationDeclaration

VerifyLevel = Literal["index", "sample", "full"]
VERIFY_LEVELS: Final[tuple[VerifyLevel, ...]] = ("index", "sample", "full")


@dataclass(frozen=True, slots=True)
class VerificationPolicy:
    """Cron lines in UTC, one a level; `share` of the bulk (above 0, at most 1) is read by a sample."""

    index: str = "40 4 * * *"
    sample: str = "40 16 * * *"
    full: str = "40 5 * * 0"
    share: float = 0.05

    def cron(self, level: VerifyLevel) -> str:
        """When a verification of this level is due."""
        return {"index": self.index, "sample": self.sample, "full": self.full}[level]

    def every(self, level: VerifyLevel) -> timedelta:
        """The longest wait between two of them."""
        return cadence.longest_interval(self.cron(level))


def verification_of(declared: VerificationDeclaration) -> VerificationPolicy:
    """The policy of accepted strings."""
    return VerificationPolicy(declared.index, declared.sample, declared.full, declared.share)


def verification_rules(document: Document, declared: EstateDeclaration) -> Iterator[Finding]:
    """Cron lines that are none."""
    for level in VERIFY_LEVELS:
        text = getattr(declared.verification, level)
        if not cadence.is_cron(text):
            reason = f"`{text}` is not a five-field cron line that ever fires (minute hour day month weekday, UTC)"
            yield document.finding("policy.cron", reason, "verification", level)
