"""What state the ring of people's keys is in.

What belongs here: comparing regions, marks, facts and the newest backup. What stays out: mending (deletion.py,
backup.py) and colours (components/).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_assets.vault.subjects.backup import backed_up_people, is_ours, newest, replaced_people
from dr_assets.vault.subjects.history import read_history
from dr_assets.vault.subjects.records import subject_of
from dr_assets.vault.subjects.ring import SubjectRing


@dataclass(frozen=True, slots=True)
class RingState:
    """All that is not as it should be, by subject id. Each but `soft` and `overdue` is somebody's work or an attack.

    `vanished` were in the newest backup, are in no region, and nobody decided so: what a mass deletion past the
    approvals looks like. `replaced` have another key now than then, or two: the old one's documents don't open by the
    new one. `returned` were erased for good and have a key again in a region: it was put back from a copy, and `finish`
    erases it again. `partial` lack in a region. `undecided` bear a mark without a decision.
    """

    people: int
    vanished: tuple[str, ...]
    replaced: tuple[str, ...]
    partial: tuple[str, ...]
    undecided: tuple[str, ...]
    unmarked: tuple[str, ...]
    foreign: tuple[str, ...]
    soft: tuple[str, ...]
    overdue: tuple[str, ...]
    backup_at: datetime | None
    returned: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing vanished, lacks in a region, or was written past this program."""
        lost = self.vanished or self.replaced or self.partial
        return not (lost or self.returned or self.undecided or self.unmarked or self.foreign or self.overdue)


def look(ring: SubjectRing) -> RingState:
    """Compare what each region lists with the facts and the newest backup."""
    now = ring.vault.clock()
    history = read_history(ring.vault, now - timedelta(days=1))
    decided = history.erased | frozenset(history.soft)
    keys: dict[str, set[str]] = {}
    marks: dict[str, set[str]] = {}
    live: dict[str, set[bytes]] = {}
    foreign: list[str] = []
    for shelf in ring.shelves:
        for name in shelf.names(f"{ring.estate}/"):
            subject = subject_of(name)
            data = shelf.get(name)
            if subject is None or data is None or (subject[1] == "key" and not is_ours(ring, subject[0], data)):
                foreign.append(f"{shelf.region}: {name}")
                continue
            (keys if subject[1] == "key" else marks).setdefault(subject[0], set()).add(shelf.region)
            if subject[1] == "key":
                live.setdefault(subject[0], set()).add(data)
    backup = newest(ring)
    backed_up = frozenset() if backup is None else backed_up_people(backup)
    everywhere = {shelf.region for shelf in ring.shelves}
    return RingState(
        people=len(keys.keys() - decided),
        vanished=tuple(sorted(backed_up - keys.keys() - decided)),
        replaced=tuple(sorted(replaced_people(backup, live) - decided)),
        partial=tuple(sorted(who for who, at in keys.items() if at != everywhere and who not in decided)),
        undecided=tuple(sorted(marks.keys() - decided)),
        unmarked=tuple(sorted(who for who in decided if marks.get(who, set()) != everywhere)),
        foreign=tuple(sorted(foreign)),
        soft=tuple(sorted(history.soft)),
        overdue=tuple(sorted(who for who, soft in history.soft.items() if soft.final_after + timedelta(days=2) < now)),
        backup_at=None if backup is None else backup.at,
        returned=tuple(sorted(history.erased & keys.keys())),
    )
