"""Batches: what a sequencer is about to append, signed and written once before any tile is.

What belongs here: a batch's bytes. What stays out: choosing what goes into one (feed.py), appending it (sequencer.py).

A batch is named after the size that the tree has before it. Whoever writes `batch/{base}` first has decided what comes
next; everybody else, and everybody who comes after a crash, can only carry out the same. Its lists hold the names
behind each leaf that speaks of many, so that each name can be shown to be a member.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time, parse_hex, parse_time
from dr_assets.vault.inventory import digest_of
from dr_assets.vault.log.checkpoint import malformed
from dr_assets.vault.log.statement import open_envelope, seal_envelope
from dr_assets.vault.signing import Signer, Trust

BATCH_TYPE: Final = "application/vnd.dr-assets.log-batch+json"
BATCH_LIMIT_BYTES: Final = 128 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a place was read: `begin` is the position to list from, `seen` digests from there on that are logged."""

    begin: int = 0
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Names:
    """The names behind leaf `index`: `tails` follow `place`, in text order."""

    index: int
    place: str
    tails: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Whole names."""
        return tuple(self.place + tail for tail in self.tails)

    @property
    def sha256(self) -> str:
        """What the leaf says of them: SHA-256 over the names, each with a line feed behind it."""
        return digest_of(self.texts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Leaves that follow a tree of `base` leaves with `base_root`.

    `looked_at` is the store's clock when the vault was listed for it; `caught_up` that nothing was left over then.
    `swept_at` is when everything was last compared with everything logged. `marks` are by place, `closed` by dataset
    the last part stream that is not listed any more.
    """

    origin: str
    base: int
    base_root: bytes
    looked_at: datetime
    caught_up: bool
    leaves: tuple[bytes, ...]
    lists: tuple[Names, ...] = ()
    marks: Mapping[str, Mark] = field(default_factory=dict)
    closed: Mapping[str, str] = field(default_factory=dict)
    swept_at: datetime | None = None

    @property
    def size(self) -> int:
        """The tree's size after it."""
        return self.base + len(self.leaves)

    def sealed(self, signer: Signer) -> bytes:
        """The signed object."""
        body = {
            "origin": self.origin,
            "base": self.base,
            "base_root": self.base_root.hex(),
            "looked_at": format_time(self.looked_at),
            "caught_up": self.caught_up,
            "leaves": [leaf.decode("ascii") for leaf in self.leaves],
            "lists": [[names.index, names.place, *names.tails] for names in self.lists],
            "marks": {
                place: [f"{mark.begin:016X}", *sorted(mark.seen)]
                for place, mark in self.marks.items()
                if mark != Mark()
            },
            "closed": dict(self.closed),
            "swept_at": None if self.swept_at is None else format_time(self.swept_at),
        }
        return seal_envelope(canonical.encode(body), BATCH_TYPE, signer)


def parse_batch(data: bytes, trust: Trust | None) -> Batch:
    """A batch, signed by one of `trust` if that is given. Raises VaultError `log.malformed`, `log.bad_leaf`."""
    payload = open_envelope(data, BATCH_TYPE, trust, limit_bytes=2 * BATCH_LIMIT_BYTES)
    try:
        body = canonical.decode(payload, limit_bytes=BATCH_LIMIT_BYTES, what="a batch")
        batch = _batch(body)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, VaultError):
        raise malformed("no batch of the log") from None
    return batch


def _batch(body: dict[str, Json]) -> Batch:
    base, swept_at = body["base"], body["swept_at"]
    if not isinstance(base, int) or base < 0 or not isinstance(body["caught_up"], bool):
        raise TypeError
    return Batch(
        origin=_text(body["origin"]),
        base=base,
        base_root=bytes.fromhex(parse_hex(body["base_root"], 32, "base_root")),
        looked_at=parse_time(body["looked_at"], "looked_at"),
        caught_up=body["caught_up"],
        leaves=tuple(_text(leaf).encode("ascii") for leaf in _rows(body["leaves"])),
        lists=tuple(_names(_rows(row)) for row in _rows(body["lists"])),
        marks={place: _mark(_rows(row)) for place, row in _map(body["marks"]).items()},
        closed={dataset: _text(stream) for dataset, stream in _map(body["closed"]).items()},
        swept_at=None if swept_at is None else parse_time(swept_at, "swept_at"),
    )


def _names(row: list[Json]) -> Names:
    index, place, *tails = row
    if not isinstance(index, int) or index < 0:
        raise TypeError
    return Names(index, _text(place), tuple(_text(tail) for tail in tails))


def _mark(row: list[Json]) -> Mark:
    return Mark(int(_text(row[0]), 16), frozenset(_text(seen) for seen in row[1:]))


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _rows(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _map(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError
    return value
