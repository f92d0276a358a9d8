from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dr_assets.estate.errors import DrError, VaultError
from dr_assets.stores.postgres import recovery
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.site import MARK
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

if TYPE_CHECKING:
    from conftest import History, Source

pytestmark = pytest.mark.integration


def attempt(plan: RestorePlan, vault: Vault, into: Path, **options: Any) -> None:
    """A restore that must not come to its end."""
    with restore(plan, vault, into, **options):
        pytest.fail("it was restored")


class Damage:
    """Hurts a clone's store beneath its locks."""

    def __init__(self, history: "History") -> None:
        self.source: Source = history.source.clone()
        self._rows = self.source.store.rows
        self.history = history

    def keys(self, stream: str) -> list[str]:
        """The names in a stream, in order."""
        return sorted(key for key in self._rows if f"/ledger/{stream}/" in key)

    def change(self, key: str, data: bytes) -> None:
        """Other bytes under the same name."""
        self._rows[key] = [replace(self._rows[key][0], data=data)]

    def data(self, key: str) -> bytes:
        """The bytes under a name."""
        return self._rows[key][0].data or b""

    def flip(self, key: str) -> None:
        """One bit in the middle."""
        data = bytearray(self.data(key))
        data[len(data) // 2] ^= 0x10
        self.change(key, bytes(data))

    def delete(self, key: str) -> None:
        """Gone, without a delete marker."""
        del self._rows[key]

    def parts(self) -> list[str]:
        """The parts of base backup B."""
        return self.keys(f"base-{self.history.b.snapshot_id}")

    def only_b(self) -> None:
        """Without base backup A, so that nothing older can step in."""
        self.delete(self.history.a.manifest_key)


def middle(keys: list[str]) -> str:
    """Neither the first nor the last."""
    return keys[len(keys) // 2]


def flip_wal(damage: Damage) -> None:
    """A bit of an old piece."""
    damage.flip(damage.keys("wal")[-3])


def cut_wal(damage: Damage) -> None:
    """A piece that lost its end."""
    key = damage.keys("wal")[-3]
    damage.change(key, damage.data(key)[:-40])


def lose_wal(damage: Damage) -> None:
    """A piece that is gone."""
    damage.delete(damage.keys("wal")[-3])


def swap_wal(damage: Damage) -> None:
    """Two pieces under each other's names."""
    one, two = damage.keys("wal")[-4:-2]
    first, second = damage.data(one), damage.data(two)
    damage.change(one, second)
    damage.change(two, first)


def flip_last_wal(damage: Damage) -> None:
    """A bit of the newest piece."""
    damage.flip(damage.keys("wal")[-1])


def flip_part(damage: Damage) -> None:
    """A bit of a part."""
    damage.flip(damage.parts()[0])


def cut_part(damage: Damage) -> None:
    """Half a part."""
    key = damage.parts()[0]
    damage.change(key, damage.data(key)[: len(damage.data(key)) // 2])


def lose_part(damage: Damage) -> None:
    """A part that is gone."""
    damage.delete(damage.parts()[-1])


def swap_parts(damage: Damage) -> None:
    """Two parts under each other's names."""
    one, two = damage.parts()[:2]
    first, second = damage.data(one), damage.data(two)
    damage.change(one, second)
    damage.change(two, first)


def replay_old_part(damage: Damage) -> None:
    """An older backup's part under a newer one's name."""
    old = damage.keys(f"base-{damage.history.a.snapshot_id}")[0]
    damage.change(damage.parts()[0], damage.data(old))


def flip_manifest(damage: Damage) -> None:
    """A bit of the manifest."""
    damage.flip(damage.history.b.manifest_key)


WAL = [flip_wal, cut_wal, lose_wal, swap_wal, flip_last_wal]
BASE = [flip_part, cut_part, lose_part, swap_parts, replay_old_part, flip_manifest]


@pytest.mark.parametrize("hurt", [*WAL, *BASE])
def test_damage_in_the_vault_is_named_and_nothing_is_left(
    history: "History", engine_dir: Path, hurt: Callable[[Damage], None]
) -> None:
    """Any damage to what a restore to `latest` needs is an error of the vault's; the folder is as it was."""
    damage = Damage(history)
    damage.only_b()
    hurt(damage)
    into = engine_dir / "into"
    with pytest.raises(VaultError) as caught:
        attempt(latest(damage.source), damage.source.vault, into)
    assert caught.value.code.split(".")[0] in {"vault", "restore", "wal", "backup"}
    assert not into.exists()


def latest(source: "Source") -> RestorePlan:
    """The plan to the end."""
    return plan_restore(source.vault, "ledger", Target.parse("latest"))


@pytest.mark.parametrize("hurt", [lose_part, flip_manifest])
def test_an_older_base_backup_steps_in_when_the_newest_is_visibly_unusable(
    history: "History", hurt: Callable[[Damage], None]
) -> None:
    """What a plan can see is not fatal while an older base backup reaches the target; the plan says what it passed."""
    damage = Damage(history)
    hurt(damage)
    plan = latest(damage.source)
    assert plan.base.snapshot_id == history.a.snapshot_id
    assert any(history.b.manifest_key in note for note in plan.notes)
    assert plan.frame.end == history.end


def test_pieces_that_were_in_flight_beyond_a_hole_are_left_out_and_said(history: "History") -> None:
    """A capture that died with puts in flight leaves a hole that was never acknowledged: the plan ends before it."""
    damage = Damage(history)
    wal = list(damage.source.vault.objects("ledger", "wal"))
    last = damage.source.vault.open(wal[-1])
    damage.delete(str(wal[-1].key))
    # The same bytes, as a piece beyond a hole, made when nothing behind the hole was stored.
    header = last.header
    prepared = damage.source.vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id=header.system_id, timeline=1, first=header.first + 64,
        last=header.last, begin_at=header.begin_at, end_at=header.end_at, plaintext=last.plaintext[64:],
        extra={"acknowledged_to": f"{header.first:016X}"},
    )  # fmt: skip
    lock = damage.source.vault.locks.lock("ledger", "wal", damage.source.vault.clock())
    damage.source.vault.put(prepared.seal(), lock)
    plan = latest(damage.source)
    assert plan.chain_end == header.first
    assert any("in flight" in note for note in plan.notes)


def test_rubbish_under_a_fitting_name_does_not_stop_a_restore(history: "History") -> None:
    """Who may only write cannot keep us from restoring: what nobody of ours signed is passed over and told."""
    damage = Damage(history)
    stranger = throwaway_vault(estate="house")
    last = list(damage.source.vault.objects("ledger", "wal"))[-1].key
    now = stranger.clock()
    prepared = stranger.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id=last.system_id, timeline=1, first=last.last,
        last=last.last + 8, begin_at=now, end_at=now, plaintext=bytes(8),
    )  # fmt: skip
    sealed = prepared.seal()
    damage.source.store.put(str(sealed.key), sealed.data, sealed.sha256, stranger.locks.lock("ledger", "wal", now))
    plan = latest(damage.source)
    assert plan.chain_end == history.end
    assert any("untrusted_signer" in note for note in plan.notes)


def test_a_backup_whose_wal_is_not_stored_yet_is_not_usable(make_source: "Callable[..., Source]") -> None:
    """A base backup counts from the moment its WAL is in the chain, not before."""
    source = make_source()
    source.snapshot()
    with pytest.raises(VaultError) as caught:
        latest(source)
    assert caught.value.code == "restore.not_usable_yet"
    source.feed()
    assert latest(source).chain_end >= source.lsn() - 8192


def test_another_key_opens_nothing(history: "History", engine_dir: Path) -> None:
    """With other keys the error says so, and nothing is left."""
    stranger = throwaway_vault(
        estate="house",
        store=history.source.store,
        trust=history.source.vault.trust,
        rules=history.source.vault.locks.rules,
    )
    with pytest.raises(VaultError, match="key"):
        attempt(latest(replace(history.source, vault=stranger)), stranger, engine_dir / "into")


def hurt_laid(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, RestorePlan], None], plan: RestorePlan) -> None:
    """Damage the laid files at the last moment, when every check of them is over."""
    start = recovery.Replay._start

    def damaged(self: recovery.Replay) -> None:
        change(self._server.data_dir / "pg_wal", plan)
        start(self)

    monkeypatch.setattr(recovery.Replay, "_start", damaged)


