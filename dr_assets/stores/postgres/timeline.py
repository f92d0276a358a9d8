"""Which timeline the source is on and how it came to that: asked of the server, sealed in the vault.

What belongs here: the history of the server's timeline, and the fact that keeps it. What stays out: reading the text
(history.py), which stream is captured next (follow.py), what a restore makes of it (lineage.py).
"""

from datetime import datetime

from dr_assets.stores.postgres.history import History, parse_history
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.protocol import ReplicationConnection, ServerRefusedError
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import Json, format_time, malformed
from dr_assets.vault.vault import Receipt, Vault

# The kind of fact with which a capture says that it is on a timeline, and how that came to be.
TIMELINE = "timeline"
_FIRST = 1
_NO_SUCH_FILE = "58P01"


def read_history(connection: ReplicationConnection, timeline: int) -> History:
    """The history of the timeline that the server is on. Raises ServerRefusedError, ConnectionLostError, VaultError."""
    if timeline == _FIRST:
        return History(timeline, (), "")
    return parse_history(timeline, connection.timeline_history(timeline))


def read_ancestor(connection: ReplicationConnection, of: History, timeline: int) -> History:
    """The history of an ancestor: the server's file, or, where that is gone, the part of `of` that says the same."""
    if timeline == of.timeline:
        return of
    try:
        return read_history(connection, timeline)
    except ServerRefusedError as error:
        if error.sqlstate != _NO_SUCH_FILE:
            raise
    lines = of.text.splitlines(keepends=True)
    own = next(index for index, line in enumerate(lines) if line.split()[:1] == [str(timeline)])
    return parse_history(timeline, "".join(lines[:own]))


def known_histories(vault: Vault, dataset: str, system_id: str) -> dict[int, History]:
    """The histories on record, by timeline; of several for one timeline the newest. Raises VaultError."""
    known: dict[int, History] = {}
    for fact in facts(vault, dataset, TIMELINE):
        timeline, text = fact.body.get("timeline"), fact.body.get("history")
        if not isinstance(timeline, int) or not isinstance(text, str):
            raise malformed(f"{fact.key}: timeline or history is missing")
        if fact.body.get("system_id") == system_id:
            known[timeline] = parse_history(timeline, text)
    return known


def record_timeline(vault: Vault, dataset: str, system_id: str, history: History, now: datetime) -> Receipt | None:
    """Seal that the capture goes on with this timeline, once each. None when that is on record. Raises VaultError."""
    known = known_histories(vault, dataset, system_id).get(history.timeline)
    if known is not None and known.switches == history.switches:
        return None
    parent, switch = history.switches[-1] if history.switches else (None, None)
    body: dict[str, Json] = {
        "system_id": system_id,
        "timeline": history.timeline,
        "parent": parent,
        "switch_lsn": None if switch is None else format_lsn(switch),
        "history": history.text,
        "followed_at": format_time(now),
    }
    return record_fact(vault, dataset, TIMELINE, body)
