"""Bundles: a vault as plain files, whole or not at all, and a vault again."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.replication import Options, replicate
from dr_assets.vault.replication.bundle import BundleStore, Exported, export, export_bundle
from dr_assets.vault.replication.bundle.layout import README_TEXT
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_replication import Regions

LEDGER = ("ledger",)


@pytest.fixture
def regions() -> Regions:
    """Some WAL, and two files of the log."""
    regions = Regions()
    for name in ("tile/0/000", "checkpoint/00000000000000000001"):
        regions.here.add(
            f"casino/log/{name}", name.encode(), Lock("GOVERNANCE", regions.clock.now + timedelta(days=30))
        )
    regions.clock.now += timedelta(minutes=2)
    return regions


def write(regions: Regions, folder: Path, **options: int) -> Exported:
    """Export, as a new process."""
    return export_bundle(regions.vault(regions.here, "primary"), folder, LEDGER, **options)  # type: ignore[arg-type]


def code(attempt: Callable[[], object]) -> str:
    """With what it is refused."""
    with pytest.raises(DrError) as caught:
        attempt()
    return caught.value.code


def names(regions: Regions) -> set[str]:
    """All that is ours."""
    return set(regions.here.rows)


def objects(folder: Path) -> set[str]:
    """The objects' files, by name."""
    return {
        str(path.relative_to(volume / "objects"))
        for volume in folder.glob("volume-*")
        for path in (volume / "objects").rglob("*")
        if path.is_file()
    }


def test_a_bundle_is_the_vault(regions: Regions, tmp_path: Path) -> None:
    """Every object under its name, byte for byte; strangers' are left out; the bundle verifies as the vault does."""
    regions.here.add("casino/ledger/readme", b"hello")
    regions.here.add(regions.some(), b"overlay")
    ours = names(regions) - {"casino/ledger/readme"}
    done = write(regions, tmp_path / "b")
    assert objects(tmp_path / "b") == ours
    assert not done.bundle.lacks
    store = BundleStore(tmp_path / "b", Trust.of(regions.signer))
    for name in ours:
        head = store.head(name)
        assert head is not None
        assert store.get(name).data == regions.here.rows[name][0].data
        assert head.lock == regions.here.rows[name][0].lock
    opened = regions.vault(store, "primary")
    assert verify(opened).ok
    wal = [opened.open(obj).plaintext for obj in opened.objects("ledger", "wal")]
    assert b"".join(wal) == regions.wal.expected(0, regions.wal.position)


def test_volumes_hold_what_fits(regions: Regions, tmp_path: Path) -> None:
    """Split by size, each volume with its own contents; all of them make the bundle, one less does not."""
    done = write(regions, tmp_path, volume_bytes=4000)
    assert len(done.bundle.volumes) >= 3
    assert all(volume.size_bytes <= 4000 for volume in done.bundle.volumes)
    assert objects(tmp_path) == names(regions)
    BundleStore(tmp_path)
    shutil.rmtree(tmp_path / "volume-0002")
    assert code(lambda: BundleStore(tmp_path)) == "bundle.missing"


