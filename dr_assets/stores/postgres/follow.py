"""Which stream a capture goes on with, on a server whose timeline is another than the one that was captured last.

What belongs here: finding the next stream in the vault and the server's history; refusing a server on a side that the
capture has left, or never was on. What stays out: joining that stream (resume.py), streaming it.

A promotion leaves timeline a at position X for timeline b. The stream of a is captured up to X, which the promoted
server still serves, then the stream of b begins at exactly X with a chain of its own. What the vault holds of a beyond
X was abandoned (diverged.py).
"""

from dataclasses import dataclass

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.capture_facts import Anchor, latest_anchor
from dr_assets.stores.postgres.history import History
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.protocol import SystemIdentity
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT, StoredEnd, find_stored_end, older_timeline
from dr_assets.stores.postgres.timeline import known_histories
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.vault import StoredObject, Vault

_LOOK_BACK_BYTES = 16 << 20


class ForkedError(SourceError):
    """The server's history doesn't contain what was captured (`source.forked`). `stored` is where that ends."""

    def __init__(self, anchor: Anchor, history: History) -> None:
        ways = ", ".join(f"timeline {number} to {format_lsn(position)}" for number, position in history.switches)
        super().__init__(
            "source.forked",
            f"timeline {history.timeline} of the source (by way of {ways or 'nothing'}) does not come from timeline "
            f"{anchor.timeline} as it was captured up to {format_lsn(anchor.stored)}",
            "two servers were promoted, or one was set back; find out which side is the true one. To protect this one, "
            "start the capture with --accept-gap and take a base backup at once",
        )
        self.anchor = anchor


@dataclass(frozen=True, slots=True)
class Stream:
    """What to capture next. `identity.timeline` is the stream's; its `flushed_lsn` ends what the server has of it.

    `end` is None when nothing of the server's history was ever captured. `is_current`: the server writes to it.
    """

    identity: SystemIdentity
    end: StoredEnd | None
    is_current: bool


def require_side(vault: Vault, dataset: str, server: SystemIdentity, history: History) -> None:
    """Refuse a server whose history isn't the one that was captured last.

    Raises SourceError: `source.older_timeline` for a side that was left, ForkedError for one that never was ours.
    """
    anchor = latest_anchor(vault, dataset)
    if anchor is None or anchor.system_id != server.system_id:
        return
    if anchor.timeline > server.timeline:
        raise older_timeline(server, anchor.timeline)
    own = known_histories(vault, dataset, server.system_id).get(anchor.timeline)
    came_by = history.switches
    if anchor.timeline != server.timeline:
        if history.left_at(anchor.timeline) is None:
            raise ForkedError(anchor, history)
        came_by = tuple(switch for switch in came_by if switch[0] < anchor.timeline)
    if own is not None and own.switches != came_by:
        raise ForkedError(anchor, history)


def find_stream(vault: Vault, dataset: str, server: SystemIdentity, history: History) -> Stream:
    """The newest stream of the server's history that is stored, or the one behind it where that is complete.

    Raises VaultError.
    """
    legs = history.legs_from(0)
    for index in reversed(range(len(legs))):
        end = find_stored_end(vault, dataset, _identity(server, legs[index].timeline, legs[index].end))
        left = legs[index].end
        if end is None:
            continue
        if left is not None and end.end >= left:
            end = _switched(vault, dataset, _identity(server, legs[index].timeline, left), end, left)
            index += 1  # noqa: PLW2901 - the loop ends here
        leg = legs[index]
        return Stream(_identity(server, leg.timeline, leg.end), end, is_current=leg.end is None)
    return Stream(server, None, is_current=True)


def stream_at(server: SystemIdentity, history: History, position: int) -> SystemIdentity:
    """The timeline of the server's history that `position` lies on."""
    leg = next(leg for leg in history.legs_from(0) if leg.end is None or position < leg.end)
    return _identity(server, leg.timeline, leg.end)


def pieces_around(vault: Vault, dataset: str, identity: SystemIdentity, begin: int, end: int) -> list[StoredObject]:
    """The chain's pieces of one stream from a little before `begin` on, those that hold anything before `end`."""
    start = max(0, begin - _LOOK_BACK_BYTES)
    objects = list(
        vault.objects(
            dataset, WAL, system_id=identity.system_id, timeline=identity.timeline, start_after_position=start
        )
    )
    first = min((obj.key.first for obj in objects), default=start)
    chain = resolve(objects, vault.header, max(start, first))
    return [obj for obj in chain.segments if obj.key.first < end]


def _identity(server: SystemIdentity, timeline: int, end: int | None) -> SystemIdentity:
    return SystemIdentity(server.system_id, timeline, server.flushed_lsn if end is None else end)


def _switched(vault: Vault, dataset: str, identity: SystemIdentity, end: StoredEnd, switch: int) -> StoredEnd:
    """The empty stream that begins at `switch`: it is dated and held by what was captured before that."""
    segment, at = end.segment, end.recovery_point_at
    if end.end > switch:
        segment, at = None, None
        for obj in pieces_around(vault, dataset, identity, switch, switch):
            segment = str(obj.key)
            said = vault.header(obj).extra.get(RECOVERY_POINT_AT) if obj.key.last <= switch else None
            at = at if said is None else parse_time(said, f"{obj.key}: recovery point")
    return StoredEnd(switch, switch, None, segment, end.writer_epoch, at)
