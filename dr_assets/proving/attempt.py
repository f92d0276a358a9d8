"""An attempt at proving a restore: due before it is tried, and on record however it ends.

What belongs here: the attempt's values, its work folder, the two sealed facts it leaves. What stays out: restoring and
judging, which each kind of dataset does in its own way.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Dataset
from dr_assets.proving.record import plain
from dr_assets.vault.facts import record_fact
from dr_assets.vault.vault import Vault

WORK_DIR_ENV: Final = "DR_ASSETS_WORK_DIR"
DUE: Final = "restore_test_due"
RESTORE_TEST: Final = "restore_test"
Outcome = Literal["passed", "failed", "aborted"]


@dataclass(slots=True)
class Attempt:
    """One attempt. `recovery_duration_s` runs from the decision until everything was compared.

    `recovery_point_age_s` is the decision minus the recovery point that came back; None while nobody knows it. What is
    measured goes into `details`.
    """

    dataset: str
    begin_at: datetime
    begin_s: float
    outcome: Outcome = "aborted"
    reason: str = "stopped before it was done"
    recovery_duration_s: float = 0.0
    recovery_point_age_s: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    phases_s: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Restored, and everything compared equal."""
        return self.outcome == "passed"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is done within, also when it fails."""
        begin_s = time.monotonic()
        try:
            yield
        finally:
            self.phases_s[name] = time.monotonic() - begin_s

    def recovered(self, at: datetime | None) -> None:
        """What came back is of `at`; the capture goes on while we begin, so it may be younger than the decision."""
        self.recovery_point_age_s = None if at is None else max(0.0, (self.begin_at - at).total_seconds())

    def judge(self, broken: list[str], passed: str) -> None:
        """The verdict: what is broken, in words, or what holds."""
        self.recovery_duration_s = time.monotonic() - self.begin_s
        self.outcome, self.reason = ("failed", "; ".join(broken)) if broken else ("passed", passed)


@contextmanager
def attempted(vault: Vault, dataset: Dataset) -> Iterator[Attempt]:
    """An attempt on record: `restore_test_due` before anything is tried, `restore_test` however the block ends.

    What can't be restored is put on record as failed and raised; an interrupt, as aborted. An attempt that is killed
    leaves its first fact alone.
    """
    attempt = Attempt(dataset.name, vault.clock(), time.monotonic())
    due = {"outcome": "due", "target": "latest", "begin_at": attempt.begin_at}
    record_fact(vault, dataset.name, DUE, plain(due))
    with on_record(attempt, lambda: record_fact(vault, dataset.name, RESTORE_TEST, plain(_body(dataset, attempt)))):
        yield attempt


@contextmanager
def on_record(result: Any, record: Callable[[], object]) -> Iterator[None]:
    """Calls `record` however the block ends. A failure to seal never hides the failure that it was to record.

    `result` has `outcome` and `reason`, which an error or an interrupt sets.
    """
    try:
        yield
    except DrError as error:
        result.outcome, result.reason = "failed", f"{error.code}: {error.found}"
        try:
            record()
        except DrError as unsealed:
            error.add_note(f"and this attempt is not on record: {unsealed.code}: {unsealed.found}")
        raise
    except BaseException as ended:  # an attempt that a signal ends is on record, too
        result.outcome, result.reason = "aborted", f"ended by {type(ended).__name__}"
        record()
        raise
    record()


def fresh_workdir(dataset: str, env: Mapping[str, str] | None = None) -> Path:
    """A folder for one attempt below DR_ASSETS_WORK_DIR, or the system's for temporary files; not made yet."""
    parent = Path((os.environ if env is None else env).get(WORK_DIR_ENV) or tempfile.gettempdir())
    return parent / f"dr_assets-restore-test-{dataset}-{secrets.token_hex(4)}"


def _body(dataset: Dataset, attempt: Attempt) -> dict[str, Any]:
    return {
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "target": "latest",
        "begin_at": attempt.begin_at,
        "recovery_duration_s": attempt.recovery_duration_s,
        "recovery_point_age_s": attempt.recovery_point_age_s,
        "rto_s": dataset.rto.total_seconds(),
        "rpo_s": dataset.rpo.total_seconds(),
        "phases_s": attempt.phases_s,
        **attempt.details,
    }
