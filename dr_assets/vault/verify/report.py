"""What a verification found, as values.

What belongs here: findings, their kinds, the report and its JSON. What stays out: finding, and rendering.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from dr_assets.vault.storage.bucket_settings import BucketSettings
from dr_assets.vault.verify.levels import Level
from dr_assets.vault.witness import Witness

Severity = Literal["error", "notice"]

# What somebody laid on top of the vault or beside it, which a reader ignores.
OVERLAYS: frozenset[str] = frozenset(
    {"overlay", "delete_marker", "lookalike", "foreign", "misdated", "bucket_open", "bucket_changed"}
)

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
    "forked_log": "error",  # two checkpoints were signed of which the newer does not continue the older
    "unlocked": "error",  # no lock, or one that its dataset's rule finds too short or too weak
    "bucket_open": "error",  # the bucket's versioning or Object Lock is off: what is put next can be replaced
    "bucket_changed": "notice",  # settings of the bucket are not as they were made
    "overlay": "notice",  # a later version on top: ignored
    "delete_marker": "notice",  # a delete marker on top: ignored
    "lookalike": "notice",  # put after the moment judged, under a name of our form, and not ours: ignored
    "foreign": "notice",  # a name that isn't ours
    "lock_expired": "notice",  # it was locked, and its time is over
    "orphan": "notice",  # beyond the end of a chain, never acknowledged, never used
    "fork": "notice",  # competes with the chain and lost: a late put of a crashed writer
    "unvouched": "notice",  # begins where a chain ends, and names another piece as the one before it
    "cold": "notice",  # in a class that has to be thawed first: size, digest and lock are the store's word
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
    """All findings, errors first. `objects_locked` have a lock that still holds; `witness` is what was seen.

    Of `size_bytes` in the store `read_bytes` were read, which held `plaintext_bytes`; `recalled_total` objects were
    read by an earlier run that did not reach its end. `settings` are the bucket's, None where a store has none.
    """

    findings: tuple[Finding, ...]
    objects_total: int
    objects_locked: int
    size_bytes: int
    duration_s: float
    witness: Witness = field(default_factory=Witness)
    level: Level = "full"
    read_bytes: int = 0
    plaintext_bytes: int = 0
    recalled_total: int = 0
    settings: BucketSettings | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of damage."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def notices(self) -> tuple[Finding, ...]:
        """Findings to know about."""
        return tuple(finding for finding in self.findings if finding.severity == "notice")

    @property
    def overlays(self) -> tuple[Finding, ...]:
        """Findings of what somebody laid on top or beside, and a reader ignores; changed settings among them."""
        return tuple(finding for finding in self.findings if finding.kind in OVERLAYS)

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
            "level": self.level,
            "size_bytes": self.size_bytes,
            "read_bytes": self.read_bytes,
            "plaintext_bytes": self.plaintext_bytes,
            "recalled_total": self.recalled_total,
            "duration_s": round(self.duration_s, 3),
            "findings": [finding.to_json() for finding in self.findings],
        }
