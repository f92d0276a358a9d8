"""Expiry: removing what no kept recovery point needs and whose lock is over, on record before and after.

What belongs here: the order (list, word, removal, word), and that it may be killed anywhere. What stays out: choosing
(expiry_plan.py).

The expirer is a role of its own and the only one that deletes: by version id, never with a bypass, and it can do
nothing else: lists and words are the writer's. Where the estate declares approvals, m of n people have signed the list.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from typing import Final

from dr_assets.stores.postgres.expire_consent import APPROVED_LIMIT, Consent, agreed, remove_versions
from dr_assets.stores.postgres.expiry_plan import LIMIT, ExpiryPlan, Planner
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST, Doomed, to_json
from dr_assets.vault.facts import SYSTEM_ID, latest_fact, record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.prefix import format_position
from dr_assets.vault.retention import MICRO_LOCK
from dr_assets.vault.retention.holds import holds_in_force
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.vault import Vault

_WORKERS: Final = 16
_TOLD_REFUSALS: Final = 100
_CHUNK: Final = 2000  # removed between two looks for a hold that was placed meanwhile
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Listener = Callable[[str, int, int], None]


@dataclass(slots=True)
class Expiry:
    """What a run removed. `refused` are names that were kept, with why: somebody extended their lock, or held them."""

    dataset: str
    removed: int = 0
    size_bytes: int = 0
    lists: int = 0
    refused: list[str] = field(default_factory=list)
    last: ExpiryPlan | None = None

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "dataset": self.dataset,
            "removed": self.removed,
            "size_bytes": self.size_bytes,
            "lists": self.lists,
            "refused": list[Json](self.refused),
            "troubles": [] if self.last is None else list[Json](self.last.troubles),
        }


def plan_expiry(vault: Vault, dataset: str, *, limit: int = LIMIT, planner: type[Planner] = Planner) -> ExpiryPlan:
    """What the next list would name; changes nothing. Raises VaultError when the store can't be read."""
    return planner(vault, dataset, limit=limit).plan()


def expire(
    vault: Vault,
    dataset: str,
    *,
    limit: int = LIMIT,
    micro_age: timedelta = MICRO_LOCK,
    listener: Listener | None = None,
    remover: ObjectStore | None = None,
    consent: Consent | None = None,
    planner: type[Planner] = Planner,
) -> Expiry:
    """Remove all that may go, a list of at most `limit` names at a time; then take an inventory of what is left.

    May be killed anywhere and run again: what one run leaves, the next one plans anew. `listener` is told stage, done
    and total. `remover` is the same bucket with the expirer's keys. With `consent` exactly the approved list goes, or
    nothing. `planner` chooses, by the rules of the dataset's kind. Raises VaultError: what the store refuses for
    another reason than a lock, `vault.clock_skew`; PolicyError `approvals.…`.
    """
    vault.check_clock()
    done = Expiry(dataset)
    close_open_list(vault, dataset)
    removal = _Removal(vault, remover or vault.store, dataset, listener, done)
    if consent is not None:
        plan = done.last = planner(vault, dataset, limit=APPROVED_LIMIT, micro_age=micro_age).plan()
        rows = agreed(vault, plan, consent)
        removal.work_off(rows, plan, approval=consent.use())
        record_inventory(vault, dataset)
        return done
    chooser = planner(vault, dataset, limit=limit, micro_age=micro_age)
    refused: set[str] = set()
    while True:
        plan = done.last = chooser.plan()
        rows = [row for row in plan.rows if str(row.key) not in refused]
        if not rows:
            break
        refused |= removal.work_off(rows, plan)
    if done.removed:
        record_inventory(vault, dataset)
    return done


def close_open_list(vault: Vault, dataset: str) -> None:
    """A list that a kill left open is closed: what is left of it is planned anew, by the policy of today."""
    newest = latest_fact(vault, dataset, EXPIRY)
    if newest is not None and newest.body.get("event") == "begun":
        body: dict[str, Json] = {"event": "done", "list": newest.body.get("list"), "interrupted": True}
        if "begins" in newest.body:
            body["begins"] = newest.body["begins"]
        record_fact(vault, dataset, EXPIRY, body)