def flip_laid(pg_wal: Path, plan: RestorePlan) -> None:
    """A byte of a row in the middle of the last, busy stretch: no checksum covers what lies between two records."""
    position = plan.frame.end - 500_000
    assert position > plan.base.stop_lsn
    segment = sorted(pg_wal.glob("0000*"))[(position >> 24) - (plan.frame.begin >> 24)]
    with segment.open("r+b") as file:
        file.seek(position & 0xFFFFFF)
        begin = (position & 0xFFFFFF) + file.read(64 << 10).index(b"zzzz")
        file.seek(begin)
        file.write(b"zZzz")


def flip_laid_early(pg_wal: Path, plan: RestorePlan) -> None:
    """A byte that is needed for consistency: no session is ever accepted then."""
    segment = min(pg_wal.glob("0000*"))
    with segment.open("r+b") as file:
        file.seek((plan.base.start_lsn & 0xFFFFFF) + 30)
        file.write(b"\xff\xff\xff\xff")


def lose_laid(pg_wal: Path, plan: RestorePlan) -> None:
    """The last segment."""
    assert plan.frame.end > plan.base.stop_lsn
    max(pg_wal.glob("0000*")).unlink()


@pytest.mark.parametrize("change", [flip_laid, flip_laid_early, lose_laid])
def test_damage_between_laying_and_replay_never_promotes(
    history: "History",
    engine_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, RestorePlan], None],
) -> None:
    """A flipped byte or a missing segment makes a server stop early; it is seen, nothing is promoted or left."""
    plan = latest(history.source)
    hurt_laid(monkeypatch, change, plan)
    promoted: list[object] = []
    monkeypatch.setattr("dr_assets.stores.postgres.restore.promote", promoted.append)
    with pytest.raises(DrError) as caught:
        attempt(plan, history.source.vault, engine_dir / "into")
    assert caught.value.code == "restore.replay_stopped"
    assert promoted == []
    assert not (engine_dir / "into").exists()


