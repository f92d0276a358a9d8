"""The offline check of an exported log, and a museum of broken exports: each damage is seen and named."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.log import statement
from dr_assets.vault.log.anchor import Anchored, calldata
from dr_assets.vault.log.belief import AnchorBelief, Belief
from dr_assets.vault.log.checkpoint import Checkpoint, Signed, sign_checkpoint
from dr_assets.vault.log.cosignature import CosignatureSigner
from dr_assets.vault.log.evm import Account, HexBytes
from dr_assets.vault.log.export import export_log
from dr_assets.vault.log.export_files import Export
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.merkle import leaf_hash, root_of, verify_inclusion
from dr_assets.vault.log.note import NoteSignature
from dr_assets.vault.log.offline import OfflineReport
from dr_assets.vault.log.offline_run import verify_export
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.shelf import ANCHOR, TIMESTAMP, WITNESSED, Proof, VaultShelf
from dr_assets.vault.log.statement import OBJECT, Statement, make_leaf
from dr_assets.vault.log.timestamp import load_roots
from dr_assets.vault.signing import Signer
from dr_assets.vault.vault import Receipt

CHAIN_ID = 31337
PAYER = "0x" + "11" * 32
LEAF = "extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n"
CONFIG = """
[tsa]
default_tsa = tsa1
[tsa1]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.32473.1
digests = sha256
"""


@dataclass(frozen=True)
class Copy:
    """An exported log, whom to believe about it, who signed it, and an object in it."""

    folder: Path
    belief: Belief
    signer: Signer
    fact: tuple[str, str]
    piece: tuple[str, str]

    def check(self, **changed: object) -> OfflineReport:
        """The offline check."""
        return verify_export(self.folder, replace(self.belief, **changed))[0]  # type: ignore[arg-type]

    def path(self, pattern: str, at: int = 0) -> Path:
        """A file of the copy."""
        return sorted(self.folder.glob(pattern))[at]


def _openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True, timeout=180)  # noqa: S607 - from PATH


def _authority(folder: Path) -> list[x509.Certificate]:
    folder.mkdir()
    (folder / "leaf").write_text(LEAF)
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(CONFIG)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    _openssl(
        folder, "req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=r", *ca
    )
    _openssl(folder, "req", *key, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Authority")
    signed = ("-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "30", "-extfile", "leaf")
    _openssl(folder, "x509", "-req", "-in", "tsa.csr", *signed, "-out", "tsa.pem")
    return load_roots(folder / "root.pem")


def _stamp(folder: Path, note: bytes) -> bytes:
    (folder / "note").write_bytes(note)
    _openssl(folder, "ts", "-query", "-data", "note", "-sha256", "-cert", "-out", "query")
    _openssl(folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "answer")
    return (folder / "answer").read_bytes()


def _cosign(witness: CosignatureSigner, signed: Signed) -> bytes:
    text = signed.checkpoint.text().encode()
    return NoteSignature(witness.name, witness.key_id, witness.sign(text)).line().encode()


def _anchor(checkpoint: Checkpoint) -> Anchored:
    fields = {"type": 2, "chainId": CHAIN_ID, "to": "0x" + "22" * 20, "value": 0, "nonce": 0, "gas": 30000}
    fees = {"maxFeePerGas": 1, "maxPriorityFeePerGas": 1, "data": "0x" + calldata(checkpoint).hex()}
    made = Account.sign_transaction(fields | fees, PAYER)
    address = Account.from_key(PAYER).address
    return Anchored(CHAIN_ID, HexBytes(made.hash).to_0x_hex(), address, HexBytes(made.raw_transaction).to_0x_hex())


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, requires: Callable[..., None], logged_vault: Callable[[], Any]
) -> Copy:
    """An export with several checkpoints, full and partial tiles, two witnesses, a time stamp and an anchor."""
    requires("openssl")
    folder = tmp_path_factory.mktemp("offline")
    logged = logged_vault()
    for count in (3, 250, 10):
        for _ in range(count):
            fact = logged.fact()
        piece = logged.piece()
        logged.sequence()
    reader: LogReader = logged.reader()
    shelf = VaultShelf(LogFiles(logged.vault))
    witnesses = [
        CosignatureSigner.of(
            f"witness.example/w{n}", Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32), lambda: logged.now
        )
        for n in (1, 2, 3)
    ]
    roots = _authority(folder / "tsa")
    signed, size = reader.signed, reader.checkpoint.size
    for witness in witnesses[:2]:
        shelf.put(Proof(WITNESSED, size, f"w-{witness.name[-1]}", _cosign(witness, signed)))
    shelf.put(Proof(TIMESTAMP, size, "tsa", _stamp(folder / "tsa", signed.note)))
    record = _anchor(reader.checkpoint)
    block = replace(record, block_number=7, block_hash="0x77", block_at=logged.now + timedelta(seconds=1))
    shelf.put(Proof(ANCHOR, size, "sent", record.to_bytes()))
    shelf.put(Proof(ANCHOR, size, "confirmed", block.to_bytes()))
    export_log(logged.reader(), folder / "copy")
    belief = Belief(
        reader.checkpoint.origin,
        logged.vault.trust,
        tuple(witness.verifier for witness in witnesses),
        2,
        tuple(roots),
        AnchorBelief(CHAIN_ID, record.sender),
    )
    return Copy(folder / "copy", belief, logged.signer, _said(fact), _said(piece))


def _said(receipt: Receipt) -> tuple[str, str]:
    return str(receipt.key), receipt.sha256


@pytest.fixture
def copy(whole: Copy, tmp_path: Path) -> Copy:
    """A copy of it to break."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    return replace(whole, folder=tmp_path / "copy")


