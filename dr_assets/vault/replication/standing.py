"""How one vault stands in another: the newest word of a pass, as a fact of the source.

What belongs here: that fact's body, written and read. What stays out: making it (run.py), judging it (components/).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import Json, format_time, malformed, parse_time
from dr_assets.vault.format.keys import WAL, prefix_of
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.replication.remembered import Stretch, parse_stretch
from dr_assets.vault.vault import Vault

DATASET: Final = "vault"  # a route is the estate's, not one dataset's
SHOWN_UNPROVEN: Final = 100


def replication_kind(replica: str) -> str:
    """The kind of fact that speaks of this replica."""
    return f"replication-{replica}"


@dataclass(frozen=True, slots=True)
class PlaceStanding:
    """One place. `open_from`: all names up to here (without the place) are proven and settled; "" for none.

    `stored_to` and `proven_to` are positions: the end of what the source listed, and of what is proven without a hole.
    `unsettled` names are proven and were put so lately that one may still come before them.
    """

    dataset: str
    stretches: tuple[Stretch, ...] = ()
    open_from: str = ""
    stored_to: int | None = None
    proven_to: int | None = None
    unsettled: int = 0
    unproven: int = 0
    oldest_unproven_at: datetime | None = None

    @property
    def proven(self) -> int:
        """How many names are."""
        return sum(stretch.count for stretch in self.stretches) + self.unsettled


@dataclass(frozen=True, slots=True)
class Named:
    """An object that the replica can't be counted on for."""

    name: str
    why: str
    detail: str


@dataclass(frozen=True, slots=True)
class DatasetStanding:
    """Counts of names; `oldest_unproven_at` is the source's clock at that one's put."""

    objects: int
    unproven: int
    oldest_unproven_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """As a pass found it.

    `as_of` is the source's clock: what was put later is not judged; `full_at` is that of the newest pass that went
    through all names. `is_own`: our own replicator copies, not the store.
    """

    replica: str
    as_of: datetime
    full_at: datetime | None
    is_own: bool
    places: Mapping[str, PlaceStanding]
    unproven: tuple[Named, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def datasets(self) -> dict[str, DatasetStanding]:
        """Of each dataset, the log among them."""
        found: dict[str, list[PlaceStanding]] = {}
        for place in self.places.values():
            found.setdefault(place.dataset, []).append(place)
        return {name: _of(places) for name, places in sorted(found.items())}

    @property
    def unproven_count(self) -> int:
        """Names that are not proven."""
        return sum(place.unproven for place in self.places.values())

    @property
    def proven_at(self) -> datetime:
        """By the source's clock, the moment up to which everything put is proven."""
        oldest = [place.oldest_unproven_at for place in self.places.values() if place.oldest_unproven_at is not None]
        return min([*oldest, self.as_of])

    def lag(self, now: datetime, dataset: str | None = None) -> timedelta:
        """From the moment up to which all is proven to now; it grows while nobody proves anything."""
        known = None if dataset is None else self.datasets.get(dataset)
        proven_at = self.proven_at if dataset is None else (known and known.oldest_unproven_at) or self.as_of
        return max(timedelta(), now - proven_at)

    def proven_to(self, estate: str, dataset: str, system_id: str, timeline: int, *, full: bool) -> int | None:
        """The position up to which WAL of this stream is proven without a hole, in full or micro-segments."""
        place = self.places.get(prefix_of(estate, dataset, FULL if full else WAL, system_id, timeline))
        return None if place is None else place.proven_to

    def to_json(self) -> dict[str, Json]:
        """The fact's body."""
        return {
            "replica": self.replica,
            "as_of": format_time(self.as_of),
            "full_at": _time(self.full_at),
            "own": self.is_own,
            "counts": dict(self.counts),
            "datasets": {name: _dataset_json(found) for name, found in self.datasets.items()},
            "unproven": [{"name": each.name, "why": each.why, "detail": each.detail} for each in self.unproven],
            "places": {prefix: _place_json(place) for prefix, place in sorted(self.places.items())},
        }


def standing(vault: Vault, replica: str, *, as_of: datetime | None = None) -> Standing | None:
    """What the newest pass said of this replica; None if none ever did. Raises VaultError as `latest_fact` does."""
    fact = latest_fact(vault, DATASET, replication_kind(replica), as_of=as_of)
    return None if fact is None else standing_of(fact)


def standing_of(fact: Fact) -> Standing:
    """The standing that a fact tells; raises VaultError `vault.malformed`."""
    body, name = fact.body, str(fact.key)
    places, unproven, counts = body.get("places"), body.get("unproven"), body.get("counts")
    if not isinstance(places, dict) or not isinstance(unproven, list) or not isinstance(counts, dict):
        raise malformed(f"{name}: no standing of a replica")
    full_at = body.get("full_at")
    return Standing(
        replica=str(body.get("replica")),
        as_of=parse_time(body.get("as_of"), f"{name}: as_of"),
        full_at=None if full_at is None else parse_time(full_at, f"{name}: full_at"),
        is_own=body.get("own") is True,
        places={prefix: _place(raw, name) for prefix, raw in places.items()},
        unproven=tuple(
            Named(str(each.get("name")), str(each.get("why")), str(each.get("detail")))
            for each in unproven
            if isinstance(each, dict)
        ),
        counts={key: value for key, value in counts.items() if isinstance(value, int)},
    )


def _of(places: list[PlaceStanding]) -> DatasetStanding:
    unproven = sum(place.unproven for place in places)
    oldest = [place.oldest_unproven_at for place in places if place.oldest_unproven_at is not None]
    return DatasetStanding(sum(place.proven for place in places) + unproven, unproven, min(oldest, default=None))


def _dataset_json(found: DatasetStanding) -> Json:
    return {
        "objects": found.objects,
        "unproven": found.unproven,
        "oldest_unproven_at": _time(found.oldest_unproven_at),
    }


def _place_json(place: PlaceStanding) -> Json:
    return {
        "dataset": place.dataset,
        "stretches": [stretch.to_json() for stretch in place.stretches],
        "open_from": place.open_from,
        "stored_to": _position(place.stored_to),
        "proven_to": _position(place.proven_to),
        "unsettled": place.unsettled,
        "unproven": place.unproven,
        "oldest_unproven_at": _time(place.oldest_unproven_at),
    }


def _place(raw: Json, name: str) -> PlaceStanding:
    stretches = raw.get("stretches") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(stretches, list):
        raise malformed(f"{name}: no standing of a place")
    oldest = raw.get("oldest_unproven_at")
    return PlaceStanding(
        dataset=str(raw.get("dataset")),
        stretches=tuple(parse_stretch(each, name=name) for each in stretches),
        open_from=str(raw.get("open_from") or ""),
        stored_to=_parse_position(raw.get("stored_to"), name),
        proven_to=_parse_position(raw.get("proven_to"), name),
        unsettled=_count(raw.get("unsettled"), name),
        unproven=_count(raw.get("unproven"), name),
        oldest_unproven_at=None if oldest is None else parse_time(oldest, name),
    )


def _count(raw: Json, name: str) -> int:
    if not isinstance(raw, int):
        raise malformed(f"{name}: a count is no number")
    return raw


def _position(position: int | None) -> Json:
    return None if position is None else f"{position:016X}"


def _parse_position(raw: Json, name: str) -> int | None:
    if raw is None:
        return None
    try:
        return int(str(raw), 16)
    except ValueError:
        raise malformed(f"{name}: {raw!r} is no position") from None


def _time(at: datetime | None) -> Json:
    return None if at is None else format_time(at)
