"""The way from a base backup's timeline to the one that is captured now, as far as it is stored.

What belongs here: reading the sealed history of the newest timeline, and whether what leads up to each switch is there.
What stays out: the verdict (objective.py), and the whole way piece by piece (course.py), which lists a day.
"""

from collections.abc import Mapping

from dr_assets.stores.postgres.history import History, parse_history
from dr_assets.stores.postgres.objective import Stream, stream_of_base
from dr_assets.stores.postgres.timeline import TIMELINE
from dr_assets.vault.facts import Fact, facts, latest_fact
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.full_segment import FULL, FULL_LIMIT_BYTES
from dr_assets.vault.vault import Vault


def left_on_the_way(vault: Vault, dataset: str, stream: Stream, base: Fact | None) -> Mapping[int, int]:
    """Where each timeline between the base backup's and `stream`'s was left, by timeline, oldest first.

    Empty when both are of one timeline, of two systems, or when the way has a hole: a switch up to which the WAL of the
    older timeline isn't stored, or a stream that begins behind the last one. Raises VaultError.
    """
    system_id, timeline, begin = stream
    own = None if base is None else stream_of_base(base)
    if own is None or own[0] != system_id or own[1] >= timeline:
        return {}
    history = history_of(vault, dataset, system_id, timeline)
    if history is None or history.left_at(own[1]) is None:
        return {}
    left = {leg.timeline: leg.end for leg in history.legs_from(own[1]) if leg.end is not None}
    if begin > max(left.values()):
        return {}
    whole = all(_is_stored_to(vault, dataset, system_id, number, end) for number, end in left.items())
    return left if whole else {}


def history_of(vault: Vault, dataset: str, system_id: str, timeline: int) -> History | None:
    """The history that the capture sealed when it began with this timeline. Raises VaultError."""
    newest = latest_fact(vault, dataset, TIMELINE)
    found = None
    for fact in () if newest is None else (newest, *_older(vault, dataset, newest, system_id, timeline)):
        text = fact.body.get("history")
        if _is_of(fact, system_id, timeline) and isinstance(text, str):
            found = parse_history(timeline, text)
    return found


def _older(vault: Vault, dataset: str, newest: Fact, system_id: str, timeline: int) -> list[Fact]:
    """Nothing, in the ordinary case that the newest fact is the one asked for."""
    return [] if _is_of(newest, system_id, timeline) else list(facts(vault, dataset, TIMELINE))


def _is_of(fact: Fact, system_id: str, timeline: int) -> bool:
    return (fact.body.get("system_id"), fact.body.get("timeline")) == (system_id, timeline)


def _is_stored_to(vault: Vault, dataset: str, system_id: str, timeline: int, end: int) -> bool:
    """Whether some piece of the timeline reaches over `end`. That nothing is missing before it is `contiguous`'s."""
    begin = max(0, end - FULL_LIMIT_BYTES)
    for name in (WAL, FULL):
        listed = vault.objects(dataset, name, system_id=system_id, timeline=timeline, start_after_position=begin)
        if any(obj.key.first < end <= obj.key.last for obj in listed):
            return True
    return False
