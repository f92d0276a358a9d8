"""How long each kind of object is locked, and the limits on that.

What belongs here: the rules of DESIGN §4 as pure functions. What stays out: storage, deciding to extend, and judging
a lock that was read back (judged.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Estate
from dr_assets.estate.regimes import LOCK_CAP, SLACK
from dr_assets.vault.storage import Lock, LockMode

Kind = Literal["wal", "part", "manifest", "fact", "key", "micro", "full", "incremental", "log", "ring", "pack"]

MICRO_LOCK: Final = timedelta(days=14)
KEY_MARGIN: Final = timedelta(days=365)
ERASURE_GRACE: Final = timedelta(days=30)
CLOCK_SKEW_LIMIT: Final = timedelta(seconds=5)

_MODES: Final[dict[str, LockMode]] = {"compliance": "COMPLIANCE", "governance": "GOVERNANCE"}


class RetentionRule(Protocol):
    """What of `estate.model.Retention` matters here."""

    @property
    def lock(self) -> Literal["compliance", "governance"]:
        """The mode, as declared."""
        ...

    @property
    def lock_days(self) -> int | None:
        """Days every recovery point is locked; None means the retention's days."""
        ...

    @property
    def days(self) -> int:
        """Days every recovery point is kept."""
        ...


def lock_length(kind: Kind, retention: RetentionRule, snapshot_every: timedelta) -> timedelta:
    """How long an object of `kind` is locked from the moment it is sealed (DESIGN §4).

    A recovery point stays reachable for the retention's days. What carries it (base backup, manifest, WAL, fact) is
    needed until the newest point that depends on it leaves the retention: one interval of new beginnings later
    (`Dataset.base_every`: base backups, exports of compacted topics, inventories), plus a week of failed ones. A data
    key opens all of them, so it gets twice that and a year, and is extended at half of it.
    `micro` is for segments that a full segment will replace, as long as a roller is at work (docs/decisions/0070).
    `full` is for the parts and the manifest of a full base backup that incrementals will follow: the last of them may
    be taken one interval later, and is worth nothing without it. `incremental` and `log` (what lies under
    `{estate}/log/`) have the lock of a manifest.
    """
    days = retention.days if retention.lock_days is None else max(retention.days, retention.lock_days)
    full = timedelta(days=days) + (2 if kind == "full" else 1) * snapshot_every + SLACK
    if kind == "micro":
        return MICRO_LOCK
    if kind == "ring":
        return ERASURE_GRACE
    if full > LOCK_CAP:
        raise PolicyError(
            "vault.lock_too_long",
            f"a lock of {full.days} days is asked for, at most {LOCK_CAP.days} are allowed",
            "shorten `retention.days` or `retention.lock_days` of the dataset",
        )
    if kind == "key":
        return min(2 * full + KEY_MARGIN, 2 * LOCK_CAP)
    return max(full, MICRO_LOCK)


def lock_for(kind: Kind, retention: RetentionRule, snapshot_every: timedelta, now: datetime) -> Lock:
    """The lock to put on an object of `kind` that is sealed at `now`, to whole seconds (stores keep no more)."""
    return Lock(_MODES[retention.lock], _whole(now + lock_length(kind, retention, snapshot_every)))


def _whole(until: datetime) -> datetime:
    """The next whole second."""
    return (until + timedelta(seconds=1)).replace(microsecond=0)


def check_skew(store_now: datetime, before: datetime, after: datetime) -> None:
    """Refuse to lock by a clock that is more than 5 s off the store's; raises VaultError `vault.clock_skew`.

    `store_now` (whole seconds) was answered between our `before` and `after`: only what lies outside is skew.
    """
    early = before - CLOCK_SKEW_LIMIT - timedelta(seconds=1)
    if early <= store_now <= after + CLOCK_SKEW_LIMIT:
        return
    raise VaultError(
        "vault.clock_skew",
        f"the store says {store_now:%Y-%m-%dT%H:%M:%SZ}, this host {after:%Y-%m-%dT%H:%M:%SZ}: more than 5 s apart",
        "synchronise the clocks (NTP); retention locks are set by them",
    )


@dataclass(frozen=True, slots=True)
class LockRules:
    """Each dataset's rule; what no dataset declares (facts of the whole estate) gets the longest of them."""

    rules: Mapping[str, tuple[RetentionRule, timedelta]]
    erasure_grace: timedelta = ERASURE_GRACE

    @classmethod
    def of(cls, estate: Estate) -> "LockRules":
        """The rules that the estate declares."""
        rules = {name: (dataset.retention, dataset.base_every) for name, dataset in estate.datasets.items()}
        return cls(rules, ERASURE_GRACE if estate.subjects is None else estate.subjects.erasure_grace)

    def length(self, dataset: str, kind: Kind) -> timedelta:
        """How long an object of this kind must be locked; `ring` (backups of people's keys): exactly the grace."""
        if kind == "ring":
            return self.erasure_grace
        return lock_length(kind, *self._rule(dataset))

    def lock(self, dataset: str, kind: Kind, now: datetime) -> Lock:
        """The lock for an object that is sealed at `now`."""
        rule = self._rule(dataset)
        if kind == "ring":
            return Lock(_MODES[rule[0].lock], _whole(now + self.erasure_grace))
        return lock_for(kind, *rule, now)

    def kept_for(self, dataset: str) -> timedelta:
        """How long every recovery point of the dataset must stay reachable."""
        return timedelta(days=self._rule(dataset)[0].days)

    def _rule(self, dataset: str) -> tuple[RetentionRule, timedelta]:
        if dataset in self.rules:
            return self.rules[dataset]
        if not self.rules:
            raise PolicyError("vault.no_retention", "the estate declares no dataset", "declare one in defs/*/defs.yaml")
        return max(self.rules.values(), key=lambda rule: lock_length("manifest", *rule))
