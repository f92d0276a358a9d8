"""The reader believes only what is proven: whatever is laid over or put in place of the log's files changes nothing."""

import contextlib
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.belief import Belief
from dr_assets.vault.log.checkpoint import Checkpoint, sign_checkpoint
from dr_assets.vault.log.export import export_log
from dr_assets.vault.log.files import PAGE, LogFiles
from dr_assets.vault.log.merkle import leaf_hash, verify_consistency, verify_inclusion
from dr_assets.vault.log.names import checkpoint_name
from dr_assets.vault.log.offline_run import verify_export
from dr_assets.vault.log.proof import check_proof, make_proof, require_named
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.log.shelf import Proof, VaultShelf
from dr_assets.vault.log.tiles import Tile, decode_bundle
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets.vault.witness import Witness, check_witness
from dr_assets_tests.unit.log.conftest import Logged


@pytest.fixture(scope="module")
def grown_once() -> Logged:
    """Some batches: 300 leaves and more, pieces among them."""
    logged = Logged()
    for count in (3, 200, 60, 45):
        for number in range(count):
            logged.fact(number=number)
        for _ in range(7):
            logged.piece()
        logged.sequence()
    return logged


@pytest.fixture
def grown(grown_once: Logged) -> Logged:
    """The same, for a test to spoil."""
    return grown_once.twin()


def test_every_leaf_and_every_growth_can_be_proven_from_the_store(grown: Logged) -> None:
    """Inclusion of each leaf, consistency with each checkpoint that was published."""
    reader = grown.reader()
    size, root = reader.checkpoint.size, reader.checkpoint.root
    leaves = list(reader.leaves())
    assert len(leaves) == size
    for index in range(0, size, 7):
        verify_inclusion(leaf_hash(leaves[index]), index, size, root, reader.inclusion(index))
        assert reader.leaf(index) == leaves[index]
    sizes = list(LogFiles(grown.vault).sizes_down())
    assert len(sizes) == 4
    for old in sizes:
        earlier = LogReader.at(grown.vault, old)
        assert earlier is not None
        verify_consistency(old, earlier.checkpoint.root, size, root, reader.consistency(old))
        reader.require_extends(earlier.checkpoint)
        assert list(earlier.leaves()) == leaves[:old]
    assert not [finding for finding in verify(grown.vault).findings if "/log/" in finding.key]


def test_a_log_is_read_as_of_a_moment(grown: Logged) -> None:
    """The newest checkpoint of then, whatever came since."""
    before = grown.reader().checkpoint
    then = grown.now
    grown.later(seconds=1)
    grown.fact()
    grown.sequence()
    reader = LogReader.open(grown.vault, as_of=then)
    assert reader is not None
    assert reader.checkpoint == before
    assert len(list(reader.leaves())) == before.size
    assert LogReader.open(grown.vault, as_of=then - timedelta(days=9)) is None


@pytest.mark.parametrize("seed", range(10))
def test_versions_and_delete_markers_on_top_of_the_logs_files_change_nothing(grown: Logged, seed: int) -> None:
    """Everything is read as before, and each of them is reported."""
    random = Random(seed)
    before, vouched = grown.reader().checkpoint, grown.vouched()
    grown.later(minutes=1)
    names = sorted(name for name in grown.store.rows if "/log/" in name)
    laid = random.sample(names, 12)
    for name in laid:
        data = bytearray(grown.store.rows[name][0].data or b"")
        data[random.randrange(len(data))] ^= 1 + random.randrange(255)
        grown.store.add(name, random.choice([None, bytes(data), b"", bytes(len(data))]))
    assert grown.reader().checkpoint == before
    assert grown.vouched() == vouched
    told = {finding.key for finding in verify(grown.vault).findings if finding.kind in {"overlay", "delete_marker"}}
    assert told >= set(laid)
    grown.fact()
    assert grown.sequence().leaves == 1


@pytest.mark.parametrize("seed", range(10))
def test_an_altered_file_of_the_log_is_never_believed_and_is_named(grown: Logged, seed: int) -> None:
    """Beneath the lock: reading says so or comes to the same; verification names the file."""
    random = Random(seed)
    vouched = grown.vouched()
    name = random.choice(sorted(name for name in grown.store.rows if "/log/" in name))
    row = grown.store.rows[name][0]
    assert row.data is not None
    at = random.randrange(len(row.data))
    row.data = row.data[:at] + bytes([row.data[at] ^ 0x10]) + row.data[at + 1 :]
    with contextlib.suppress(VaultError):
        assert grown.vouched() == vouched[: len(grown.vouched())]
    assert name in {finding.key for finding in verify(grown.vault).errors}


