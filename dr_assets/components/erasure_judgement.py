"""Whether the erasures of a bucket's people hold: the verdict, from facts.

What belongs here: the pure rule, and reading what a restore test showed. What stays out: how far each erasure is
(vault/erasure/standing.py).
"""

from collections.abc import Sequence
from datetime import datetime

from dr_assets.components.judgements import Judgement, Value, proof_window
from dr_assets.estate.model import BucketDataset
from dr_assets.proving.attempt import RESTORE_TEST
from dr_assets.vault.erasure.standing import ErasureStanding, Replay
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.vault import Vault


def bucket_replay(vault: Vault, dataset: BucketDataset) -> Replay | None:
    """The newest restore test as a replay of the list: up to which erasure it knew, who came back all the same."""
    fact = latest_fact(vault, dataset.name, RESTORE_TEST)
    if fact is None or "erasures_newest_at" not in fact.body:
        return None
    newest_at, foreign = fact.body["erasures_newest_at"], fact.body.get("foreign")
    at = None if newest_at is None else parse_time(newest_at, f"{fact.key}: erasures_newest_at")
    return Replay(at, foreign if isinstance(foreign, int) else 0)


def judge_erasures(dataset: BucketDataset, found: Sequence[ErasureStanding], now: datetime) -> Judgement:
    """Red for an erasure that is overdue, or that no restore test has shown to hold for longer than one is due."""
    states = [one.state for one in found]
    values: dict[str, Value] = {f"erasures_{state}": states.count(state) for state in ("requested", "soft", "final")}
    values |= {"erasures_overdue": states.count("overdue"), "people": sum(len(one.erasure.subjects) for one in found)}
    overdue = [one.erasure.erasure_id for one in found if one.state == "overdue"]
    back = [one.erasure.erasure_id for one in found if dataset.name in one.still_known]
    open_ = [one for one in found if dataset.name in one.unreplayed and one.decided_at is not None]
    late = [one.erasure.erasure_id for one in open_ if one.decided_at and now - one.decided_at > proof_window(dataset)]
    values |= {"unproven": len(open_)}
    if overdue:
        return _red(f"{len(overdue)} erasure(s) are overdue, first {overdue[0]}: `dr-assets erasure daily`", values)
    if back:
        return _red(f"documents came back that should not, since {back[0]}: `dr-assets vault verify`", values)
    if late:
        return _red(f"no restore test since {late[0]} has shown that nobody erased comes back", values)
    told = f", {len(open_)} of them to be proven by the next restore test" if open_ else ""
    return Judgement(
        passed=True, reason=f"{states.count('soft') + states.count('final')} erasures hold{told}", values=values
    )


def _red(reason: str, values: dict[str, Value]) -> Judgement:
    return Judgement(passed=False, reason=reason, values=values)
