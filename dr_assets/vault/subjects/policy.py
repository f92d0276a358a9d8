"""What limits the deletion of people's keys.

What belongs here: the limits as data, and the port to approvals. What stays out: judging signatures
(vault/approvals/).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from dr_assets.estate.errors import PolicyError

ERASE: Final = "erase-subjects"
LONGEST_GRACE: Final = timedelta(days=30)  # erasure "without undue delay", one month at the most: GDPR art. 12(3), 17


@dataclass(frozen=True, slots=True)
class ErasurePolicy:
    """`grace` lies between soft and final deletion; backups of the ring are locked exactly as long.

    No request may name more than `most_at_once` people, and no day see more than `most_a_day` deleted, approved or not:
    that many requests for erasure a day is what an operator has seen, more is an attack until somebody raises it.
    """

    grace: timedelta = LONGEST_GRACE
    most_at_once: int = 50
    most_a_day: int = 100

    def __post_init__(self) -> None:
        if not timedelta(0) < self.grace <= LONGEST_GRACE:
            raise PolicyError(
                "subjects.erasure_grace",
                f"an erasure grace of {self.grace}: more than 30 days is not erasure, none at all can't be undone",
                "declare `subjects: {erasure_grace: 30d}` or less",
            )


class Approvals(Protocol):
    """m of n people agreed."""

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """The id of the approval of exactly this action on exactly these objects, which is used up by this call.

        Raises PolicyError when there is none, when signatures lack, or when it has run out.
        """
        ...