def test_a_whole_export_is_proven_in_every_row(whole: Copy) -> None:
    """Nothing is damaged or strange; the one thing that can't be told offline is said so."""
    report = whole.check()
    assert report.ok, report.to_json()
    assert not report.strangers
    assert [row.claim for row in report.claims if row.verdict != "proven"] == [
        f"chain {CHAIN_ID} holds that transaction"
    ]
    assert len(report.claims) == 8
    assert "2 of 3" in report.claims[4].claim
    assert "CN=Authority" in report.claims[5].detail


def test_an_object_is_shown_to_be_logged(whole: Copy) -> None:
    """A fact by its own leaf, a piece by its batch's; the proof leads to the root, and others' bytes are refused."""
    for name, sha256 in (whole.fact, whole.piece):
        report, proof = verify_export(whole.folder, whole.belief, wanted=(name, sha256))
        assert report.ok
        assert proof
        checkpoint = proof.signed.checkpoint
        told = proof.to_json()
        verify_inclusion(
            bytes.fromhex(told["leaf_hash"]), told["index"], checkpoint.size, checkpoint.root, list(proof.path)
        )
        report, proof = verify_export(whole.folder, whole.belief, wanted=(name, "0" * 64))
        assert (report.ok, proof) == (False, None)
    report, proof = verify_export(whole.folder, whole.belief, wanted=("casino/ledger/none", "0" * 64))
    assert (report.ok, proof, report.claims[-1].verdict) == (True, None, "not proven")


def _files(copy: Copy) -> Iterator[Path]:
    return (path for path in sorted(copy.folder.rglob("*")) if path.is_file())


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work out once what each check would: that a signature is good, whose a transaction is.

    Pure functions by all of their arguments; what they refuse is refused anew each time.
    """
    monkeypatch.setattr(statement, "_verify", lru_cache(maxsize=None)(statement._verify))
    monkeypatch.setattr(
        Account, "recover_transaction", staticmethod(lru_cache(maxsize=None)(Account.recover_transaction))
    )


@pytest.mark.usefixtures("remembering")
def test_every_file_counts(copy: Copy) -> None:
    """One byte altered at begin, middle or end of any file, the file cut or gone: each is damage.

    Gone may only be what an outsider said, and the newest checkpoint where it lies a second time.
    """
    spare = f"checkpoints/{copy.check().size:020d}"
    for path in _files(copy):
        data = path.read_bytes()
        where = [0, len(data) // 2, len(data) - 1]
        breakages = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in where]
        for broken in [*breakages, data[:-1], None]:
            if broken is None:
                path.unlink()
            else:
                path.write_bytes(broken)
            report = copy.check()
            name = path.relative_to(copy.folder).as_posix()
            may_go = name == spare or name.partition("/")[0] in {WITNESSED, TIMESTAMP, ANCHOR}
            assert not report.ok or (broken is None and may_go), (path, broken and len(broken))
            path.write_bytes(data)
    assert copy.check().ok


@pytest.mark.parametrize("pattern", ["tile/0/000", "tile/0/001.p/*", "tile/1/000.p/*", "tile/entries/000", "batch/*"])
def test_damage_is_named_where_it_is(copy: Copy, pattern: str) -> None:
    """A flipped byte in one file is told of that file (and the leaf in it), and of none beside it."""
    path = copy.path(pattern)
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:] if len(data) > 40 else bytes(len(data)))
    named = {row.path for row in copy.check().damage if not row.path.startswith("leaf ")}
    known = path.relative_to(copy.folder).as_posix()
    assert named in ({known}, {known, f"batch/{path.name[:20]}"} if pattern == "batch/*" else {known})


def test_swapped_files_are_seen(copy: Copy) -> None:
    """Two files of a kind exchanged: tiles, bundles, checkpoints, batches, cosignatures."""
    for pattern in ("tile/0/*0*", "tile/entries/*", "checkpoints/*", "batch/*", "witnessed/*/*"):
        first, second = [path for path in sorted(copy.folder.glob(pattern)) if path.is_file() or path.is_dir()][:2]
        aside = copy.folder.parent / "aside"
        for _ in range(2):
            first.rename(aside)
            second.rename(first)
            aside.rename(second)
            if _ == 0:
                assert not copy.check().ok, pattern
    assert copy.check().ok


def test_nobody_elses_keys_are_enough(whole: Copy) -> None:
    """Another log key, another origin, witnesses that aren't believed: no checkpoint, no quorum."""
    stranger = Belief.of(whole.belief.to_json() | {"signers": [{"public_key": Signer.generate().public_key.hex()}]})
    report, _ = verify_export(whole.folder, stranger)
    assert not report.ok
    assert report.claims[0].verdict == "DAMAGED"
    assert not whole.check(origin="dr-assets/other/log").ok
    assert whole.check(quorum=3).quorum_missed
    assert whole.check(witnesses=whole.belief.witnesses[2:], quorum=1).quorum_missed
    assert whole.check(witnesses=(), quorum=0).ok