def test_a_checkpoint_of_a_stranger_is_passed_over_however_new_it_is(grown: Logged) -> None:
    """Junk at the largest size, and one signed by somebody else, hide nothing."""
    before = grown.reader()
    grown.store.add(checkpoint_name("casino", 10**19 - 1), before.note)
    forged = throwaway_log_note(before, Signer.generate())
    grown.store.add(checkpoint_name("casino", before.checkpoint.size + 1), forged)
    assert grown.reader().checkpoint == before.checkpoint


def _of_another_vault(logged: Logged, leaves: int) -> Logged:
    """The log of another vault of the same estate, by the same signer."""
    other = Logged(logged.now, logged.provider, logged.signer)
    for number in range(leaves):
        other.fact(number=number)
    done = Sequencer(_as("kyc", other)).run()
    assert done.checkpoint is not None
    assert done.checkpoint.origin == "dr-assets/casino/kyc"
    return other


@pytest.mark.parametrize("more", [-1, 0, 5])
def test_another_log_by_the_same_signer_copied_here_hides_nothing(logged: Logged, more: int) -> None:
    """All of it laid over ours, larger, smaller or of the same size: read, judged and continued as if it weren't."""
    for _ in range(9):
        logged.fact()
    logged.sequence()
    before = logged.reader().checkpoint
    other = _of_another_vault(logged, before.size + more - 1)  # the key's leaf comes on top
    logged.later(minutes=1)
    for name, rows in other.store.rows.items():
        if "/log/" in name:
            logged.store.add(name, rows[0].data, rows[0].lock)
    assert logged.reader().checkpoint == before
    check_witness(logged.vault, Witness.of([], [before]))
    told = {finding.kind for finding in verify(logged.vault).findings if "/log/checkpoint/" in finding.key}
    assert told == {"foreign" if more else "overlay"}
    copied = LogReader.open(_as("standby", logged))
    assert copied is not None
    assert copied.checkpoint == before
    with pytest.raises(VaultError, match=r"vault\.older_than_witness|log\.other_log"):
        check_witness(_as("throwaway", other), Witness.of([], [before]))
    logged.fact()
    assert logged.sequence().leaves == 1


def _as(name: str, logged: Logged) -> Vault:
    return throwaway_vault(
        store=logged.store, provider=logged.provider, signer=logged.signer, clock=lambda: logged.now, name=name
    )


@pytest.mark.parametrize("more", [b"\xe2\x80\x94 witness.example/x AAAAAEp1bms=\n", None])
def test_a_note_with_more_behind_it_is_not_the_one_that_was_published(grown: Logged, more: bytes | None) -> None:
    """A line by nobody, or the log's own twice: still signed, but stamps vouch for the bytes that were published."""
    before = grown.reader().note
    grown.later(minutes=1)
    grown.store.add(
        checkpoint_name("casino", grown.reader().checkpoint.size), before + (more or before.splitlines(True)[-1])
    )
    assert grown.reader().note == before


def test_junk_where_outsiders_words_lie_is_named(grown: Logged) -> None:
    """Under a name of that form and well locked, but not what the name was made for; a word that is whole is not."""
    grown.later(minutes=1)
    proof = Proof("witnessed", grown.reader().checkpoint.size, "w1", b"whole")
    VaultShelf(LogFiles(grown.vault)).put(proof)
    lock = grown.vault.locks.lock("log", "log", grown.now)
    junk = [f"casino/log/{tail}" for tail in (f"timestamp/{7:020d}/junk", proof.path[:-16] + "0" * 16)]
    for name in junk:
        grown.store.add(name, b"junk", lock)
    told = {finding.key: finding.kind for finding in verify(grown.vault).findings if "/log/" in finding.key}
    assert told == dict.fromkeys(junk, "foreign")


def throwaway_log_note(reader: LogReader, signer: Signer) -> bytes:
    """The next size, by a key that nobody trusts."""
    head = reader.checkpoint
    return sign_checkpoint(Checkpoint(head.origin, head.size + 1, head.root), signer).note


