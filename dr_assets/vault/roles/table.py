"""The matrix and the documents as they are shipped: for docs/roles.md and infra/terraform/vault/policies.

What belongs here: rendering. What stays out: writing files (scripts/render_roles.py) and every judgement.
"""

from collections.abc import Iterator
from typing import Final

from dr_assets.estate.model import ROLES, Role
from dr_assets.vault.roles.calls import SECTIONS, Call
from dr_assets.vault.roles.documents import Dialect, bucket_policy, document, dumped
from dr_assets.vault.roles.duties import DUTIES, REPLICATOR_AT_SOURCE, Scope

BEGIN: Final = "<!-- matrix: written by scripts/render_roles.py -->"
END: Final = "<!-- end of matrix -->"
# Terraform's `templatefile` fills these in; nothing else in a document has a dollar sign.
TEMPLATE: Final = Scope("${bucket}", "${estate}", "${cap_days}", "${mode}")
_DIALECTS: Final[dict[Dialect, str]] = {"aws": "AWS", "seaweedfs": "SeaweedFS"}


def matrix() -> str:
    """All calls by section, a column a role; where a store grants more, a footnote says why and what protects."""
    notes: list[str] = []
    lines: list[str] = []
    for title, calls in SECTIONS.items():
        lines += ["", f"### {title}", "", f"| call | S3 | {' | '.join(ROLES)} |", "|---|---|" + ":-:|" * len(ROLES)]
        lines += [_row(call, notes) for call in calls]
    return "\n".join([*lines, "", *notes, ""]).lstrip("\n")


def shipped() -> dict[str, str]:
    """The templates for AWS, by file name."""
    policies = {f"{role}.json": dumped(document(duty, TEMPLATE, "aws")) for role, duty in DUTIES.items()}
    source = dumped(document(REPLICATOR_AT_SOURCE, TEMPLATE, "aws"))
    return policies | {"replicator-at-source.json": source, "bucket.json": dumped(bucket_policy(TEMPLATE))}


def with_matrix(page: str) -> str:
    """The page with the matrix of today between its two marks. ValueError for a page without them."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError("the page has no place for the matrix")
    return f"{before}{BEGIN}\n\n{matrix()}\n{END}{after}"


def _row(call: Call, notes: list[str]) -> str:
    marks = "".join(f" [{_noted(note, notes)}]" for note in _notes_of(call))
    cells = " | ".join(_cell(call, role) for role in ROLES)
    return f"| {call.name}{marks} | {call.operation} | {cells} |"


def _cell(call: Call, role: Role) -> str:
    if role in call.to:
        return "yes"
    more = [name for dialect, name in _DIALECTS.items() if call.granted(role, dialect)]
    return f"({', '.join(more)})" if more else "no"


def _notes_of(call: Call) -> Iterator[str]:
    for dialect, gap in call.gaps.items():
        yield f"{_DIALECTS[dialect]}: {gap.why}. Instead: {gap.instead}."
    if call.held:
        yield "Refused by the lock itself, whoever asks."


def _noted(note: str, notes: list[str]) -> int:
    """The note's number; notes that say the same are one."""
    numbered = [line.partition(". ")[2] for line in notes]
    if note not in numbered:
        notes.append(f"{len(notes) + 1}. {note}")
        numbered.append(note)
    return numbered.index(note) + 1