def test_a_flipped_byte_in_a_laid_file_is_found_before_the_server_starts(
    history: "History", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL would start on it and promote as if nothing were; its own manifest says otherwise."""
    finish = "dr_assets.stores.postgres.restore.finish_base"

    def damaged(laid: object, site: object, user: object) -> None:
        original(laid, site, user)  # type: ignore[arg-type]
        victim = max((site.data_dir / "base").rglob("*"), key=lambda path: path.stat().st_size)  # type: ignore[attr-defined]
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(bytes(data))

    from dr_assets.stores.postgres.lay import finish_base as original  # noqa: PLC0415 - the one that is wrapped

    monkeypatch.setattr(finish, damaged)
    with pytest.raises(VaultError, match="pg_verifybackup"):
        attempt(latest(history.source), history.source.vault, engine_dir / "into")
    assert not (engine_dir / "into").exists()


def test_a_laid_segment_that_a_disk_changed_disagrees_with_what_was_stored(
    history: "History", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is known from the vault's bytes, so a last record that vanished from the disk is missed."""
    plan = latest(history.source)
    finish = "dr_assets.stores.postgres.restore.finish_base"

    def damaged(laid: object, site: object, user: object) -> None:
        original(laid, site, user)  # type: ignore[arg-type]
        segment = max((site.data_dir / "pg_wal").glob("0000*"))  # type: ignore[attr-defined]
        with segment.open("r+b") as file:
            file.truncate((plan.frame.end & 0xFFFFFF) - 20)
            file.truncate(16 << 20)

    from dr_assets.stores.postgres.lay import finish_base as original  # noqa: PLC0415 - the one that is wrapped

    monkeypatch.setattr(finish, damaged)
    with pytest.raises(VaultError) as caught:
        attempt(plan, history.source.vault, engine_dir / "into")
    assert caught.value.code == "restore.wal_disagrees"


def test_a_folder_that_is_not_empty_is_not_touched(history: "History", engine_dir: Path) -> None:
    """Nothing is ever written over, and an unfinished restore is never continued."""
    into = engine_dir / "into"
    into.mkdir()
    (into / "mine").write_text("precious")
    with pytest.raises(DrError) as caught:
        attempt(latest(history.source), history.source.vault, into)
    assert caught.value.code == "restore.not_empty"
    assert [path.name for path in into.iterdir()] == ["mine"]
    (into / "mine").rename(into / MARK)
    with pytest.raises(DrError) as caught:
        attempt(latest(history.source), history.source.vault, into)
    assert caught.value.code == "restore.unfinished"
