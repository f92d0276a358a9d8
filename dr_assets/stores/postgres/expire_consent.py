"""What people agreed to have removed, against what may be removed now.

What belongs here: that an approved list is worked off whole and exactly, or not at all; and telling a lock from a
missing right where the expirer may not look. What stays out: signatures and the record of them (vault/approvals/).

An approval never widens what may go: the plan of today is made first, and whatever was approved and isn't in it, since
it is locked, held, needed again or gone, refuses the whole list.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.expiry_plan import ExpiryPlan
from dr_assets.vault.approvals.papers import list_changed
from dr_assets.vault.expiry_list import Doomed, line_of
from dr_assets.vault.storage import Head, ObjectStore
from dr_assets.vault.vault import Vault

ACTION: Final = "expire"
APPROVED_LIMIT: Final = 200_000  # names of a plan: an approved list must not drop out because others grew old meanwhile
_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class Consent:
    """An approved list, as lines; `use` uses the approval up, on record, and returns its id. Raises PolicyError."""

    lines: Sequence[str]
    use: Callable[[], str]


def agreed(vault: Vault, plan: ExpiryPlan, consent: Consent) -> list[Doomed]:
    """The approved rows, in the plan's order, once all of them may go.

    Raises PolicyError `approvals.still_locked`, `approvals.list_changed`.
    """
    approved = set(consent.lines)
    rows = [row for row in plan.rows if line_of(row) in approved]
    absent = sorted(approved - {line_of(row) for row in rows})
    if not absent and len(approved) == len(consent.lines):
        return rows
    locked = [line for line in absent if _is_locked(vault, line)]
    if locked:
        raise PolicyError(
            "approvals.still_locked",
            f"{len(locked)} of the approved objects are within their retention or under a hold: {_told(locked)}",
            "no approval removes what a lock holds; ask for approval of the rest: `dr-assets approvals request`",
        )
    raise list_changed(f"{len(absent)} of the approved objects are needed again, changed or gone: {_told(absent)}")


def remove_versions(vault: Vault, remover: ObjectStore, row: Doomed) -> str | None:
    """Delete every version of a row, the sealed one first; why the store kept it, None if it is gone.

    `remover` may have the rights of an expirer only, so `vault` looks where it was refused. Raises VaultError.
    """
    name = str(row.key)
    for version_id in row.versions:
        try:
            remover.delete_version(name, version_id)
        except VaultError as error:
            if error.code == "vault.lock_refused":
                return error.found
            if error.code != "vault.refused_credentials" or not _holds(vault, vault.store.head(name, version_id)):
                raise
            return f"{name}: the store does not delete a locked version"
    return None


def _is_locked(vault: Vault, line: str) -> bool:
    name, *versions = line.split(" ")
    return any(_holds(vault, vault.store.head(name, version_id or None)) for version_id in versions)


def _holds(vault: Vault, head: Head | None) -> bool:
    if head is None:
        return False
    return head.held or (head.lock is not None and head.lock.retain_until > vault.store.recent_now())


def _told(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _TOLD} more" if len(lines) > _TOLD else ""
    return ", ".join(line.split(" ")[0] for line in lines[:_TOLD]) + more
