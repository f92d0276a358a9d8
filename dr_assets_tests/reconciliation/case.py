"""What a planted break is: where it is planted, what must be found, and nothing else.

What belongs here: the words in which cases are written. What stays out: the cases (cases_*.py) and running them.
"""

from dataclasses import dataclass
from typing import Final

AREAS: Final = {
    "ledger": "1. ledger",
    "balances": "2. balances",
    "payments": "3. payment provider",
    "withdrawals": "4. withdrawals",
    "outbox": "5. outbox",
    "queues": "6. queues",
    "read_models": "7. read models",
    "crm": "8. CRM",
}


@dataclass(frozen=True)
class Broken:
    """Breaks of one check and reason. The other fields name columns of the case's `pick`; None is not compared."""

    check: str
    reason: str
    amount: str | None = None
    reference: str | None = None
    account: str | None = None
    transfer: str | None = None
    currency: str | None = None
    count: str | int = 1


@dataclass(frozen=True)
class Case:
    """A kind of break in one place.

    `pick` gives one row, the victim and what follows from it; `plant` are statements over the relations, in which
    `$name` is a column of that row. `found` is what it must be called, by the check whose area this is; `follows` is
    what cannot but break as well.
    """

    kind: str
    where: str
    pick: str
    plant: tuple[str, ...]
    found: Broken
    follows: tuple[Broken, ...] = ()

    @property
    def area(self) -> str:
        """Which of the eight has to find it."""
        return self.found.check.partition("/")[0]

    @property
    def name(self) -> str:
        """One line: what is wrong."""
        return f"{self.kind}: {self.where}"
