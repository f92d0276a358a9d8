"""Which pieces of a WAL chain a target needs, and whether the chain reaches it.

What belongs here: reading the chain's headers (their `recovery_point_at`), the rules for holes. What stays out: base
backups (plan.py), replaying. Everything here refuses before a byte of WAL is fetched; a named restore point alone has
to be searched in the WAL itself.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.course import Course
from dr_assets.stores.postgres.fetch import opened_wal
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal_search import find_restore_point
from dr_assets.vault.believed import believed
from dr_assets.vault.chain import Chain
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, parse_position
from dr_assets.vault.vault import StoredObject, Vault

# Behind a position the server must find one more complete record to know that it is to stop there.
MARGIN_BYTES: Final = 16 << 20
_MICROSECOND: Final = timedelta(microseconds=1)
# The first pieces after a restart of the capture may know of no heartbeat yet.
_LOOK_BACK: Final = 64
# A capture reads no more than 64 MiB ahead of a put that hangs, and a put that hangs this long is no everyday crash.
_IN_FLIGHT_MAX: Final = timedelta(minutes=2)
_IN_FLIGHT_MAX_BYTES: Final = 128 << 20
_ALTERED: Final = ("vault.tampered", "vault.bad_signature", "vault.missing")
_TAIL_READERS: Final = 8

__all__ = ["MARGIN_BYTES", "needed_pieces", "reachable_at", "require_whole"]


def needed_pieces(
    vault: Vault, manifest: BaseManifest, course: Course, target: Target
) -> Sequence[StoredObject] | None:
    """The pieces of `course` that lead to `target`; None when a named restore point isn't on it.

    Raises PolicyError (`restore.target_beyond`) when it ends before the target.
    """
    if target.at is not None:
        return _to_time(vault, course, target.at)
    if target.lsn is not None:
        return _to_lsn(vault, course, target.lsn)
    if target.kind == "immediate":
        return _through(course, manifest.stop_lsn)
    if target.name is not None:
        position = _find_name(vault, manifest, course, target.name)
        return None if position is None else _through(course, position)
    return course.chain.segments


def reachable_at(vault: Vault, course: Course) -> datetime | None:
    """The newest instant up to which the course holds every commit (source's clock); None when nothing dates it.

    A beat at `t` proves all commits made before `t`, so the instant is the microsecond before it.
    """
    at = _beat_at(vault, course, len(course.chain.segments) - 1)
    return None if at is None else at - _MICROSECOND


def require_whole(vault: Vault, chain: Chain, stored: int | None) -> list[str]:
    """Notes about what lies beyond the chain's end. Raises VaultError (`restore.hole`) when that was acknowledged.

    Pieces beyond a hole are harmless when their puts were in flight as the capture died: nothing behind the hole was
    ever acknowledged upstream, and the next capture goes on from before it. `stored` is how far a capture's own fact
    says that everything was stored; None when it said nothing.
    """
    notes = [_unless_damaged(vault, chain, obj, reason) for obj, reason in chain.unreadable]
    claimed = max(stored or 0, _claimed(vault, chain.orphans))
    if claimed > chain.end:
        raise VaultError(
            "restore.hole",
            f"the WAL from {format_lsn(chain.end)} on is missing, though the capture had everything up to "
            f"{format_lsn(claimed)} stored; {len(chain.orphans)} pieces lie beyond",
            "run `dr-assets vault verify`; restore from another vault; or, knowing that later commits are lost, to "
            f"lsn:{format_lsn(chain.end)}",
        )
    if chain.orphans:
        notes.append(
            f"{len(chain.orphans)} pieces beyond {format_lsn(chain.end)} are not used: their puts were in flight when "
            "a capture ended, and nothing behind that position was ever acknowledged"
        )
    return notes


def _unless_damaged(vault: Vault, chain: Chain, obj: StoredObject, reason: str) -> str:
    """A note about a piece at the chain's end that cannot be believed. Raises VaultError when it was one of ours.

    Anybody who may write can put rubbish under a fitting name, and must not stop a restore with it: an altered copy of
    one of ours, too, under the name of what it became. But bytes that are not those their own name was made for were
    altered after they were stored.
    """
    if not reason.startswith(_ALTERED) or _is_as_named(vault, obj):
        return f"{obj.key} is not ours and not used: {reason.splitlines()[0]}"
    raise VaultError(
        "restore.hole",
        f"the last WAL is damaged: {reason.splitlines()[0]}",
        f"restore from another vault; or, knowing that later commits are lost, to lsn:{format_lsn(chain.end)}",
    )


def _is_as_named(vault: Vault, obj: StoredObject) -> bool:
    return believed(vault.fetch, obj) is not None


def _claimed(vault: Vault, orphans: Sequence[StoredObject]) -> int:
    """Up to where the pieces beyond a hole show that everything had been stored when they were made; 0 if nowhere.

    Their headers say it (`acknowledged_to`). Where they don't, more of them than any capture keeps in flight, in
    bytes or in time, show it as well.
    """
    if not orphans:
        return 0
    claims = [claim for obj in orphans[-_TAIL_READERS:] if (claim := _claim(vault, obj)) is not None]
    if claims:
        return max(claims)
    first, last = orphans[0], orphans[-1]
    too_long = last.modified_at - min(obj.modified_at for obj in orphans) > _IN_FLIGHT_MAX
    return first.key.first if too_long or last.key.last - first.key.first > _IN_FLIGHT_MAX_BYTES else 0


def _claim(vault: Vault, obj: StoredObject) -> int | None:
    header = believed(vault.header, obj)
    text = None if header is None else header.extra.get(ACKNOWLEDGED_TO)
    return None if text is None else parse_position(text)


def _to_time(vault: Vault, course: Course, at: datetime) -> Sequence[StoredObject]:
    """Up to the first piece with a beat later than `at`: that beat's commit is where the server will stop at last."""
    newest = reachable_at(vault, course)
    if newest is None or at > newest:
        until = "no heartbeat dates it" if newest is None else f"it reaches {newest.isoformat()}"
        raise _beyond(f"{at.isoformat()} lies beyond the stored WAL: {until}", newest)
    segments = course.chain.segments
    low, high = 0, len(segments) - 1
    while low < high:
        middle = (low + high) // 2
        beat_at = _beat_at(vault, course, middle)
        if beat_at is not None and beat_at > at:
            high = middle
        else:
            low = middle + 1
    return segments[: low + 1]


def _to_lsn(vault: Vault, course: Course, lsn: int) -> Sequence[StoredObject]:
    if lsn > course.chain.end:
        raise _beyond(
            f"{format_lsn(lsn)} lies beyond the stored WAL, which ends at {format_lsn(course.chain.end)}",
            reachable_at(vault, course),
        )
    return _through(course, lsn)


def _through(course: Course, position: int) -> Sequence[StoredObject]:
    """The pieces up to `position` and somewhat beyond it, so that the server finds a record that is not wanted.

    Nothing of a timeline that begins there or later: a server that stops before its timeline begins would promote to
    one with a false history.
    """
    segments = course.chain.segments
    count = sum(
        1
        for obj in segments
        if obj.key.first < position + MARGIN_BYTES and course.begins.get(obj.key.timeline, -1) < position
    )
    return segments[:count]


def _find_name(vault: Vault, manifest: BaseManifest, course: Course, name: str) -> int | None:
    """Where the restore point `name` ends in the course's WAL; None when it isn't there."""
    pieces = course.plaintexts(opened_wal(vault, course.chain.segments))
    return find_restore_point(pieces, name, manifest.stop_lsn, manifest.segment_bytes)


def _beat_at(vault: Vault, course: Course, index: int) -> datetime | None:
    """The newest heartbeat that the pieces up to `index` hold, by their headers."""
    for obj in reversed(course.chain.segments[max(0, index - _LOOK_BACK) : index + 1]):
        if not course.is_whole(obj):
            continue
        text = vault.header(obj).extra.get(RECOVERY_POINT_AT)
        if text is not None:
            return parse_time(text, f"{obj.key}: recovery point")
    return None


def _beyond(found: str, newest: datetime | None) -> PolicyError:
    hint = "restore to `latest`"
    if newest is not None:
        hint += f", or to a time up to {newest.isoformat()}"
    return PolicyError("restore.target_beyond", found, hint)
