"""All planted breaks, and the table of them for docs/reconciliation-cases.md.

`python -m dr_assets_tests.reconciliation.cases` prints the table.
"""

import sys
from collections import Counter
from typing import Final

from dr_assets_tests.reconciliation.case import AREAS, Broken, Case
from dr_assets_tests.reconciliation.cases_follow import CRM, OUTBOX, QUEUES, READ_MODELS
from dr_assets_tests.reconciliation.cases_ledger import BALANCES, LEDGER
from dr_assets_tests.reconciliation.cases_money import PAYMENTS, WITHDRAWALS

CASES: Final = (*LEDGER, *BALANCES, *PAYMENTS, *WITHDRAWALS, *OUTBOX, *QUEUES, *READ_MODELS, *CRM)


def page() -> str:
    """docs/reconciliation-cases.md."""
    counts = Counter(case.area for case in CASES)
    lines = [
        "# Planted breaks",
        "",
        f"{len(CASES)} breaks, each planted alone into books that add up (a casino that has lived on a real",
        "Postgres, files of its provider and its bank, its topics), and each found by the check that is there for",
        "it, with the amount, reference and account that were touched. `follows` is what cannot but break as well;",
        "nothing beside that does. The tests are in `dr_assets_tests/reconciliation/`, and",
        "`python -m dr_assets_tests.reconciliation.cases` prints this page.",
        "",
    ]
    for area, title in AREAS.items():
        lines += [
            f"## {title} ({counts[area]})",
            "",
            "| kind | where | found as | follows |",
            "|---|---|---|---|",
            *(_row(case) for case in CASES if case.area == area),
            "",
        ]
    return "\n".join(lines)


def _row(case: Case) -> str:
    follows = ", ".join(dict.fromkeys(_says(each) for each in case.follows))
    return f"| {case.kind} | {case.where} | {_says(case.found)} | {follows} |"


def _says(broken: Broken) -> str:
    return f"`{broken.check}` {broken.reason}"


if __name__ == "__main__":
    sys.stdout.write(page())