@dataclass(frozen=True, slots=True)
class _Removal:
    """One run's way of removing."""

    vault: Vault
    remover: ObjectStore
    dataset: str
    listener: Listener | None
    done: Expiry

    def work_off(self, rows: Sequence[Doomed], plan: ExpiryPlan, *, approval: str | None = None) -> set[str]:
        """Seal the list and the word, remove, seal the word; returns the names that the store kept."""
        vault, done = self.vault, self.done
        size_bytes = sum(row.size_bytes for row in rows)
        common: dict[str, Json] = {
            "list": _seal_list(vault, self.dataset, rows),
            "objects": len(rows),
            "size_bytes": size_bytes,
            "window_begin": format_time(plan.window_begin),
            "stages": _stages(rows),
            **({} if approval is None else {"approval": approval}),
            **({} if not plan.begins else {"begins": {at: format_position(one) for at, one in plan.begins.items()}}),
        }
        record_fact(vault, self.dataset, EXPIRY, {"event": "begun", **common})
        refusals = self._remove(rows, plan.hold_ids)
        kept = list(refusals)
        told: dict[str, Json] = {
            "removed": len(rows) - len(kept),
            "refused_total": len(kept),
            "refused": list[Json](name.rpartition("/")[2] for name in kept[:_TOLD_REFUSALS]),
        }
        record_fact(vault, self.dataset, EXPIRY, {"event": "done", **common, **told})
        done.lists += 1
        done.removed += len(rows) - len(kept)
        done.size_bytes += sum(row.size_bytes for row in rows if str(row.key) not in refusals)
        done.refused += [f"{name}: {why}" for name, why in refusals.items()]
        return set(kept)

    def _remove(self, rows: Sequence[Doomed], known_holds: frozenset[str]) -> dict[str, str]:
        """Stage by stage, each begun once the one before is done; the names that were kept, with why.

        Nothing goes any more once a legal hold is placed that the plan did not know: a list is worked off for minutes.
        """
        refusals: dict[str, str] = {}
        finished = 0
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="expire") as pool:
            for stage, of_stage in groupby(rows, key=lambda row: row.stage):
                while listed := list(islice(of_stage, _CHUNK)):
                    reasons = self._reasons(pool, listed, known_holds)
                    for row, why in zip(listed, reasons, strict=True):
                        finished += 1
                        if why is not None:
                            refusals[str(row.key)] = why
                        if self.listener is not None:
                            self.listener(stage, finished, len(rows))
        return refusals

    def _reasons(
        self, pool: ThreadPoolExecutor, listed: Sequence[Doomed], known_holds: frozenset[str]
    ) -> Iterable[str | None]:
        for hold in holds_in_force(self.vault, self.dataset):
            if hold.hold_id not in known_holds:
                return [f"legal hold {hold.hold_id} was placed meanwhile"] * len(listed)
        return pool.map(lambda row: remove_versions(self.vault, self.remover, row), listed)


def _stages(rows: Sequence[Doomed]) -> dict[str, Json]:
    counted = Counter(row.stage for row in rows)
    return dict(counted)


def _seal_list(vault: Vault, dataset: str, rows: Sequence[Doomed]) -> str:
    now = vault.clock()
    first = (now - _EPOCH) // timedelta(microseconds=1)
    prepared = vault.prepare(
        dataset=dataset, stream=EXPIRY_LIST, kind="manifest", system_id=SYSTEM_ID, timeline=0, first=first,
        last=first + 1, begin_at=now, end_at=now, plaintext=canonical.encode(to_json(rows)),
    )  # fmt: skip
    return str(vault.put(prepared.seal(), vault.locks.lock(dataset, "manifest", now)).key)


def describe(plan: ExpiryPlan) -> Iterable[tuple[str, int, int]]:
    """Why, how many, how many stored bytes; in the order of the work."""
    return ((stage, count, size_bytes) for stage, (count, size_bytes) in plan.by_stage().items())