def test_without_outsiders_their_rows_are_not_proven(whole: Copy) -> None:
    """Who believes no witness, no authority and no payer is told what isn't proven, and the rest is."""
    report = whole.check(witnesses=(), quorum=0, tsa_roots=(), anchor=None)
    assert report.ok
    assert [row.verdict for row in report.claims] == ["proven"] * 4 + ["not proven"] * 3


def test_a_rewritten_log_is_seen_although_its_owner_signed_it(copy: Copy) -> None:
    """Whoever has the log's key rewrites a leaf, tiles and the newest checkpoint: older roots don't fit any more."""
    before = copy.path("checkpoints/*", 0).read_bytes()
    rewritten = _rewrite(copy, copy.signer)
    report = rewritten.check()
    assert not report.ok
    assert any("REWRITTEN" in row.detail for row in report.damage)
    assert copy.path("checkpoints/*", 0).read_bytes() == before


def _rewrite(copy: Copy, signer: Signer) -> Copy:
    """The same log with another first leaf, the newest checkpoint signed anew by the log's own key."""
    export = Export(copy.folder)
    newest = Checkpoint.parse((copy.folder / "checkpoint").read_text(encoding="utf-8").partition("\n\n")[0] + "\n")
    data = export.read("tile/0/000", limit_bytes=8192) or b""
    hashes = [data[at : at + 32] for at in range(0, len(data), 32)]
    rest = copy.path("tile/0/001.p/*").read_bytes()
    hashes += [rest[at : at + 32] for at in range(0, len(rest), 32)]
    leaf = make_leaf(Statement(OBJECT, "casino/ledger/other", "0" * 64), signer)
    hashes[0] = leaf_hash(leaf)
    (copy.folder / "tile/0/000").write_bytes(b"".join(hashes[:256]))
    bundle = copy.folder / "tile/entries/000"
    held = bundle.read_bytes()
    length = int.from_bytes(held[:2], "big")
    bundle.write_bytes(len(leaf).to_bytes(2, "big") + leaf + held[2 + length :])
    signed = sign_checkpoint(Checkpoint(newest.origin, newest.size, root_of(hashes)), signer)
    (copy.folder / "checkpoint").write_bytes(signed.note)
    (copy.folder / f"checkpoints/{newest.size:020d}").write_bytes(signed.note)
    return copy


def test_a_fork_beside_the_history_is_seen(copy: Copy) -> None:
    """Two signed checkpoints of one size: `checkpoint` says another root than the history."""
    size = copy.check().size
    signed = sign_checkpoint(Checkpoint(copy.belief.origin, size, bytes(32)), copy.signer)
    (copy.folder / "checkpoint").write_bytes(signed.note)
    report = copy.check()
    assert any("FORKED" in row.detail for row in report.damage)


