import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from dr_assets.engines.placement import engine_user
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.clip import needed_pieces, reachable_at, require_whole
from dr_assets.stores.postgres.course import Course
from dr_assets.stores.postgres.fetch import opened_wal
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.lay_wal import WalFrame, WalLayer
from dr_assets.stores.postgres.plan import _full_xid
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.chain import Chain
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import StoredObject, Vault

SIZE = 4096
SEGMENT = 1 << 16
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
NO_MANIFEST = cast("BaseManifest", None)


def put(
    vault: Vault,
    first: int,
    *,
    previous: str | None = None,
    beat_s: float | None = None,
    stored: int | None = None,
    size_bytes: int = SIZE,
    timeline: int = 1,
) -> str:
    """One piece; returns its header's digest. `beat_s` dates it, `stored` says what was stored when it was made."""
    extra = {} if stored is None else {"acknowledged_to": f"{stored:016X}"}
    if beat_s is not None:
        extra["recovery_point_at"] = format_time(T0 + timedelta(seconds=beat_s))
    prepared = vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=timeline, first=first,
        last=first + size_bytes, begin_at=T0, end_at=T0, plaintext=bytes([first // SIZE % 251]) * size_bytes,
        previous=previous, extra=extra,
    )  # fmt: skip
    vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
    return prepared.header.digest


def put_chain(vault: Vault, count: int, *, beats: Sequence[float | None] = ()) -> str | None:
    """`count` linked pieces from 0 on; returns the last header's digest."""
    previous = None
    for number in range(count):
        beat_s = beats[number] if number < len(beats) else None
        previous = put(vault, number * SIZE, previous=previous, beat_s=beat_s, stored=number * SIZE)
    return previous


def pieces(vault: Vault) -> list[StoredObject]:
    """The WAL in the vault."""
    return list(vault.objects("ledger", "wal", system_id="7", timeline=1))


def chain_of(vault: Vault) -> Chain:
    """As a plan resolves it."""
    return stored_wal(vault, "ledger", "7", 1, 0)


@pytest.mark.parametrize("at_s", [0.5, 3.0, 3.9, 4.0, 6.9, 7.5, 8.9])
def test_a_time_needs_the_pieces_up_to_the_first_later_heartbeat(at_s: float) -> None:
    """Not one piece more, and pieces that know of no heartbeat (the first ones after a restart) mislead nobody."""
    vault = throwaway_vault()
    beats = [None, 1.0, 2.0, 3.0, 4.0, None, 6.0, None, 8.0, 9.0]
    put_chain(vault, 10, beats=beats)
    needed = needed_pieces(vault, NO_MANIFEST, Course(chain_of(vault)), Target("time", at=T0 + timedelta(seconds=at_s)))
    expected = next(n for n, beat in enumerate(beats) if beat is not None and beat > at_s)
    assert needed is not None
    assert len(needed) == expected + 1


def test_a_heartbeat_proves_what_lies_before_it_and_not_its_own_instant() -> None:
    """The newest reachable time is the microsecond before the newest beat; the beat's own time is beyond."""
    vault = throwaway_vault()
    put_chain(vault, 3, beats=[1.0, 2.0, 3.0])
    course = Course(chain_of(vault))
    beat = T0 + timedelta(seconds=3)
    assert reachable_at(vault, course) == beat - timedelta(microseconds=1)
    with pytest.raises(PolicyError) as caught:
        needed_pieces(vault, NO_MANIFEST, course, Target("time", at=beat))
    assert caught.value.code == "restore.target_beyond"


def test_a_chain_that_nothing_dates_reaches_no_time() -> None:
    """Without heartbeats no time can be promised."""
    vault = throwaway_vault()
    put_chain(vault, 3)
    with pytest.raises(PolicyError, match="no heartbeat"):
        needed_pieces(vault, NO_MANIFEST, Course(chain_of(vault)), Target("time", at=T0))


def test_a_piece_that_fits_by_position_only_is_cut_off() -> None:
    """An orphan of a dead capture may begin exactly where the next one ended: it continues something else."""
    vault = throwaway_vault()
    put_chain(vault, 5)
    put(vault, 5 * SIZE, previous="ab" * 32, stored=3 * SIZE)
    put(vault, 6 * SIZE, previous="cd" * 32, stored=3 * SIZE)
    chain = chain_of(vault)
    assert chain.end == 5 * SIZE
    assert len(chain.orphans) == 2
    assert len(require_whole(vault, chain, None)) == 1


def test_an_accident_further_on_does_not_win_a_fork_before_it() -> None:
    """A dead capture's piece that only seems to lead far does not hide the shorter chain that was acknowledged."""
    vault = throwaway_vault()
    head = put_chain(vault, 2)
    put(vault, 2 * SIZE, previous=head, size_bytes=SIZE // 2)
    put(vault, 2 * SIZE + SIZE // 2, previous="ab" * 32, size_bytes=8 * SIZE)
    acknowledged = put(vault, 2 * SIZE, previous=head)
    last = put(vault, 3 * SIZE, previous=acknowledged, stored=3 * SIZE)
    chain = chain_of(vault)
    assert (chain.end, vault.header(chain.segments[-1]).digest) == (4 * SIZE, last)
    assert require_whole(vault, chain, 4 * SIZE) == []


def test_a_hole_behind_which_something_was_acknowledged_stops_latest() -> None:
    """A later piece says that what is missing was stored once: that is a loss, not a crash."""
    vault = throwaway_vault()
    put_chain(vault, 3)
    put(vault, 4 * SIZE, previous="ab" * 32, stored=4 * SIZE)
    with pytest.raises(VaultError) as caught:
        require_whole(vault, chain_of(vault), None)
    assert caught.value.code == "restore.hole"


def test_a_capture_s_own_fact_convicts_a_chain_that_ends_too_early() -> None:
    """Even when nothing lies beyond: the tail itself was removed."""
    vault = throwaway_vault()
    put_chain(vault, 3)
    assert require_whole(vault, chain_of(vault), 3 * SIZE) == []
    with pytest.raises(VaultError, match="missing"):
        require_whole(vault, chain_of(vault), 3 * SIZE + 1)


@pytest.mark.parametrize("stream", ["wal", "full"])
def test_an_altered_copy_of_ours_beyond_the_end_stops_nothing(stream: str) -> None:
    """It lies under the name of what it became, as anybody can do; bytes that aren't their name's were altered here."""
    vault = throwaway_vault()
    segments = rolled(vault)
    source = segments[0] if stream == "full" else segments[-1]
    data = bytearray(vault.fetch(source))
    data[-120] ^= 1  # within the content: the trailer's digest and signature are another's now
    digest = hashlib.sha256(data).hexdigest()
    key = f"{vault.estate}/ledger/{stream}/7/00000001/{20 * SIZE:016X}-{20 * SIZE + 100:016X}-"
    lock = vault.locks.lock("ledger", "wal", vault.clock())
    vault.store.put(f"{key}{digest[:32]}", bytes(data), digest, lock)
    notes = require_whole(vault, stored_wal(vault, "ledger", "7", 1, 0), 20 * SIZE)
    assert ["not ours" in note for note in notes] == [True]
    vault.store.put(f"{key}{'ab' * 16}", bytes(data), digest, lock)
    with pytest.raises(VaultError) as caught:
        require_whole(vault, stored_wal(vault, "ledger", "7", 1, 0), 20 * SIZE)
    assert caught.value.code == "restore.hole"


def test_pieces_in_flight_without_a_word_are_believed_up_to_a_bound() -> None:
    """Headers of old may not say what was stored; then more than any capture keeps in flight convicts."""
    vault = throwaway_vault()
    put_chain(vault, 3)
    put(vault, 4 * SIZE)
    assert len(require_whole(vault, chain_of(vault), None)) == 1
    put(vault, (4 * SIZE) + (128 << 20))
    with pytest.raises(VaultError):
        require_whole(vault, chain_of(vault), None)


def layer(folder: Path, end: int) -> WalLayer:
    """Lays [0, end) of timeline 1 of system 7."""
    return WalLayer(folder, [WalFrame("7", 1, 0, end, SEGMENT)], engine_user())


def opened(vault: Vault) -> list[Opened]:
    """Every piece, opened."""
    return [vault.open(obj) for obj in pieces(vault)]


def test_segments_are_laid_whole_and_zero_behind_the_end(tmp_path: Path) -> None:
    """Every file has its full size; bytes are where their position says; behind the last byte there is nothing."""
    vault = throwaway_vault()
    put_chain(vault, 20)
    lay = layer(tmp_path, 20 * SIZE)
    lay.lay(opened(vault))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["000000010000000000000000", "000000010000000000000001"]
    assert all(file.stat().st_size == SEGMENT for file in files)
    whole = b"".join(file.read_bytes() for file in files)
    assert all(whole[n * SIZE : (n + 1) * SIZE] == bytes([n]) * SIZE for n in range(20))
    assert not any(whole[20 * SIZE :])


def test_a_first_piece_that_begins_earlier_is_laid_from_where_it_is_needed(tmp_path: Path) -> None:
    """A chain need not be cut where a restore begins."""
    vault = throwaway_vault()
    put(vault, SEGMENT - SIZE, size_bytes=2 * SIZE)
    lay = WalLayer(tmp_path, [WalFrame("7", 1, SEGMENT, SEGMENT + SIZE, SEGMENT)], engine_user())
    lay.lay(opened(vault))
    assert [file.name for file in tmp_path.iterdir()] == ["000000010000000000000001"]


def rolled(vault: Vault) -> list[StoredObject]:
    """Twenty pieces of which all but the last few are rolled up into fulls of four; the chain over both."""
    put_chain(vault, 20)
    record_capture(vault, "ledger", "position", Anchor("7", 1, 0, 20 * SIZE, None, None, 1, None))
    roll_up(vault, "ledger", limits=Limits(size_bytes=4 * SIZE))
    segments = list(stored_wal(vault, "ledger", "7", 1, 0).segments)
    assert segments[0].key.stream == FULL
    return segments


def whole(folder: Path) -> bytes:
    """What was laid."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))[: 20 * SIZE]


def test_full_segments_are_laid_as_the_micros_they_hold(tmp_path: Path) -> None:
    """Fewer objects, the same bytes, and each is held to the one before it, also from a full to a micro."""
    vault = throwaway_vault()
    segments = rolled(vault)
    assert len(segments) < 20
    layer(tmp_path, 20 * SIZE).lay(opened_wal(vault, segments))
    assert whole(tmp_path) == b"".join(bytes([n]) * SIZE for n in range(20))


def test_micros_stand_in_for_a_full_that_was_altered(tmp_path: Path) -> None:
    """While they are kept; once they are gone the damage is said, and nothing is laid behind it."""
    vault = throwaway_vault()
    segments = rolled(vault)
    assert isinstance(vault.store, MemoryStore)
    row = vault.store.rows[str(segments[1].key)][0]
    assert row.data is not None
    row.data = row.data[:-200] + bytes(200)
    (tmp_path / "a").mkdir()
    layer(tmp_path / "a", 20 * SIZE).lay(opened_wal(vault, segments))
    assert whole(tmp_path / "a") == b"".join(bytes([n]) * SIZE for n in range(20))
    for obj in pieces(vault):
        del vault.store.rows[str(obj.key)]
    (tmp_path / "b").mkdir()
    with pytest.raises(VaultError) as caught:
        layer(tmp_path / "b", 20 * SIZE).lay(opened_wal(vault, segments))
    assert caught.value.code == "vault.tampered"


def test_the_segment_of_a_switch_is_laid_under_both_timelines_names(tmp_path: Path) -> None:
    """The older one's file ends with zeros where it was left, the newer one's begins with the older one's bytes."""
    vault = throwaway_vault()
    put_chain(vault, 6)
    switch = 4 * SIZE + 100
    put(vault, switch, timeline=2)
    frames = [WalFrame("7", 1, 0, switch, SEGMENT), WalFrame("7", 2, switch, switch + SIZE, SEGMENT)]
    lay = WalLayer(tmp_path, frames, engine_user())
    lay.lay([vault.open(obj) for obj in vault.objects("ledger", "wal", system_id="7")])
    old, new = ((tmp_path / f"{number:08X}{0:016X}").read_bytes() for number in (1, 2))
    assert old[:switch] == new[:switch] == b"".join(bytes([n]) * SIZE for n in range(5))[:switch]
    assert not any(old[switch:])
    assert new[switch : switch + SIZE] == bytes([switch // SIZE]) * SIZE
    assert (len(old), len(new)) == (SEGMENT, SEGMENT)


@pytest.mark.parametrize("fault", ["gap", "unlinked", "unlinked-none", "short", "timeline"])
def test_a_piece_that_does_not_continue_the_one_before_breaks_the_chain(tmp_path: Path, fault: str) -> None:
    """A gap, a foreign predecessor, an early end or another timeline: named by position, nothing is guessed."""
    vault = throwaway_vault()
    last = put_chain(vault, 3)
    if fault == "gap":
        put(vault, 4 * SIZE, previous=last)
    elif fault == "unlinked":
        put(vault, 3 * SIZE, previous="ab" * 32)
    elif fault == "unlinked-none":
        put(vault, 3 * SIZE)
    elif fault == "timeline":
        put(vault, 3 * SIZE, previous=last, timeline=2)
    objects = list(vault.objects("ledger", "wal", system_id="7"))
    with pytest.raises(VaultError) as caught:
        layer(tmp_path, 5 * SIZE).lay([vault.open(obj) for obj in objects])
    assert caught.value.code == "wal.chain_broken"
    assert "0/3000" in caught.value.found


@pytest.mark.parametrize(
    ("xid", "near", "full"),
    [
        (800, 1000, 800),
        (1200, 1000, 1200),
        (5, (7 << 32) + 10, (7 << 32) + 5),
        (5, (7 << 32) + 0xFFFFFFF0, (8 << 32) + 5),
        (0xFFFFFFF0, (7 << 32) + 5, (6 << 32) + 0xFFFFFFF0),
        (0xFFFFFFF0, 5, 0xFFFFFFF0),
        ((9 << 32) + 1, 5, (9 << 32) + 1),
    ],
)
def test_a_short_transaction_id_means_the_one_nearby(xid: int, near: int, full: int) -> None:
    """Within half an epoch of the base backup's, as PostgreSQL compares them; 64-bit ones mean themselves."""
    assert _full_xid(xid, near) == full
