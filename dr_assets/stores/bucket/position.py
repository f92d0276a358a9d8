"""Where a bucket's copy stands: the newest moment of which everything is in the vault.

What belongs here: the fact `bucket_copy`, and reading it. What stays out: copying (copy.py), judging an age.

A run's recovery point is the source's clock when its listing began: what that listing showed is stored. A run that
could not read something, or that looked at single names only, repeats the point of the run before.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import Json, parse_time
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.vault import Vault

BUCKET_COPY: Final = "bucket_copy"
_REPEATED: Final = ("recovery_point_at", "recovery_manifest_key", "compared_at", "compared_complete")


@dataclass(frozen=True, slots=True)
class CopyPoint:
    """The newest word on a bucket. `at`: everything last modified before it, and then there, is stored.

    `at` is None before the first complete run. `manifest_key` names the run whose inventory says so (an earlier one
    where nothing had changed); `retain_until` is the end of its lock, None where it shows none.
    """

    at: datetime | None
    manifest_key: str | None
    fact: Fact
    retain_until: datetime | None

    def lag_s(self, now: datetime) -> float | None:
        """How much of the source's newest time is not known to be stored."""
        return None if self.at is None else max((now - self.at).total_seconds(), 0.0)


def recovery_point(vault: Vault, dataset: str, *, as_of: datetime | None = None) -> CopyPoint | None:
    """What the newest run said; None before the first. Its manifest is seen to be there.

    Raises VaultError, among others `vault.missing` where that manifest is gone.
    """
    fact = latest_fact(vault, dataset, BUCKET_COPY, as_of=as_of)
    if fact is None:
        return None
    name = fact.body.get("recovery_manifest_key")
    key = ObjectKey.parse(name) if isinstance(name, str) else None
    if key is None:
        return CopyPoint(None, None, fact, None)
    stored = vault.find(key, as_of=as_of)
    head = vault.store.head(str(key), stored.version_id or None)
    locked = None if head is None or head.lock is None else head.lock.retain_until
    return CopyPoint(parse_time(fact.body.get("recovery_point_at"), str(fact.key)), str(key), fact, locked)


def point_before(vault: Vault, dataset: str) -> dict[str, Json]:
    """What a run repeats that can't move the point forward; nothing before the first.

    `compared_at` and `compared_complete` speak of the newest whole listing: a look at single names tells nothing of it.
    """
    try:
        fact = latest_fact(vault, dataset, BUCKET_COPY)
    except VaultError as error:
        if error.code != "vault.tampered":
            raise
        return {}  # the next complete run tells it anew; verify tells of the damage
    body = {} if fact is None else fact.body
    return {name: body[name] for name in _REPEATED if name in body}
