"""Checking an exported log with no network and no vault: what is proven, what is damaged, what nobody can tell.

What belongs here: the report, reading checkpoints. What stays out: the tree (offline_tree.py), outsiders
(offline_outside.py), their order (offline_run.py), the folder (export_files.py), whom to believe (belief.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.belief import Belief
from dr_assets.vault.log.checkpoint import Checkpoint, Signed, verifiers_of
from dr_assets.vault.log.export_files import Export
from dr_assets.vault.log.names import size_of
from dr_assets.vault.log.note import NOTE_LIMIT_BYTES, verify_note

Verdict = Literal["proven", "not proven", "DAMAGED"]
Progress = Callable[[int, int], None]
NEWEST: Final = "checkpoint"
HISTORY: Final = "checkpoints"
DAMAGE_KEPT: Final = 1000
CHECKPOINTS_LIMIT: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the export (or what should be one) that contradicts the log."""

    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table."""

    claim: str
    verdict: Verdict
    detail: str


@dataclass(slots=True)
class OfflineReport:
    """All that was found. `damage` keeps the first thousand, `damage_total` counts all."""

    size: int = 0
    claims: list[Claim] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    damage_total: int = 0
    strangers: list[str] = field(default_factory=list)
    strangers_total: int = 0
    quorum_missed: bool = False

    @property
    def ok(self) -> bool:
        """Nothing is damaged, and as many witnesses as are asked for cosigned some checkpoint."""
        return not self.damage_total and not self.quorum_missed

    def hurt(self, path: str, detail: str) -> None:
        """Note damage."""
        self.damage_total += 1
        if len(self.damage) < DAMAGE_KEPT:
            self.damage.append(Damage(path, detail))

    def doubt(self, path: str) -> None:
        """Note a file that nobody vouches for."""
        self.strangers_total += 1
        if len(self.strangers) < DAMAGE_KEPT:
            self.strangers.append(path)

    def say(self, claim: str, detail: str, *, proven: bool, since: int | None = None) -> None:
        """Add a row; `since` is `damage_total` as it was before the checks that the row stands for."""
        hurt = since is not None and self.damage_total > since
        self.claims.append(Claim(claim, "DAMAGED" if hurt else "proven" if proven else "not proven", detail))

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "ok": self.ok,
            "size": self.size,
            "claims": [{"claim": row.claim, "verdict": row.verdict, "detail": row.detail} for row in self.claims],
            "damage": [{"path": row.path, "detail": row.detail} for row in self.damage],
            "damage_total": self.damage_total,
            "not_vouched_for": self.strangers,
        }


def read_checkpoints(export: Export, belief: Belief, report: OfflineReport) -> dict[int, Signed]:
    """Every checkpoint of the export that the log's key signed, by size. Damage is noted."""
    since = report.damage_total
    found: dict[int, Signed] = {}
    for at, path in enumerate(export.paths(HISTORY)):
        if at >= CHECKPOINTS_LIMIT:
            report.hurt(HISTORY, f"more than {CHECKPOINTS_LIMIT} checkpoints")
            break
        signed = _read_checkpoint(export, path, belief, report)
        if signed and size_of(path.removeprefix(f"{HISTORY}/")) == signed.checkpoint.size:
            found[signed.checkpoint.size] = signed
        elif signed:
            report.hurt(path, f"holds the checkpoint of {signed.checkpoint.size} leaves")
    newest = _read_checkpoint(export, NEWEST, belief, report)
    if newest:
        twin = found.setdefault(newest.checkpoint.size, newest)
        if twin.checkpoint != newest.checkpoint:
            report.hurt(NEWEST, "another root than the checkpoint of this size in the history has: THE LOG WAS FORKED")
        if newest.checkpoint.size < max(found):
            report.hurt(NEWEST, f"has {newest.checkpoint.size} leaves, the history {max(found)}")
    report.size = max(found, default=0)
    detail = f"{len(found)} checkpoints, the newest of {report.size} leaves"
    report.say("every checkpoint is signed by the log's key", detail, proven=bool(found), since=since)
    return found


def _read_checkpoint(export: Export, path: str, belief: Belief, report: OfflineReport) -> Signed | None:
    try:
        note = export.read(path, limit_bytes=NOTE_LIMIT_BYTES)
        if note is None:
            report.hurt(path, "is gone")
            return None
        checkpoint = Checkpoint.parse(verify_note(note, verifiers_of(belief.origin, belief.trust)).text)
    except VaultError as error:
        report.hurt(path, error.found)
        return None
    if checkpoint.origin != belief.origin:
        report.hurt(path, f"is of another log: {checkpoint.origin}")
        return None
    return Signed(checkpoint, note)
