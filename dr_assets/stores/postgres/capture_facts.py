"""The capture's own statements in the vault: started, position, stopped, and the gap.

What belongs here: their bodies, written and read back. What stays out: when they are made (capture.py) and what is
concluded from them (resume.py, position.py).

A capture fact is an anchor: every position it names as stored was the end of a valid chain at that moment, so nobody
has to walk a stream from its beginning to find its end.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.vault.facts import Fact, facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time, malformed, parse_time
from dr_assets.vault.vault import Receipt, Vault

CAPTURE = "capture"
GAP = "gap"
_REWOUND = "source.rewound: "
# A stream is mostly left for another one minutes ago, and there are hundreds of these facts a day.
_WINDOWS = (timedelta(hours=1), timedelta(days=1))

Event = Literal["started", "position", "stopped"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where one stream's valid chain stood. LSNs are byte positions, times are the source's clock.

    `begin` is where the chain begins, `stored` where it ends; `header` is the digest of its last segment's header and
    `segment` that segment's key, both None while it is empty.
    """

    system_id: str
    timeline: int
    begin: int
    stored: int
    header: str | None
    segment: str | None
    writer_epoch: int
    recovery_point_at: datetime | None


@dataclass(frozen=True, slots=True)
class Gap:
    """WAL [chain_end, available) that the vault doesn't hold and the source no longer keeps for us.

    `available` is None when the source keeps nothing at all: the slot is lost.
    """

    system_id: str
    timeline: int
    chain_end: int
    available: int | None
    why: str


def record_capture(vault: Vault, dataset: str, event: Event, anchor: Anchor) -> Receipt:
    """Seal where the capture stands. Raises VaultError."""
    at = anchor.recovery_point_at
    body: dict[str, Json] = {
        "event": event,
        "system_id": anchor.system_id,
        "timeline": anchor.timeline,
        "begin": format_lsn(anchor.begin),
        "stored": format_lsn(anchor.stored),
        "header": anchor.header,
        "segment": anchor.segment,
        "writer_epoch": anchor.writer_epoch,
        "recovery_point_at": None if at is None else format_time(at),
    }
    return record_fact(vault, dataset, CAPTURE, body)


def latest_anchor(vault: Vault, dataset: str, *, as_of: datetime | None = None) -> Anchor | None:
    """Where the dataset's newest capture stood when it last said so (as of the store's clock). Raises VaultError."""
    fact = latest_fact(vault, dataset, CAPTURE, as_of=as_of)
    return None if fact is None else _anchor(fact)


def anchor_of(
    vault: Vault, dataset: str, system_id: str, timeline: int, *, as_of: datetime | None = None
) -> Anchor | None:
    """The newest anchor of one stream; the dataset may have been captured from elsewhere since.

    `as_of` is the store's clock. Raises VaultError.
    """
    newest = latest_anchor(vault, dataset, as_of=as_of)
    if newest is None or (newest.system_id, newest.timeline) == (system_id, timeline):
        return newest
    for window in (*_WINDOWS, None):
        begin = None if window is None else (as_of or vault.clock()) - window
        own = [
            anchor
            for anchor in map(_anchor, facts(vault, dataset, CAPTURE, begin, as_of=as_of))
            if (anchor.system_id, anchor.timeline) == (system_id, timeline)
        ]
        if own:
            return own[-1]
    return None


def record_gap(vault: Vault, dataset: str, gap: Gap) -> Receipt | None:
    """Seal a gap, once: a supervisor that restarts us every second must not fill the vault with one complaint.

    Returns None when the newest gap on record is this one. Raises VaultError.
    """
    body: dict[str, Json] = {
        "system_id": gap.system_id,
        "timeline": gap.timeline,
        "chain_end": format_lsn(gap.chain_end),
        "available": None if gap.available is None else format_lsn(gap.available),
        "why": gap.why,
    }
    newest = latest_fact(vault, dataset, GAP)
    if newest is not None and newest.body == body:
        return None
    return record_fact(vault, dataset, GAP, body)


def record_rewind(
    vault: Vault, dataset: str, system_id: str, timeline: int, chain_end: int, available: int | None, found: str
) -> None:
    """Seal that the source has another history than the chain that ends at `chain_end`. Raises VaultError.

    `available` is where a new chain begins, None while nobody has accepted that; that is said once of each chain.
    """
    if available is None and is_rewound(vault, dataset, system_id, timeline, chain_end):
        return
    record_gap(vault, dataset, Gap(system_id, timeline, chain_end, available, f"{_REWOUND}{found}"))


def is_rewound(vault: Vault, dataset: str, system_id: str, timeline: int, chain_end: int) -> bool:
    """Whether the newest gap on record says so of this chain, and no new one was begun. Raises VaultError."""
    newest = latest_fact(vault, dataset, GAP)
    if newest is None or not str(newest.body.get("why")).startswith(_REWOUND):
        return False
    of = {"system_id": system_id, "timeline": timeline, "chain_end": format_lsn(chain_end), "available": None}
    return all(newest.body.get(field) == value for field, value in of.items())


def _anchor(fact: Fact) -> Anchor:
    body, name = fact.body, str(fact.key)
    at = body.get("recovery_point_at")
    return Anchor(
        system_id=_text(body, "system_id", name),
        timeline=_number(body, "timeline", name),
        begin=parse_lsn(_text(body, "begin", name)),
        stored=parse_lsn(_text(body, "stored", name)),
        header=None if body.get("header") is None else _text(body, "header", name),
        segment=None if body.get("segment") is None else _text(body, "segment", name),
        writer_epoch=_number(body, "writer_epoch", name),
        recovery_point_at=None if at is None else parse_time(at, f"{name}: recovery_point_at"),
    )


def _text(body: dict[str, Json], field: str, name: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise malformed(f"{name}: {field} is no text")
    return value


def _number(body: dict[str, Json], field: str, name: str) -> int:
    value = body.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise malformed(f"{name}: {field} is no number")
    return value
