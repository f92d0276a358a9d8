"""The Kafka capture's own statements in the vault: started, position, stopped; gaps, divergence, topics made again.

What belongs here: their bodies, written and read back. What stays out: when they are made (capture.py, keeper.py) and
what is concluded from them (resume.py, position.py).

Every `stored` that a capture fact names was the end of a valid chain of packs, so nobody has to walk it from its
beginning. A gap is on record before anything behind it is sealed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from dr_assets.vault.facts import Fact, facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time, malformed, parse_time
from dr_assets.vault.prefix import format_position, parse_position
from dr_assets.vault.vault import Receipt, Vault

CAPTURE: Final = "kafka_capture"
GAP: Final = "kafka_gap"
RECREATED: Final = "topic_recreated"
SETTLED: Final = "kafka_gap_settled"
TIMELINE: Final = 0

Event = Literal["started", "position", "stopped"]
Why = Literal["gap", "diverged"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the chain of packs stood. `stored` is the number of the next pack, `header` and `segment` the last one's.

    `begin` is the number that the chain begins with. Times are the capture's clock.
    """

    system_id: str
    begin: int
    stored: int
    header: str | None
    segment: str | None
    writer_epoch: int
    recovery_point_at: datetime | None


@dataclass(frozen=True, slots=True)
class StreamGap:
    """Offsets that the vault lacks, or holds though the source does not any more.

    `gap`: retention removed [begin, end) before it was fetched. `diverged`: of [begin, end), which is stored, the
    source's log holds something else or nothing since an unclean election.
    """

    topic: str
    topic_id: str
    partition: int
    why: Why
    begin: int
    end: int
    found: str


def record_capture(vault: Vault, dataset: str, event: Event, anchor: Anchor) -> Receipt:
    """Seal where the capture stands. Raises VaultError."""
    at = anchor.recovery_point_at
    body: dict[str, Json] = {
        "event": event,
        "system_id": anchor.system_id,
        "timeline": TIMELINE,
        "begin": format_position(anchor.begin),
        "stored": format_position(anchor.stored),
        "header": anchor.header,
        "segment": anchor.segment,
        "writer_epoch": anchor.writer_epoch,
        "recovery_point_at": None if at is None else format_time(at),
    }
    return record_fact(vault, dataset, CAPTURE, body)


def latest_anchor(
    vault: Vault, dataset: str, *, system_id: str | None = None, as_of: datetime | None = None
) -> Anchor | None:
    """Where the newest capture (of this cluster, or of any) stood when it last said so. Raises VaultError."""
    newest = latest_fact(vault, dataset, CAPTURE, as_of=as_of)
    if newest is None:
        return None
    anchor = _anchor(newest)
    if system_id in {None, anchor.system_id}:
        return anchor
    own = [each for each in map(_anchor, facts(vault, dataset, CAPTURE, as_of=as_of)) if each.system_id == system_id]
    return own[-1] if own else None


def record_gap(vault: Vault, dataset: str, system_id: str, gap: StreamGap) -> Receipt | None:
    """Seal a gap, once: whoever is restarted on the way to the pack behind it must not say it again and again."""
    body: dict[str, Json] = {
        "system_id": system_id,
        "topic": gap.topic,
        "topic_id": gap.topic_id,
        "partition": gap.partition,
        "why": gap.why,
        "begin": gap.begin,
        "end": gap.end,
        "found": gap.found,
    }
    newest = latest_fact(vault, dataset, GAP)
    if newest is not None and {**newest.body, "found": ""} == {**body, "found": ""}:
        return None
    return record_fact(vault, dataset, GAP, body)


def gaps(vault: Vault, dataset: str, *, as_of: datetime | None = None) -> list[tuple[Fact, StreamGap]]:
    """All gaps on record, oldest first. Raises VaultError."""
    return [(fact, _gap(fact)) for fact in facts(vault, dataset, GAP, as_of=as_of)]


def unsettled_gaps(vault: Vault, dataset: str) -> list[tuple[Fact, StreamGap]]:
    """Gaps that nobody has looked at on record: red. Raises VaultError."""
    settled = {fact.body.get("fact") for fact in facts(vault, dataset, SETTLED)}
    return [(fact, gap) for fact, gap in gaps(vault, dataset) if str(fact.key) not in settled]


def settle(vault: Vault, dataset: str, fact: str, by: str, note: str) -> Receipt:
    """Seal that a person has dealt with a gap or a topic made again. Raises VaultError."""
    return record_fact(vault, dataset, SETTLED, {"fact": fact, "by": by, "note": note})


def record_recreated(vault: Vault, dataset: str, system_id: str, topic: str, was: str, now: str | None) -> Receipt:
    """Seal that a topic was deleted, and made again where `now` is its new id. Raises VaultError."""
    body: dict[str, Json] = {"system_id": system_id, "topic": topic, "was": was, "now": now}
    return record_fact(vault, dataset, RECREATED, body)


def recreated(vault: Vault, dataset: str) -> list[Fact]:
    """Topics that were deleted or made again, and that nobody has settled: red. Raises VaultError."""
    settled = {fact.body.get("fact") for fact in facts(vault, dataset, SETTLED)}
    return [fact for fact in facts(vault, dataset, RECREATED) if str(fact.key) not in settled]


def _anchor(fact: Fact) -> Anchor:
    body, name = fact.body, str(fact.key)
    at = body.get("recovery_point_at")
    return Anchor(
        _text(body, "system_id", name), _position(body, "begin", name), _position(body, "stored", name),
        None if body.get("header") is None else _text(body, "header", name),
        None if body.get("segment") is None else _text(body, "segment", name),
        _number(body, "writer_epoch", name),
        None if at is None else parse_time(at, f"{name}: recovery_point_at"),
    )  # fmt: skip


def _gap(fact: Fact) -> StreamGap:
    body, name = fact.body, str(fact.key)
    return StreamGap(
        _text(body, "topic", name), _text(body, "topic_id", name), _number(body, "partition", name),
        "diverged" if body.get("why") == "diverged" else "gap", _number(body, "begin", name),
        _number(body, "end", name), _text(body, "found", name),
    )  # fmt: skip


def _text(body: Mapping[str, Json], field: str, name: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise malformed(f"{name}: {field} is no text")
    return value


def _number(body: Mapping[str, Json], field: str, name: str) -> int:
    value = body.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise malformed(f"{name}: {field} is no number")
    return value


def _position(body: Mapping[str, Json], field: str, name: str) -> int:
    value = parse_position(_text(body, field, name))
    if value is None:
        raise malformed(f"{name}: {field} is no position")
    return value
