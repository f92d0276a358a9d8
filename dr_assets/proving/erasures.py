"""What a restore of a database or of topics has to erase, from the estate and the environment; and that it did.

What belongs here: putting list, key of subject ids and the contract's rules together, and the record. What stays out:
reading the list (vault/subjects/), erasing (stores/postgres/erase.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate, PostgresDataset, TopicsDataset
from dr_assets.proving.record import plain
from dr_assets.reconciliation.contract import load_contract
from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.stores.postgres.restore import Restored
from dr_assets.vault.erasure.standing import Replay
from dr_assets.vault.facts import Fact, latest_fact, record_fact
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.subjects.connect import subject_ids
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.subjects.gather import gather
from dr_assets.vault.vault import Receipt, Vault

REPLAYED: Final = "erasure_replayed"


@dataclass(frozen=True, slots=True)
class Bringing:
    """How the list is come by: a bundle is restored from (`is_copy`), a list was `saved`, or its age is accepted."""

    is_copy: bool = False
    saved: Path | None = None
    accept_copy: bool = False


def erasures_for(
    estate: Estate, dataset: PostgresDataset, vault: Vault, env: Mapping[str, str], bringing: Bringing | None = None
) -> Erasures:
    """The erasures that a restore of `dataset` from `vault` must apply. Raises as `gather` and `load_contract` do."""
    way = bringing or Bringing()
    listed = gather(estate, vault, env, is_copy=way.is_copy, saved=way.saved, accept_copy=way.accept_copy)
    if not listed.people:
        return Erasures(listed, None, None)
    return erasures_of(estate, dataset, listed, env)


def erasures_of(estate: Estate, dataset: PostgresDataset, listed: ErasureList, env: Mapping[str, str]) -> Erasures:
    """The same with a list that was read already."""
    rules = load_contract(dataset.restore_test.contract).erase
    try:
        ids = None if rules is None or rules.nobody else subject_ids(estate, env)
    except PolicyError as error:
        if error.code != "subjects.undeclared":  # a list without a declared ring: restore says what it lacks
            raise
        ids = None
    return Erasures(listed, ids, rules)


def record_replayed(vault: Vault, restored: Restored, *, purpose: str) -> Receipt | None:
    """Seal the fact that the erasures were applied; None where there are none."""
    body = replayed_body(restored, purpose=purpose)
    return None if body is None else record_fact(vault, restored.plan.dataset, REPLAYED, plain(body))


def replayed_body(restored: Restored, *, purpose: str) -> dict[str, object] | None:
    """What was done: the newest erasure that was applied, how many people the database knew, what the server said.

    `known_after` counts those whom the data still knew though it is younger than their erasure: the source itself was
    never told to forget them.
    """
    done, applied = restored.erased, restored.erasures
    if done is None or applied is None or not applied.listed.people:
        return None
    listed = applied.listed
    return {
        "purpose": purpose,
        "target": str(restored.plan.target),
        "recovered_at": restored.recovered_at,
        "erasures": done.erasures,
        "newest": listed.newest,
        "newest_at": listed.newest_at,
        "sources": list(listed.sources),
        "found": done.found,
        "known_after": _known_after(restored.recovered_at, listed, done.subject_ids),
        "done": list(done.done),
        "tables": list(done.tables),
        "duration_s": done.duration_s,
    }


def _known_after(recovered_at: datetime | None, listed: ErasureList, found: tuple[str, ...]) -> int:
    if recovered_at is None:
        return 0
    return sum(listed.people[who].deleted_at < recovered_at for who in found)


def replays(estate: Estate, vaults: Mapping[str, Vault]) -> dict[str, Replay | None]:
    """Each dataset that has to leave erased people out of its restores, with the newest restore that did.

    `vaults` by the vaults' names. Left out are datasets whose contract says that they hold nobody's data.
    """
    found: dict[str, Replay | None] = {}
    for name, topics in estate.topics().items():
        if topics.erase_key is not None:
            fact = latest_fact(vaults[topics.vault], name, REPLAYED)
            found[name] = None if fact is None else _replay(fact)
    for name, dataset in estate.postgres().items():
        rules = load_contract(dataset.restore_test.contract).erase
        if rules is not None and rules.nobody:
            continue
        fact = latest_fact(vaults[dataset.vault], name, REPLAYED)
        found[name] = None if fact is None else _replay(fact)
    return found


def _replay(fact: Fact) -> Replay:
    newest_at, known_after = fact.body.get("newest_at"), fact.body.get("known_after")
    at = None if newest_at is None else parse_time(newest_at, f"{fact.key}: newest_at")
    return Replay(at, known_after if isinstance(known_after, int) else 0)


def topic_eraser(
    estate: Estate, dataset: TopicsDataset, vault: Vault, env: Mapping[str, str], bringing: Bringing | None = None
) -> TopicEraser | None:
    """What takes erased people's words out of a restore of topics; None where nobody is erased, or nothing is declared.

    Raises as `gather` does.
    """
    if dataset.erase_key is None:
        return None
    way = bringing or Bringing()
    listed = gather(estate, vault, env, is_copy=way.is_copy, saved=way.saved, accept_copy=way.accept_copy)
    return TopicEraser(dataset.erase_key, listed, subject_ids(estate, env)) if listed.people else None


def record_blanked(vault: Vault, dataset: str, eraser: TopicEraser | None, *, purpose: str) -> Receipt | None:
    """Seal the fact that the erasures were applied to topics; None where there was nothing to apply."""
    if eraser is None:
        return None
    listed, done = eraser.listed, eraser.blanked
    body = {
        "purpose": purpose,
        "erasures": len(listed),
        "newest": listed.newest,
        "newest_at": listed.newest_at,
        "sources": list(listed.sources),
        "found": len(done.people),
        "records": done.records,
        "known_after": 0,
    }
    return record_fact(vault, dataset, REPLAYED, plain(body))
