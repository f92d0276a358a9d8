"""Which pieces of a WAL chain a target needs, and whether the chain reaches it.

What belongs here: reading the chain's headers (their `recovery_point_at`), the rules for holes. What stays out: base
backups (plan.py), replaying. Everything here refuses before a byte of WAL is fetched; a named restore point alone has
to be searched in the WAL itself.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.fetch import opened_in_order
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal_search import find_restore_point
from dr_assets.vault.chain import Chain, resolve
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.header import Header
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, parse_position
from dr_assets.vault.vault import StoredObject, Vault

# Behind a position the server must find one more complete record to know that it is to stop there.
MARGIN_BYTES: Final = 16 << 20
_MICROSECOND: Final = timedelta(microseconds=1)
# The first pieces after a restart of the capture may know of no heartbeat yet.
_LOOK_BACK: Final = 64
# A capture reads no more than 64 MiB ahead of a put that hangs, and a put that hangs this long is no everyday crash.
_IN_FLIGHT_MAX: Final = timedelta(minutes=2)
_IN_FLIGHT_MAX_BYTES: Final = 80 << 20
_ALTERED: Final = ("vault.tampered", "vault.bad_signature", "vault.missing")
# Trouble with the whole store, not with one object.
STORE_TROUBLE: Final = frozenset({"vault.unreachable", "vault.refused_credentials", "vault.no_bucket"})
_TAIL_PIECES: Final = 64
_TAIL_READERS: Final = 8

HeaderOf = Callable[[StoredObject], Header]


def needed_pieces(vault: Vault, manifest: BaseManifest, chain: Chain, target: Target) -> Sequence[StoredObject] | None:
    """The pieces of `chain` that lead to `target`; None when a named restore point isn't in this chain.

    Raises PolicyError (`restore.target_beyond`) when the chain ends before the target.
    """
    if target.at is not None:
        return _to_time(vault, chain, target.at)
    if target.lsn is not None:
        return _to_lsn(vault, chain, target.lsn)
    if target.kind == "immediate":
        return _through(chain, manifest.stop_lsn)
    if target.name is not None:
        position = _find_name(vault, manifest, chain, target.name)
        return None if position is None else _through(chain, position)
    return chain.segments


def reachable_at(vault: Vault, segments: Sequence[StoredObject]) -> datetime | None:
    """The newest instant up to which these pieces hold every commit (source's clock); None when nothing dates them.

    A beat at `t` proves all commits made before `t`, so the instant is the microsecond before it.
    """
    at = _beat_at(vault.header, segments, len(segments) - 1)
    return None if at is None else at - _MICROSECOND


def linked(vault: Vault, chain: Chain) -> Chain:
    """`chain` without a tail that fits by position only.

    A piece that was in flight when a capture died may begin exactly where the next capture happened to end, and still
    continue another piece. That can only be among the last few, so only their headers are held to one another. Where
    that shows, the tail is resolved anew by links alone: the accident may also have won a fork before it.
    """
    tail = chain.segments[-_TAIL_PIECES:]
    with ThreadPoolExecutor(_TAIL_READERS, thread_name_prefix="header") as pool:
        headers = list(pool.map(vault.header, tail))
    if all(later.previous == earlier.digest for earlier, later in pairwise(headers)):
        return chain
    sure, head = chain.segments[: len(chain.segments) - len(tail) + 1], headers[0].digest
    begin = sure[-1].key.last
    beyond = [obj for obj in (*tail, *chain.forks, *chain.orphans) if obj.key.first >= begin]
    firsts = [obj for obj in beyond if obj.key.first == begin and vault.header(obj).previous == head]
    rest = resolve([*firsts, *(obj for obj in beyond if obj.key.first > begin)], vault.header, begin, strict=True)
    return replace(
        chain, segments=(*sure, *rest.segments), end=rest.end, orphans=rest.orphans, holes=rest.holes,
        unreadable=(*chain.unreadable, *rest.unreadable),
    )  # fmt: skip


def require_whole(vault: Vault, chain: Chain, stored: int | None) -> list[str]:
    """Notes about what lies beyond the chain's end. Raises VaultError (`restore.hole`) when that was acknowledged.

    Pieces beyond a hole are harmless when their puts were in flight as the capture died: nothing behind the hole was
    ever acknowledged upstream, and the next capture goes on from before it. `stored` is how far a capture's own fact
    says that everything was stored; None when it said nothing.
    """
    notes = [_unless_damaged(chain, obj, reason) for obj, reason in chain.unreadable]
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


def _unless_damaged(chain: Chain, obj: StoredObject, reason: str) -> str:
    """A note about a piece at the chain's end that cannot be believed. Raises VaultError when it was one of ours.

    Anybody who may write can put rubbish under a fitting name, and must not stop a restore with it. But bytes that
    are not those their own name was made for were altered.
    """
    if not reason.startswith(_ALTERED):
        return f"{obj.key} is not ours and not used: {reason.splitlines()[0]}"
    raise VaultError(
        "restore.hole",
        f"the last WAL is damaged: {reason.splitlines()[0]}",
        f"restore from another vault; or, knowing that later commits are lost, to lsn:{format_lsn(chain.end)}",
    )


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
    try:
        text = vault.header(obj).extra.get(ACKNOWLEDGED_TO)
    except VaultError as error:
        if error.code in STORE_TROUBLE:
            raise
        return None
    return None if text is None else parse_position(text)


def _to_time(vault: Vault, chain: Chain, at: datetime) -> Sequence[StoredObject]:
    """Up to the first piece with a beat later than `at`: that beat's commit is where the server will stop at last."""
    newest = reachable_at(vault, chain.segments)
    if newest is None or at > newest:
        until = "no heartbeat dates it" if newest is None else f"it reaches {newest.isoformat()}"
        raise _beyond(f"{at.isoformat()} lies beyond the stored WAL: {until}", newest)
    low, high = 0, len(chain.segments) - 1
    while low < high:
        middle = (low + high) // 2
        beat_at = _beat_at(vault.header, chain.segments, middle)
        if beat_at is not None and beat_at > at:
            high = middle
        else:
            low = middle + 1
    return chain.segments[: low + 1]


def _to_lsn(vault: Vault, chain: Chain, lsn: int) -> Sequence[StoredObject]:
    if lsn > chain.end:
        raise _beyond(
            f"{format_lsn(lsn)} lies beyond the stored WAL, which ends at {format_lsn(chain.end)}",
            reachable_at(vault, chain.segments),
        )
    return _through(chain, lsn)


def _through(chain: Chain, position: int) -> Sequence[StoredObject]:
    """The pieces up to `position` and somewhat beyond it, so that the server finds a record that is not wanted."""
    count = sum(1 for obj in chain.segments if obj.key.first < position + MARGIN_BYTES)
    return chain.segments[:count]


def _find_name(vault: Vault, manifest: BaseManifest, chain: Chain, name: str) -> int | None:
    """Where the restore point `name` ends in the chain's WAL; None when it isn't there."""
    pieces = ((opened.header.first, opened.plaintext) for opened in opened_in_order(vault, chain.segments))
    return find_restore_point(pieces, name, manifest.stop_lsn, manifest.segment_bytes)


def _beat_at(header_of: HeaderOf, segments: Sequence[StoredObject], index: int) -> datetime | None:
    """The newest heartbeat that the pieces up to `index` hold, by their headers."""
    for obj in reversed(segments[max(0, index - _LOOK_BACK) : index + 1]):
        text = header_of(obj).extra.get(RECOVERY_POINT_AT)
        if text is not None:
            return parse_time(text, f"{obj.key}: recovery point")
    return None


def _beyond(found: str, newest: datetime | None) -> PolicyError:
    hint = "restore to `latest`"
    if newest is not None:
        hint += f", or to a time up to {newest.isoformat()}"
    return PolicyError("restore.target_beyond", found, hint)
