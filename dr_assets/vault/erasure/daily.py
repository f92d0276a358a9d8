"""What has to be done for the ring of people's keys and its erasures every day, in one piece.

What belongs here: the order. What stays out: when (components/), each step (vault/subjects/, certificate.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Estate
from dr_assets.vault.erasure.certificate import issue
from dr_assets.vault.erasure.standing import ErasureStanding, Replay, standing
from dr_assets.vault.subjects.backup import BackedUp, back_up
from dr_assets.vault.subjects.deletion import Finished, finish
from dr_assets.vault.subjects.look import RingState, look
from dr_assets.vault.subjects.rewrap import Rewrapped, rewrap
from dr_assets.vault.subjects.ring import SubjectRing


@dataclass(frozen=True, slots=True)
class Daily:
    """What one day's run did, and how things stand after it. None: that step failed, and `troubles` say why."""

    backed_up: BackedUp | None
    finished: Finished | None
    rewrapped: Rewrapped | None
    certified: tuple[str, ...]
    standing: tuple[ErasureStanding, ...]
    ring: RingState
    troubles: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed and the ring is as it should be."""
        return not self.troubles and self.ring.ok


def daily(ring: SubjectRing, estate: Estate, replays: Mapping[str, Replay | None]) -> Daily:
    """Back the ring up, make final what is due, wrap anew what is wrapped by yesterday's keys, certify.

    One step that fails keeps no other from being done: a region that is away must not stop erasures in the others.
    Raises what reading the facts raises.
    """
    troubles: list[str] = []
    # First the backup: what is deleted is left out of it, and what vanished is found before anything else goes.
    backed_up = finished = rewrapped = None
    try:
        backed_up = back_up(ring)
        troubles += [f"{who}: in no region, and nobody decided so" for who in backed_up.carried]
    except DrError as error:
        troubles.append(f"backup: {error.code}: {error.found}")
    try:
        finished = finish(ring)
        troubles += [f"{region} did not answer" for region in finished.away]
        troubles += [f"{who}: erased before, and had come back" for who in finished.returned]
    except DrError as error:
        troubles.append(f"finish: {error.code}: {error.found}")
    try:
        rewrapped = rewrap(ring)
    except DrError as error:
        troubles.append(f"rewrap: {error.code}: {error.found}")
    now = ring.vault.clock()
    stand = standing(ring.vault, estate.approvals, replays, now)
    certified: list[str] = []
    for one in stand:
        wanted = one.state if one.state in {"soft", "final"} else None
        if wanted is not None and one.certified not in {wanted, "final"}:
            issue(ring, estate, one.erasure, one.unreplayed)
            certified.append(one.erasure.erasure_id)
    return Daily(backed_up, finished, rewrapped, tuple(certified), tuple(stand), look(ring), tuple(troubles))
