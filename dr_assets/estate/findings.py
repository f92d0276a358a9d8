"""A refusal with its place: file, line, stable code, reason.

What belongs here: the finding, its order and its text. What stays out: the rules that make findings.
"""

from dataclasses import dataclass
from pathlib import Path

from dr_assets.estate.errors import PolicyError


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What is wrong with a declaration and where. `line` counts from 1; 0 means the folder as a whole."""

    path: Path
    line: int
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.code}: {self.reason}"


def refuse(findings: list[Finding]) -> None:
    """Raise one `PolicyError` that lists every finding, if there is any."""
    if findings:
        listed = "\n".join(f"  {finding}" for finding in findings)
        raise PolicyError(
            "policy.refused",
            f"the estate's declarations have {len(findings)} finding(s):\n{listed}",
            "docs/policy.md says what each rule asks for; `dr-assets estate check` repeats this list",
        )
