"""The erasure list: everybody whose erasure was decided, for whoever brings data back.

What belongs here: reading the list from every vault that answers, merging, comparing, and as a signed file. What stays
out: deciding (deletion.py), and what is done with the list in a store (stores/).

A restore that doesn't know the newest erasure would bring a person back. So the list is the union of what all reachable
regions know: facts in the vaults, and where a vault is away the marks in the buckets of the regions that answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_time
from dr_assets.vault.log.statement import open_envelope, seal_envelope
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.subjects.history import Event, SoftDeletion, fold, read_events
from dr_assets.vault.subjects.ids import require_subject_id
from dr_assets.vault.subjects.records import parse_deletion, subject_of
from dr_assets.vault.subjects.shelf import Shelf
from dr_assets.vault.vault import Vault

FILE_TYPE: Final = "application/vnd.dr-assets.erasure-list+json"
FILE_LIMIT_BYTES: Final = 256 << 20
_DECIDING: Final = frozenset({"deleting", "restored"})
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ErasureList:
    """Whose erasure is decided, softly or for good. `decisions` are the names of the facts it follows from.

    `newest` and `newest_at` are those of the newest decision, None where there never was one. `sources` says where it
    was read.
    """

    people: Mapping[str, SoftDeletion]
    decisions: frozenset[str] = frozenset()
    newest: str | None = None
    newest_at: datetime | None = None
    sources: tuple[str, ...] = ()
    events: Mapping[str, Event] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.people)

    def require_newest(self, other: "ErasureList") -> None:
        """Raise PolicyError `erasure.list_stale` where `other` knows of a decision that this one doesn't."""
        lacking = other.decisions - self.decisions
        unknown = other.people.keys() - self.people.keys() if not other.decisions else set[str]()
        if lacking or unknown:
            raise PolicyError(
                "erasure.list_stale",
                f"the erasure list is of {self.newest_at or 'the beginning'} ({', '.join(self.sources) or 'nowhere'});"
                f" {', '.join(other.sources)} knows {len(lacking) or len(unknown)} newer decisions",
                "read the list anew; nobody who was erased since may come back with this restore",
            )


def of_events(events: Mapping[str, Event], sources: tuple[str, ...]) -> ErasureList:
    """The list that follows from facts of one or several vaults."""
    history = fold(events.values(), _LONG_AGO)
    deciding = {name: event for name, event in events.items() if event.event in _DECIDING}
    newest = max(deciding, default=None)
    return ErasureList(
        {**history.gone, **history.soft},
        frozenset(deciding),
        newest,
        None if newest is None else deciding[newest].at,
        sources,
        events,
    )


def read_list(vault: Vault) -> ErasureList:
    """What one vault knows. Raises VaultError: a damaged fact hides nobody's erasure."""
    return of_events(read_events(vault), (f"vault {vault.name}",))


def merge(lists: Iterable[ErasureList]) -> ErasureList:
    """What all of them know together; a fact is the same in every region."""
    events: dict[str, Event] = {}
    marked: dict[str, SoftDeletion] = {}
    sources: list[str] = []
    told: frozenset[str] = frozenset()
    for one in lists:
        events |= one.events
        told |= one.decisions
        sources += one.sources
        if not one.events:
            marked |= one.people
    merged = of_events(events, tuple(dict.fromkeys(sources)))
    known = {who: deletion for who, deletion in marked.items() if not _taken_back(events.values(), deletion)}
    newest_at = max((one.deleted_at for one in known.values()), default=None)
    people = {**known, **merged.people}
    at = max((one for one in (merged.newest_at, newest_at) if one is not None), default=None)
    return ErasureList(people, merged.decisions | told, merged.newest, at, merged.sources, events)


def read_marks(shelf: Shelf, estate: str, trust: Trust) -> ErasureList:
    """What the marks in a region's bucket say that one of ours signed: for when the vault with the facts is away."""
    found: dict[str, SoftDeletion] = {}
    for name in shelf.names(f"{estate}/"):
        subject = subject_of(name)
        data = shelf.get(name) if subject is not None and subject[1] == "deletion" else None
        if subject is None or data is None:
            continue
        try:
            mark = parse_deletion(data, estate=estate, subject_id=subject[0], trust=trust)
        except VaultError:
            continue  # a stranger's: `subjects verify` names it
        found[subject[0]] = SoftDeletion(subject[0], mark.deleted_at, mark.final_after, mark.approval, is_marked=True)
    newest_at = max((one.deleted_at for one in found.values()), default=None)
    return ErasureList(found, newest_at=newest_at, sources=(f"marks in {shelf.region}",))


def sealed(listed: ErasureList, estate: str, at: datetime, signer: Signer) -> bytes:
    """The list as a signed file, to be kept beside an air-gapped copy."""
    rows: dict[str, Json] = {
        who: {"approval": one.approval, "deleted_at": _time(one.deleted_at), "final_after": _time(one.final_after)}
        for who, one in listed.people.items()
    }
    body: dict[str, Json] = {
        "as_of": _time(at),
        "decisions": list[Json](sorted(listed.decisions)),
        "estate": estate,
        "newest_at": None if listed.newest_at is None else _time(listed.newest_at),
        "people": rows,
    }
    return seal_envelope(canonical.encode(body), FILE_TYPE, signer) + b"\n"


def open_list(data: bytes, estate: str, trust: Trust) -> ErasureList:
    """The list out of such a file. Raises VaultError `log.malformed`, `log.bad_leaf`, `vault.malformed`."""
    payload = open_envelope(data.strip(), FILE_TYPE, trust, limit_bytes=FILE_LIMIT_BYTES)
    body = canonical.decode(payload, limit_bytes=FILE_LIMIT_BYTES, what="an erasure list")
    rows, decisions = body.get("people"), body.get("decisions")
    if body.get("estate") != estate or not isinstance(rows, dict) or not isinstance(decisions, list):
        raise malformed("no erasure list of this estate")
    people: dict[str, SoftDeletion] = {}
    for who, row in rows.items():
        if not isinstance(row, dict):
            raise malformed("an erasure list with a row that is none")
        require_subject_id(who)
        deleted_at, final_after = (parse_time(row.get(name), name) for name in ("deleted_at", "final_after"))
        people[who] = SoftDeletion(who, deleted_at, final_after, str(row.get("approval")), is_marked=True)
    newest = body.get("newest_at")
    as_of = str(body.get("as_of"))
    return ErasureList(
        people,
        frozenset(str(name) for name in decisions),
        newest_at=None if newest is None else parse_time(newest, "newest_at"),
        sources=(f"the saved list of {as_of}",),
    )


def _taken_back(events: Iterable[Event], deletion: SoftDeletion) -> bool:
    """Whether a fact says that this deletion was taken back after it was made."""
    who, at = deletion.subject_id, deletion.deleted_at
    return any(one.event == "restored" and who in one.people and one.at >= at for one in events)


def _time(at: datetime) -> str:
    return canonical.format_time(at)
