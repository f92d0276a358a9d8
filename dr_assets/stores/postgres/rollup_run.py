"""One run of the `roller`: roll up, keep the locks of what waits, put that on record.

What belongs here: the order, and the `roll_up` fact. What stays out: the steps themselves.

The roller is a role of its own: it lists, reads, puts and extends, and never deletes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.backlog import Backlog, backlogs, extend_waiting
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_put import Listener, StreamRoll
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.needed_locks import extend_needed
from dr_assets.stores.postgres.rollup import roll_streams
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time, parse_time
from dr_assets.vault.vault import Vault

ROLL_UP: Final = "roll_up"
LOCKS_EVERY: Final = timedelta(hours=1)
ALIVE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class RollUp:
    """What a run did. `extended` counts locks, None when they were looked at less than an hour before."""

    dataset: str
    rolls: tuple[StreamRoll, ...]
    backlogs: tuple[Backlog, ...]
    extended: int | None
    at: datetime

    @property
    def fulls(self) -> int:
        """Full segments put."""
        return sum(roll.fulls for roll in self.rolls)

    @property
    def micros(self) -> int:
        """Micro-segments they hold."""
        return sum(roll.micros for roll in self.rolls)

    @property
    def size_bytes(self) -> int:
        """WAL they hold."""
        return sum(roll.size_bytes for roll in self.rolls)

    @property
    def troubles(self) -> list[str]:
        """Why streams could not go on."""
        return [f"timeline {roll.stream.timeline}: {roll.trouble}" for roll in self.rolls if roll.trouble]

    def to_json(self) -> dict[str, Json]:
        """For the fact, and for machines."""
        waits = {backlog.stream: backlog for backlog in self.backlogs}
        return {
            "fulls": self.fulls,
            "micros": self.micros,
            "size_bytes": self.size_bytes,
            "locks_extended": self.extended,
            "streams": [_stream_json(roll, waits.get(roll.stream)) for roll in self.rolls],
        }


def roll_up(
    vault: Vault,
    dataset: str,
    *,
    limits: Limits | None = None,
    listener: Listener | None = None,
    replicas: Sequence[str] = (),
) -> RollUp:
    """Roll up what is due, hourly extend the locks of what waits or is needed for longer, seal a `roll_up` fact.

    Micro-segments wait as well until their full is proven in each of `replicas` (vaults by name). Raises VaultError
    when the store can't be read or written. A stream in trouble is told in the result and the fact;
    `require_untroubled` raises it.
    """
    rolls = tuple(roll_streams(vault, dataset, limits=limits, listener=listener))
    known = latest_fact(vault, dataset, ROLL_UP)
    now = vault.clock()
    looked_at = None if known is None else known.body.get("locks_at")
    # A look in the future is none: whoever can sign could keep every later run from the locks by it.
    due = looked_at is None or not timedelta() <= now - parse_time(looked_at, "locks_at") < LOCKS_EVERY
    extended = extend_waiting(vault, dataset, replicas) + extend_needed(vault, dataset) if due else None
    done = RollUp(dataset, rolls, tuple(backlogs(vault, dataset)), extended, now)
    if due or done.fulls or known is None or done.troubles != known.body.get("troubles"):
        at: Json = format_time(now) if due else looked_at
        body: dict[str, Json] = {**done.to_json(), "locks_at": at, "troubles": list[Json](done.troubles)}
        record_fact(vault, dataset, ROLL_UP, body)
    return done


def require_untroubled(done: RollUp) -> None:
    """Raise VaultError `rollup.stuck` when a stream could not go on."""
    if done.troubles:
        raise VaultError(
            "rollup.stuck",
            "; ".join(done.troubles),
            "nothing is lost by this: micro-segments stay, and their locks are extended; run `dr-assets vault verify`",
        )


def is_roller_alive(vault: Vault, dataset: str) -> bool:
    """Whether a roller was at work within a day: only then may micros have the short lock (decision 0070)."""
    known = latest_fact(vault, dataset, ROLL_UP)
    return known is not None and vault.clock() - known.at < ALIVE


def _stream_json(roll: StreamRoll, waits: Backlog | None) -> Json:
    told: dict[str, Json] = {
        "system_id": roll.stream.system_id,
        "timeline": roll.stream.timeline,
        "fulls": roll.fulls,
        "micros": roll.micros,
        "size_bytes": roll.size_bytes,
        "rolled_to": None if roll.rolled_to is None else format_lsn(roll.rolled_to),
        "newest": None if roll.newest is None else str(roll.newest),
        "trouble": roll.trouble,
    }
    if waits is not None:
        told["backlog"] = {
            "micros": waits.micros,
            "size_bytes": waits.size_bytes,
            "oldest_at": _time(waits.oldest_at),
            "locked_until": _time(waits.locked_until),
        }
    return told


def _time(at: datetime | None) -> Json:
    return None if at is None else format_time(at)
