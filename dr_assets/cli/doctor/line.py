"""One line of the doctor's table, and what all of them together mean.

What belongs here: verdicts and exit codes. What stays out: looking (the probes) and printing (command.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from dr_assets.estate.errors import DrError

Verdict = Literal["ok", "warn", "bad"]
EXIT_CODES: Final[dict[Verdict, int]] = {"ok": 0, "warn": 1, "bad": 2}


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at, how it is, what was found, and what to do about it (empty only where nothing is to do)."""

    check: str
    verdict: Verdict
    found: str
    hint: str = ""

    def __post_init__(self) -> None:
        if self.verdict != "ok" and not self.hint:
            raise ValueError(f"{self.check}: a line that is {self.verdict} has to say what to do")

    @classmethod
    def of_error(cls, check: str, error: DrError) -> "Line":
        """What could not be looked at is bad: nobody knows that it is right."""
        return cls(check, "bad", f"{error.code}: {error.found}", error.hint)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of them; ok when there is none."""
    return max(verdicts, key=EXIT_CODES.__getitem__, default="ok")
