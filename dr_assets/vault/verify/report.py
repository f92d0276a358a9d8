"""What a verification found, as values.

What belongs here: findings, their kinds, the report and its JSON. What stays out: finding, and rendering.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from dr_assets.vault.witness import Witness

Severity = Literal["error", "notice"]

KINDS: dict[str, Severity] = {
    "cut": "error",  # bytes are missing at the end
    "flipped": "error",  # bytes differ from those that were sealed
    "swapped": "error",  # the bytes are another object's, whose own name is empty or holds something else
    "repeated": "error",  # the bytes are another object's, which is there too
    "bad_signature": "error",  # header and content were never signed together: a swapped header or a forged object
    "untrusted": "error",  # signed by somebody whom the trust file doesn't list
    "wrong_key": "error",  # sealed with, or wrapped by, another key than it names
    "malformed": "error",  # a name and digest of ours over bytes that are no object
    "newer_version": "error",  # sealed by a newer program, so nothing can be said of it
    "missing": "error",  # something signed says it was there, or only delete markers are left of its name
    "hole": "error",  # positions that were stored are not
    "rolled_wrong": "error",  # a full segment doesn't hold the bytes of the micro-segments that its list names
    "unlocked": "error",  # no lock, or one that its dataset's rule finds too short or too weak
    "overlay": "notice",  # a later version on top: ignored
    "delete_marker": "notice",  # a delete marker on top: ignored
    "foreign": "notice",  # a name that isn't ours
    "lock_expired": "notice",  # it was locked, and its time is over
    "orphan": "notice",  # beyond the end of a chain, never acknowledged, never used
    "fork": "notice",  # competes with the chain and lost: a late put of a crashed writer
    "unvouched": "notice",  # begins where a chain ends, and names another piece as the one before it
    "misdated": "notice",  # a fact dated after the store took it: ignored
    "unfinished": "notice",  # begun and not ended: a base backup, a roll-up, an expiry
    "gap": "notice",  # positions that were never captured, on record as such
    "changed": "notice",  # a stream gained an object below an inventory's end: a late put
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One object (or what is missing of one) and what is wrong with it."""

    kind: str
    key: str
    version_id: str | None = None
    detail: str = ""

    @property
    def severity(self) -> Severity:
        """An error means that something once stored is damaged, gone or unprotected."""
        return KINDS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "key": self.key,
            "version_id": self.version_id,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """All findings, errors first. `objects_locked` have a lock that still holds; `witness` is what was seen."""

    findings: tuple[Finding, ...]
    objects_total: int
    objects_locked: int
    size_bytes: int
    duration_s: float
    witness: Witness = field(default_factory=Witness)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of damage."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def notices(self) -> tuple[Finding, ...]:
        """Findings to know about."""
        return tuple(finding for finding in self.findings if finding.severity == "notice")

    @property
    def ok(self) -> bool:
        """No errors."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """For machines: `dr-assets vault verify --json` prints it."""
        return {
            "ok": self.ok,
            "objects_total": self.objects_total,
            "objects_locked": self.objects_locked,
            "size_bytes": self.size_bytes,
            "duration_s": round(self.duration_s, 3),
            "findings": [finding.to_json() for finding in self.findings],
        }
