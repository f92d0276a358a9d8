"""Who has to agree before anything is deleted: the accepted rule, and judging its declaration.

What belongs here: approvers, how many are needed, for how long they are bound. What stays out: requests and signatures
(vault/approvals/).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dr_assets.estate.documents import Document
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.findings import Finding

if TYPE_CHECKING:
    from dr_assets.estate.schema import ApprovalsDeclaration, EstateDeclaration

LONGEST_VALID: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Approver:
    """Somebody whose signature counts; `public_key` is the raw Ed25519 key in 64 hex digits."""

    name: str
    public_key: str


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """m of n: `needed` of the `approvers`, on a request that holds for at most `valid_for`."""

    approvers: tuple[Approver, ...]
    needed: int
    valid_for: timedelta = timedelta(hours=72)


def approval_rule_of(declared: "ApprovalsDeclaration | None") -> ApprovalRule | None:
    """The accepted rule; None where nobody has to agree."""
    if declared is None:
        return None
    approvers = tuple(Approver(one.name, one.public_key) for one in declared.approvers)
    return ApprovalRule(approvers, declared.needed, parse_duration(declared.valid_for))


def approval_rules(document: Document, declared: "EstateDeclaration") -> Iterator[Finding]:
    """What is wrong with `approvals`: too few approvers, one person or one key twice, valid for too long."""
    approvals = declared.approvals
    if approvals is None:
        return
    for what, values in (
        ("name", [one.name for one in approvals.approvers]),
        ("public key", [one.public_key for one in approvals.approvers]),
    ):
        if len(set(values)) != len(values):
            reason = f"two approvers have the same {what}: one person would be counted twice"
            yield document.finding("policy.approvals", reason, "approvals", "approvers")
    if approvals.needed > len(approvals.approvers):
        reason = f"{approvals.needed} approvals are needed and {len(approvals.approvers)} approvers declared"
        yield document.finding("policy.approvals", reason, "approvals", "needed")
    if parse_duration(approvals.valid_for) > LONGEST_VALID:
        reason = f"valid_for {approvals.valid_for} is over {LONGEST_VALID.days}d: nobody remembers what they agreed to"
        yield document.finding("policy.approvals", reason, "approvals", "valid_for")