def test_the_readmes_commands_check_every_byte(regions: Regions, tmp_path: Path) -> None:
    """Who has nothing but a shell learns of one wrong byte."""
    write(regions, tmp_path / "b", volume_bytes=9000)
    begin, end = README_TEXT.index("    for v in"), README_TEXT.index("    done")
    bash = shutil.which("bash")
    assert bash is not None

    def told() -> list[str]:
        script = README_TEXT[begin:end] + "    done"
        done = subprocess.run([bash, "-c", script], cwd=tmp_path / "b", capture_output=True, text=True, check=False)
        return done.stdout.splitlines()

    index = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert [line.split()[0] for line in told()] == [each["contents_sha256"] for each in index["volumes"]]
    victim = next(path for path in (tmp_path / "b" / "volume-0001" / "objects").rglob("*") if path.is_file())
    victim.write_bytes(b"x" + victim.read_bytes()[1:])
    assert "volume-0001 IS DAMAGED" in told()


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_killed_export_goes_on_and_claims_nothing(
    regions: Regions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """Whatever was on the disk is kept, what was not is written again; of the vault as it was at the first run."""
    monkeypatch.setattr(export, "BATCH_OBJECTS", 3)

    class KilledError(BaseException):
        """No more."""

    def kill(written: int, _: int) -> None:
        if written >= 3 * batches:
            raise KilledError

    with pytest.raises(KilledError):
        export_bundle(regions.vault(regions.here, "primary"), tmp_path, LEDGER, listener=kill)
    assert code(lambda: BundleStore(tmp_path)) == "bundle.unfinished"
    before = names(regions)
    regions.live(3)  # not in it: the first run fixed the moment
    contents = tmp_path / "volume-0001" / "contents.jsonl"
    with contents.open("ab") as file:
        file.write(b'{"held":false,"lo')  # a line that was cut off
    assert code(lambda: export_bundle(regions.vault(regions.here, "primary"), tmp_path, ("other",))) == "bundle.other"
    done = write(regions, tmp_path)
    assert done.written == len(before) - 3 * batches
    assert objects(tmp_path) == before
    assert verify(regions.vault(BundleStore(tmp_path), "primary")).ok
    assert code(lambda: write(regions, tmp_path)) == "bundle.is_whole"


def test_every_step_of_the_end_may_be_the_last(
    regions: Regions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any synchronisation: no index, or a whole bundle; a further run makes it whole."""
    count = _fsyncs(monkeypatch, None)
    write(regions, tmp_path / "clean")
    total = count[0]
    assert total > 10
    for at in range(1, total + 1):
        folder = tmp_path / f"killed{at}"
        _fsyncs(monkeypatch, at)
        with pytest.raises(KeyboardInterrupt):
            write(regions, folder)
        _fsyncs(monkeypatch, None)
        if (folder / "bundle.json").exists():
            assert verify(regions.vault(BundleStore(folder), "primary")).ok
        else:
            write(regions, folder)
            assert objects(folder) == names(regions)
            assert verify(regions.vault(BundleStore(folder), "primary")).ok


def _fsyncs(monkeypatch: pytest.MonkeyPatch, at: int | None) -> list[int]:
    count = [0]

    def fsync(_: int) -> None:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    return count


def test_damage_at_the_source_is_told_in_the_index(regions: Regions, tmp_path: Path) -> None:
    """The bundle says itself what it lacks."""
    name = regions.some()
    (row,) = regions.here.rows[name]
    row.data = b"x" + (row.data or b"")[1:]
    assert write(regions, tmp_path).bundle.lacks == (name,)
    assert BundleStore(tmp_path).bundle.lacks == (name,)


def test_a_bundle_that_was_tampered_with_is_refused(regions: Regions, tmp_path: Path) -> None:
    """An index by a stranger, contents that it doesn't name, a name that leads out of the folder, one wrong byte."""
    write(regions, tmp_path)
    trust = Trust.of(regions.signer)
    contents, index = tmp_path / "volume-0001" / "contents.jsonl", tmp_path / "bundle.json"
    whole, said = contents.read_bytes(), index.read_bytes()
    assert code(lambda: BundleStore(tmp_path, Trust.of(Signer.generate()))) == "vault.untrusted_signer"
    index.write_bytes(said.replace(b'"estate":"casino"', b'"estate":"casina"'))
    assert code(lambda: BundleStore(tmp_path, trust)) == "vault.bad_signature"
    index.write_bytes(said)
    contents.write_bytes(whole.split(b"\n", 1)[1])
    assert code(lambda: BundleStore(tmp_path, trust)) == "bundle.damaged"
    contents.write_bytes(whole.replace(b'"name":"casino/ledger/', b'"name":"../casino/led/', 1))
    assert code(lambda: BundleStore(tmp_path, trust)) == "vault.malformed"
    contents.write_bytes(whole)
    name = regions.some()
    path = tmp_path / "volume-0001" / "objects" / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    report = verify(regions.vault(BundleStore(tmp_path, trust), "primary"))
    assert name in {finding.key for finding in report.errors}


def test_a_bundle_whose_signature_was_taken_off_is_refused(regions: Regions, tmp_path: Path) -> None:
    """Else whoever had the disk could leave out the newest objects, and say that nobody had signed."""
    write(regions, tmp_path)
    index = tmp_path / "bundle.json"
    said = json.loads(index.read_text())
    index.write_bytes(canonical.encode({**said, "signer_id": None, "signature": None}))
    assert code(lambda: BundleStore(tmp_path, Trust.of(regions.signer))) == "bundle.unsigned"
    BundleStore(tmp_path)  # who has no trust file has nothing to hold it to


def test_a_rotten_file_of_the_log_is_not_brought_into_a_vault(regions: Regions, tmp_path: Path) -> None:
    """Its name has no digest, and there it would be locked under that name: the contents' line says what it was."""
    write(regions, tmp_path)
    name = "casino/log/tile/0/000"
    path = tmp_path / "volume-0001" / "objects" / name
    path.write_bytes(b"x" + path.read_bytes()[1:])
    store, target = BundleStore(tmp_path, Trust.of(regions.signer)), MemoryStore(regions.clock)
    assert code(lambda: store.get(name)) == "vault.tampered"
    done = replicate(
        regions.vault(store, "primary"), regions.vault(target, "new"), LEDGER, Options(copy=True, record=False)
    )
    assert [(each.name, each.why) for each in done.standing.unproven] == [(name, "tampered")]
    assert name not in target.rows


def test_a_pipe_in_an_objects_place_hangs_nobody(regions: Regions, tmp_path: Path) -> None:
    """Whoever laid it there would stop a recovery without a word."""
    write(regions, tmp_path)
    store, name = BundleStore(tmp_path), regions.some()
    path = tmp_path / "volume-0001" / "objects" / name
    path.unlink()
    os.mkfifo(path)
    assert code(lambda: store.get(name)) == "vault.tampered"
    assert code(lambda: store.get_range(name, "bundle", 0, 9)) == "vault.tampered"


def test_a_bundle_comes_back_into_a_vault(regions: Regions, tmp_path: Path) -> None:
    """Import is replication from files: everything is there, locked as it was, and verifies."""
    write(regions, tmp_path)
    target = MemoryStore(regions.clock)
    bundle = regions.vault(BundleStore(tmp_path), "primary")
    options = Options(copy=True, samples=0, record=False)
    done = replicate(bundle, regions.vault(target, "new"), LEDGER, options)
    assert done.standing.unproven_count == 0
    assert set(target.rows) == names(regions)
    for name, (row,) in target.rows.items():
        mine = regions.here.rows[name][0]
        assert row.lock == mine.lock
        assert hashlib.sha256(row.data or b"").hexdigest() == mine.sha256
    assert verify(regions.vault(target, "new")).ok


def test_a_bundle_can_not_be_written_to(regions: Regions, tmp_path: Path) -> None:
    """It is a copy; and a folder that holds something else is left alone."""
    write(regions, tmp_path / "b")
    store = BundleStore(tmp_path / "b")
    lock = Lock("GOVERNANCE", regions.clock.now)
    for attempt in (
        lambda: store.put("a", b"", "", lock), lambda: store.extend("a", "b", lock),
        lambda: store.delete_version("a", "b"), lambda: store.set_hold("a", "b", held=True),
    ):  # fmt: skip
        with pytest.raises(PolicyError, match=r"bundle\.read_only"):
            attempt()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert code(lambda: write(regions, tmp_path / "other")) == "bundle.not_empty"
    assert code(lambda: BundleStore(tmp_path / "other")) == "bundle.unfinished"
    with pytest.raises(VaultError, match=r"vault\.missing"):
        store.get("casino/ledger/wal/7/00000001/nonesuch")