def test_a_checkpoint_left_out_is_seen(copy: Copy) -> None:
    """The newest checkpoint taken away and an older one put in its place: batches and tiles tell on it."""
    (copy.folder / "checkpoint").write_bytes(copy.path("checkpoints/*", 1).read_bytes())
    assert not copy.check().ok
    copy.path("checkpoints/*", 2).unlink()
    report = copy.check()
    assert report.strangers
    copy.path("checkpoints/*", 0).unlink()
    assert not copy.check().ok


def test_strange_files_are_named_and_harm_nothing(copy: Copy) -> None:
    """What nobody vouches for is listed: a readme, a tile of no tree, well-named proofs that prove nothing."""
    (copy.folder / "README").write_text("trust me")
    (copy.folder / "tile/0/777").write_bytes(bytes(8192))
    for proof in (
        Proof(WITNESSED, copy.check().size, "w-1", b"junk"),
        Proof(TIMESTAMP, copy.check().size, "tsa", b"junk"),
        Proof(ANCHOR, copy.check().size, "sent", b"{" * 5000),
        Proof(WITNESSED, 5, "w-1", b"junk"),
    ):
        (copy.folder / proof.path).parent.mkdir(exist_ok=True)
        (copy.folder / proof.path).write_bytes(proof.data)
    report = copy.check()
    assert report.ok, report.to_json()
    assert report.strangers_total == 6
    assert {"README", "tile/0/777"} <= set(report.strangers)


def test_hostile_folders_are_refused_cleanly(copy: Copy, tmp_path: Path) -> None:
    """Links out of the folder, pipes, huge files, deep folders: damage that is named; nothing is followed or hangs."""
    secret = tmp_path / "secret"
    target = copy.folder / "tile/0/000"
    secret.write_bytes(target.read_bytes())
    target.unlink()
    target.symlink_to(secret)
    assert any("link" in row.detail for row in copy.check().damage)
    target.unlink()
    os.mkfifo(target)
    assert any("plain file" in row.detail for row in copy.check().damage)
    target.unlink()
    with target.open("wb") as file:
        file.truncate(1 << 40)
    assert any(f"has {1 << 40} bytes" in row.detail for row in copy.check().damage)
    target.unlink()
    deep = copy.folder / "/".join("d" * 30)
    deep.mkdir(parents=True)
    assert not copy.check().ok


def test_a_link_for_a_folder_is_not_followed(copy: Copy, tmp_path: Path) -> None:
    """`tile` led elsewhere by a link: nothing of it is read."""
    (copy.folder / "tile").rename(tmp_path / "elsewhere")
    (copy.folder / "tile").symlink_to(tmp_path / "elsewhere")
    assert any("link" in row.detail for row in copy.check().damage)


def test_deep_json_is_no_crash(copy: Copy) -> None:
    """Nested brackets where statements or batches should be: damage."""
    for path in (copy.path("batch/*"), copy.path("tile/entries/000")):
        held = path.read_bytes()
        path.write_bytes(b"[" * 200_000)
        assert not copy.check().ok
        path.write_bytes(held)


def test_no_folder_no_check(tmp_path: Path) -> None:
    """A folder that isn't there is the caller's mistake, an empty one is a damaged export."""
    with pytest.raises(PolicyError) as caught:
        verify_export(tmp_path / "absent", _belief())
    assert caught.value.code == "log.no_export"
    assert not verify_export(tmp_path, _belief())[0].ok


def _belief() -> Belief:
    return Belief.of({"origin": "x", "signers": [{"public_key": Signer.generate().public_key.hex()}]})


def test_a_belief_is_read_back(whole: Copy, tmp_path: Path) -> None:
    """The file that `dr-assets log trust` prints gives the same belief; what is none is refused."""
    path = tmp_path / "belief.json"
    path.write_text(json.dumps(whole.belief.to_json()))
    assert Belief.load(path) == whole.belief
    body = whole.belief.to_json()
    refused: list[dict[str, object]] = [{"quorum": 4}, {"quorum": -1}, {"signers": []}, {"origin": 7}]
    refused += [{"tsa_roots": "x"}, {"anchor": {"chain_id": 1}}, {"witnesses": [7]}]
    for changed in refused:
        path.write_text(json.dumps(body | changed))
        with pytest.raises(PolicyError) as caught:
            Belief.load(path)
        assert caught.value.code == "log.bad_belief"
    for text in ("", "[]", "[" * 100_000, "null"):
        path.write_text(text)
        with pytest.raises(PolicyError):
            Belief.load(path)