def test_the_newest_checkpoint_is_found_among_thousands_in_a_few_requests(logged: Logged) -> None:
    """Stores list upwards only; nobody reads a year's worth of names to find the last one."""
    logged.fact()
    logged.sequence()
    folder = checkpoint_name("casino", 0).rpartition("/")[0]
    for size in range(10, 30_000, 3):
        logged.store.add(f"{folder}/{size:020d}", b"")
    asked: list[str] = []
    rows = logged.store.list_versions

    def counted(prefix: str, start_after: str = "") -> object:
        asked.append(start_after)
        return rows(prefix, start_after)

    logged.store.list_versions = counted  # type: ignore[method-assign,assignment]  # counts what is asked
    down = LogFiles(logged.vault).sizes_down()
    assert [next(down) for _ in range(3)] == [29_998, 29_995, 29_992]
    assert len(asked) < 30
    assert next(iter(LogFiles(logged.vault).sizes_down(10))) < 10
    assert len(list(LogFiles(logged.vault).sizes_down())) == len(range(10, 30_000, 3)) + 1 > 2 * PAGE


def test_an_object_is_found_by_when_it_was_stored(grown: Logged) -> None:
    """From the first batch after its put on; without that from the beginning; what isn't logged isn't found."""
    for obj in list(grown.vault.objects())[::40]:
        found = grown.reader().find(str(obj.key), obj.modified_at)
        assert found is not None
        assert str(obj.key) in found.names
        assert grown.reader().find(str(obj.key)) == found
    late = grown.fact()
    assert grown.reader().find(str(late.key), late.stored_at) is None


def test_a_proof_file_shows_membership_to_whoever_has_the_public_key(grown: Logged) -> None:
    """Of a fact by itself, of a piece by the list behind its leaf; altered anywhere it shows nothing."""
    reader, trust = grown.reader(), Trust.of(grown.signer)
    names = [str(obj.key) for obj in grown.vault.objects()]
    for name in (next(name for name in names if "/facts-" in name), next(name for name in names if "/wal/" in name)):
        vouched = reader.find(name)
        assert vouched is not None
        text = make_proof(reader, vouched)
        proven = check_proof(text, trust)
        require_named(proven, name)
        assert (proven.index, proven.checkpoint) == (vouched.index, reader.checkpoint)
        with pytest.raises(VaultError, match=r"log\.not_vouched"):
            require_named(proven, name + "0")
        with pytest.raises(VaultError, match=r"log\.unsigned_note"):
            check_proof(text, Trust.of(Signer.generate()))
        for at in range(0, len(text), 31):
            altered = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
            with pytest.raises(VaultError, match=r"(log|vault)\."):
                check_proof(altered, trust)


def test_an_export_is_a_log_by_the_specification_and_goes_on_where_it_was(grown: Logged, tmp_path: Path) -> None:
    """`checkpoint`, all tiles, all entries; a second run adds what is new, and never mixes two logs."""
    done = export_log(grown.reader(), tmp_path)
    size = grown.reader().checkpoint.size
    assert (tmp_path / "checkpoint").read_bytes() == grown.reader().note
    entries = decode_bundle((tmp_path / Tile(-1, 0).path).read_bytes(), 256)
    entries += decode_bundle((tmp_path / Tile(-1, 1, size - 256).path).read_bytes(), size - 256)
    assert entries == list(grown.reader().leaves())
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4
    grown.fact()
    grown.sequence()
    again = export_log(grown.reader(), tmp_path)
    assert again.size == size + 1
    assert again.files < done.files
    assert again.kept >= 6
    other = Logged()
    other.fact()
    other.sequence()
    with pytest.raises(VaultError, match=r"log\.other_copy"):
        export_log(other.reader(), tmp_path)
    assert (tmp_path / "checkpoint").read_bytes() == grown.reader().note


@pytest.mark.parametrize("folder", ["tile/0", "checkpoints", "batch"])
def test_a_killed_export_is_whole_when_it_was_run_again(
    grown: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Killed in the middle of a file: what it left behind is gone, and nothing of the copy looks damaged."""
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.parent == tmp_path / folder:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            export_log(grown.reader(), tmp_path)
    export_log(grown.reader(), tmp_path)
    report, _ = verify_export(tmp_path, Belief(grown.reader().checkpoint.origin, Trust.of(grown.signer)))
    assert not report.damage
    assert not report.strangers


def test_a_known_checkpoint_that_the_log_does_not_continue_is_refused(grown: Logged) -> None:
    """Set back, or rewritten: each has its name."""
    newest = grown.reader().checkpoint
    older = LogReader.at(grown.vault, next(iter(LogFiles(grown.vault).sizes_down(newest.size))))
    assert older is not None
    with pytest.raises(VaultError, match=r"log\.older"):
        older.require_extends(newest)
    other = Logged(signer=grown.signer)
    other.fact()
    other.sequence()
    with pytest.raises(VaultError, match=r"log\.forked"):
        grown.reader().require_extends(other.reader().checkpoint)
