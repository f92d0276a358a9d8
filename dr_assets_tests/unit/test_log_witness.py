"""The witness: what it cosigns, what it refuses and how it answers, over its real HTTP on loopback."""

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log import merkle, witness_server
from dr_assets.vault.log.checkpoint import Checkpoint, Signed
from dr_assets.vault.log.cosignature import CosignatureSigner, cosigned_at
from dr_assets.vault.log.note import Ed25519Signer, parse_note, sign_note, verify_note
from dr_assets.vault.log.shelf import WITNESSED, Proof, plain_name
from dr_assets.vault.log.witness_book import COSIGNED, EVIDENCE, EVIDENCE_LIMIT, WitnessBook
from dr_assets.vault.log.witness_client import WitnessPlace, ask_witness, cosignature_held
from dr_assets.vault.log.witness_protocol import AddCheckpoint
from dr_assets.vault.log.witness_server import Cosigner, WitnessServer

ORIGIN = "dr-assets/casino/primary"
AT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
LOG = Ed25519Signer.of(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
WITNESS = CosignatureSigner.of("witness.example/w1", Ed25519PrivateKey.from_private_bytes(b"\2" * 32), lambda: AT)
patient_ask = partial(ask_witness, patience_s=180.0)  # a machine that is busy takes its time
Answered = tuple[int, str, bytes]


class Tree:
    """A log in memory; `fork_at` says from which leaf on its history differs."""

    def __init__(self, fork_at: int = 1 << 30) -> None:
        self.hashes = [merkle.leaf_hash(b"%d%d" % (n, n >= fork_at)) for n in range(40)]

    def at(self, size: int, signer: Ed25519Signer = LOG, origin: str = ORIGIN) -> Signed:
        """The signed checkpoint of a size."""
        checkpoint = Checkpoint(origin, size, merkle.root_of(self.hashes[:size]))
        return Signed(checkpoint, sign_note(checkpoint.text(), [signer]))

    def proof(self, old: int, new: int) -> list[bytes]:
        """The consistency proof between two sizes."""
        return merkle.consistency_proof(merkle.range_root_of(self.hashes), old, new)

    def request(self, old: int, new: int) -> bytes:
        """A whole request."""
        return AddCheckpoint(old, tuple(self.proof(old, new)), self.at(new).note).to_bytes()


class Shelf:
    """Proofs in memory."""

    def __init__(self) -> None:
        self.proofs: list[Proof] = []

    def put(self, proof: Proof) -> None:
        """As the port."""
        assert Proof.of(proof.path, proof.data) == proof
        self.proofs.append(proof)

    def held(self, kind: str, size: int) -> list[Proof]:
        """As the port."""
        return [proof for proof in self.proofs if (proof.kind, proof.size) == (kind, size)]

    def sizes(self, kind: str) -> list[int]:
        """As the port."""
        return sorted({proof.size for proof in self.proofs if proof.kind == kind})


@contextmanager
def _serving(folder: Path, signer: CosignatureSigner = WITNESS) -> Iterator[str]:
    if not folder.exists():
        WitnessBook.begin(folder)
    with WitnessBook(folder) as book:
        server = WitnessServer(("127.0.0.1", 0), Cosigner(signer, {ORIGIN: [LOG.verifier]}, book))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A witness that knows the log's key and no checkpoint yet."""
    with _serving(tmp_path / "w") as address:
        yield address


def _send(url: str, body: bytes, path: str = "/add-checkpoint", method: str = "POST") -> Answered:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=180)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


def test_a_history_that_goes_on_is_cosigned(url: str) -> None:
    """From nothing to 5, to 5 again, to 17, to 32: each is cosigned with the witness's key and time."""
    tree = Tree()
    for old, new in [(0, 5), (5, 5), (5, 17), (17, 32)]:
        status, _, line = _send(url, tree.request(old, new))
        assert status == 200
        note = verify_note(tree.at(new).note + line, [LOG.verifier, WITNESS.verifier])
        assert [s.name for s in note.signatures] == [ORIGIN, "witness.example/w1"]
        assert cosigned_at(note.signatures[1]) == AT


def test_the_newest_cosigned_checkpoint_is_served(url: str) -> None:
    """Monitors get it under the origin's hash, with both signatures; 404 for a log that was never cosigned."""
    path = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
    assert _send(url, b"", path, "GET")[0] == 404
    _send(url, Tree().request(0, 5))
    _send(url, Tree().request(5, 9))
    status, kind, note = _send(url, b"", path, "GET")
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    assert len(verify_note(note, [LOG.verifier, WITNESS.verifier]).signatures) == 2
    assert Checkpoint.parse(verify_note(note, [LOG.verifier]).text).size == 9


def test_a_wrong_old_size_is_a_conflict_that_tells_the_size(url: str) -> None:
    """409 with the size it cosigned, as text/x.tlog.size: so that the log can send the right proof."""
    assert _send(url, Tree().request(0, 5))[0] == 200
    assert _send(url, Tree().request(0, 9)) == (409, "text/x.tlog.size", b"5\n")
    assert _send(url, Tree().request(3, 9)) == (409, "text/x.tlog.size", b"5\n")
    assert _send(url, Tree().request(3, 4)) == (409, "text/x.tlog.size", b"5\n")


def test_a_fork_is_refused_and_its_proof_is_kept(url: str, tmp_path: Path) -> None:
    """422 for another history, whether longer or of the same size; two roots of one size are filed as a fork."""
    assert _send(url, Tree().request(0, 8))[0] == 200
    fork = Tree(fork_at=3)
    assert _send(url, fork.request(8, 12))[0] == 422
    assert _send(url, fork.request(8, 8))[0] == 422
    assert _send(url, fork.request(2, 8)) == (409, "text/x.tlog.size", b"8\n")
    kept = sorted(path.name.partition("-")[0] for path in (tmp_path / "w" / EVIDENCE).iterdir())
    assert kept == ["fork", "fork", "unproven"]
    assert _send(url, Tree().request(8, 12))[0] == 200


def test_evidence_does_not_fill_the_disk(tmp_path: Path) -> None:
    """However many invented proofs arrive, few are kept, and a fork still is."""
    with _serving(tmp_path / "w") as url:
        _send(url, Tree().request(0, 8))
        for n in range(EVIDENCE_LIMIT + 5):
            invented = AddCheckpoint(8, (bytes([n]) * 32,), Tree().at(12).note)
            assert _send(url, invented.to_bytes())[0] == 422
        _send(url, Tree(fork_at=3).request(8, 8))
    kept = [path.name.partition("-")[0] for path in (tmp_path / "w" / EVIDENCE).iterdir()]
    assert (kept.count("unproven"), kept.count("fork")) == (EVIDENCE_LIMIT, 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, AddCheckpoint(0, (), Tree().at(5, origin="other/log").note).to_bytes()),
        (
            403,
            AddCheckpoint(0, (), Tree().at(5, Ed25519Signer.of(ORIGIN, Ed25519PrivateKey.generate())).note).to_bytes(),
        ),
        (403, AddCheckpoint(0, (), Tree().at(5).note.replace(b"\n5\n", b"\n6\n")).to_bytes()),
        (400, AddCheckpoint(6, (), Tree().at(5).note).to_bytes()),
        (400, b""),
        (400, b"old 0\n\n"),
        (400, b"old 00\n\n" + Tree().at(5).note),
        (400, b"old -1\n\n" + Tree().at(5).note),
        (400, b"old 0" + Tree().at(5).note),
        (400, b"old 0\nAAAA\n\n" + Tree().at(5).note),
        (400, b"old 0\n" + b"A" * 43 + b"=\n\xff\n\n" + Tree().at(5).note),
        (400, AddCheckpoint(5, (bytes(32),) * 64, Tree().at(5).note).to_bytes()),
        (400, b"old 0\n\n" + sign_note("not a checkpoint\n", [LOG])),
        (422, AddCheckpoint(0, (bytes(32),), Tree().at(5).note).to_bytes()),
        (422, AddCheckpoint(0, (), sign_note(Checkpoint(ORIGIN, 0, bytes(32)).text(), [LOG])).to_bytes()),
        (413, b"old 0\n\n" + b"x" * (1 << 20)),
    ],
)
def test_what_is_not_well_asked_is_refused(url: str, status: int, body: bytes) -> None:
    """Each wrong request gets the status that the specification names, nothing is remembered, the next one works."""
    assert _send(url, body)[0] == status
    assert _send(url, Tree().request(0, 5))[0] == 200


def test_a_refusal_reaches_an_asker_that_is_still_sending(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends too much, slowly, is not cut off: the whole of it can be sent, and the 413 read after it."""
    monkeypatch.setattr(witness_server, "UNREAD_LIMIT_S", 180.0)
    host, _, port = url.removeprefix("http://").partition(":")
    length = 2 << 20
    with socket.create_connection((host, int(port)), timeout=180) as sender:
        sender.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length)
        assert sender.recv(12) == b"HTTP/1.1 413"  # the answer is there before a byte of the body was sent
        for _ in range(length >> 16):
            sender.sendall(bytes(1 << 16))
    assert _send(url, Tree().request(0, 5))[0] == 200


def test_an_empty_log_may_be_cosigned(url: str) -> None:
    """Size zero with the empty tree's root, and onwards from there without a proof."""
    assert _send(url, Tree().request(0, 0))[0] == 200
    assert _send(url, Tree().request(0, 7))[0] == 200


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """After a restart the witness still refuses a fork of what it cosigned before."""
    with _serving(tmp_path / "w") as url:
        assert _send(url, Tree().request(0, 8))[0] == 200
    with _serving(tmp_path / "w") as url:
        assert _send(url, Tree(fork_at=3).request(0, 8)) == (409, "text/x.tlog.size", b"8\n")
        assert _send(url, Tree(fork_at=3).request(8, 12))[0] == 422


def test_what_could_not_be_remembered_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails before the new file stands: no cosignature leaves, and the old state still holds."""
    with _serving(tmp_path / "w") as url:
        assert _send(url, Tree().request(0, 5))[0] == 200
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", _no_space)
            status, _, body = _send(url, Tree().request(5, 9))
            assert status == 500
            assert b"witness.example" not in body
        assert _send(url, Tree().request(5, 8))[0] == 200


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_files_are_synced_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, then its folder: both reach the disk before the cosignature is handed out."""
    WitnessBook.begin(tmp_path / "w")
    order: list[str] = []
    with WitnessBook(tmp_path / "w") as book:
        cosigner = Cosigner(WITNESS, {ORIGIN: [LOG.verifier]}, book)
        monkeypatch.setattr("os.fsync", lambda _: order.append("sync"))
        real = Path.replace

        def replace(draft: Path, target: Path) -> Path:
            order.append("replace")
            return real(draft, target)

        monkeypatch.setattr(Path, "replace", replace)
        assert cosigner.add_checkpoint(Tree().request(0, 5)).status == 200
    assert order == ["sync", "replace", "sync"]


def test_an_altered_memory_is_not_believed(tmp_path: Path) -> None:
    """A state file that isn't what this witness cosigned stops it, instead of letting it begin anew."""
    with _serving(tmp_path / "w") as url:
        _send(url, Tree().request(0, 8))
    (path,) = (tmp_path / "w" / COSIGNED).iterdir()
    whole = path.read_bytes()
    other = tmp_path / "w" / COSIGNED / ("0" * 64)
    for damaged, where in [(whole.replace(b"\n8\n", b"\n4\n"), path), (b"", path), (whole, other)]:
        path.write_bytes(whole)
        where.write_bytes(damaged)
        with WitnessBook(tmp_path / "w") as book, pytest.raises(VaultError) as caught:
            Cosigner(WITNESS, {ORIGIN: [LOG.verifier]}, book).require_memory()
        assert caught.value.code == "witness.forgot"


def test_one_process_has_a_book(tmp_path: Path) -> None:
    """Two witnesses over one folder would cosign two histories: the second is refused; so is a folder that is none."""
    with pytest.raises(PolicyError) as caught:
        WitnessBook(tmp_path)
    assert caught.value.code == "witness.not_set_up"
    WitnessBook.begin(tmp_path / "w")
    with WitnessBook(tmp_path / "w"):
        with pytest.raises(PolicyError) as caught:
            WitnessBook(tmp_path / "w")
        assert caught.value.code == "witness.in_use"
    with WitnessBook(tmp_path / "w"):
        pass


def _send_into(answers: list[Answered], url: str, body: bytes) -> None:
    answers.append(_send(url, body))


def test_racing_askers_never_roll_back(tmp_path: Path) -> None:
    """Many askers at once from one old size: exactly one is cosigned, the others get the new size."""
    slow = CosignatureSigner(WITNESS.name, WITNESS.public_key, _slowly, WITNESS.clock)
    bodies = [Tree().request(5, new) for new in range(6, 30)]
    answers: list[Answered] = []
    with _serving(tmp_path / "w", slow) as url:
        _send(url, Tree().request(0, 5))
        threads = [threading.Thread(target=_send_into, args=(answers, url, body)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(status for status, _, _ in answers) == [200] + [409] * (len(bodies) - 1)
    assert len({body for status, _, body in answers if status == 409}) == 1


def test_whoever_asks_while_a_witness_is_busy_waits(tmp_path: Path) -> None:
    """Forty connections that come before one is accepted are all answered, none of them is reset."""
    WitnessBook.begin(tmp_path / "w")
    answers: list[Answered] = []
    with WitnessBook(tmp_path / "w") as book:
        server = WitnessServer(("127.0.0.1", 0), Cosigner(WITNESS, {ORIGIN: [LOG.verifier]}, book))
        url = f"http://127.0.0.1:{server.server_port}"
        asking = [threading.Thread(target=_send_into, args=(answers, url, Tree().request(0, 5))) for _ in range(40)]
        for thread in asking:
            thread.start()
        time.sleep(1)  # busy: nobody is accepted
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        for thread in asking:
            thread.join()
        server.shutdown()
        serving.join()
        server.server_close()
    assert sorted({status for status, _, _ in answers}) == [200, 409]
    assert len(answers) == 40


def _slowly(message: bytes) -> bytes:
    time.sleep(0.05)
    return WITNESS.sign_raw(message)


def test_the_client_keeps_cosignatures_once(url: str) -> None:
    """Asked after each checkpoint, also when some were never shown: kept beside the checkpoint, asked once each."""
    tree, shelf = Tree(), Shelf()
    place = WitnessPlace("w1", url, WITNESS.verifier)
    for known, size in ((0, 4), (4, 9), (4, 9), (4, 30), (30, 30)):
        assert patient_ask(place, tree.at(size), tree.proof, shelf, known=known).standing == "vouched"
    assert [proof.size for proof in shelf.proofs] == [4, 9, 30]
    held = cosignature_held(shelf, tree.at(30), place)
    assert held
    assert cosigned_at(held) == AT


def test_what_lies_on_the_shelf_is_not_believed_for_its_name(url: str) -> None:
    """Junk under a witness's name doesn't stand in for its cosignature: it is asked, and both lie there."""
    tree, shelf = Tree(), Shelf()
    place = WitnessPlace("w1", url, WITNESS.verifier)
    shelf.put(Proof(WITNESSED, 4, place.shelf_name, b"junk"))
    shelf.put(Proof(WITNESSED, 4, place.shelf_name, parse_note(tree.at(5).note).unverified[0].line().encode()))
    assert cosignature_held(shelf, tree.at(4), place) is None
    assert patient_ask(place, tree.at(4), tree.proof, shelf).detail == "cosigned now"
    assert cosignature_held(shelf, tree.at(4), place)


def test_a_client_that_forgot_learns_the_size_from_the_conflict(url: str) -> None:
    """With nothing on the shelf the client asks from zero, is told 9, and proves from there."""
    tree = Tree()
    place = WitnessPlace("w1", url, WITNESS.verifier)
    patient_ask(place, tree.at(9), tree.proof, Shelf())
    shelf = Shelf()
    assert patient_ask(place, tree.at(9), tree.proof, shelf).standing == "vouched"
    assert patient_ask(place, tree.at(12), tree.proof, shelf, known=3).standing == "vouched"
    assert len(shelf.proofs) == 2


def test_a_log_that_was_set_back_or_forked_is_told(url: str) -> None:
    """The witness knows more leaves, or others: the client says which, and keeps nothing."""
    place = WitnessPlace("w1", url, WITNESS.verifier)
    patient_ask(place, Tree().at(20), Tree().proof, Shelf())
    fork, shelf = Tree(fork_at=3), Shelf()
    assert patient_ask(place, Tree().at(12), Tree().proof, shelf).standing == "rolled_back"
    assert patient_ask(place, fork.at(20), fork.proof, shelf).standing == "forked"
    assert patient_ask(place, fork.at(25), fork.proof, shelf).standing == "forked"
    assert not shelf.proofs


def test_a_log_that_can_prove_nothing_is_not_blamed_on_the_witness(url: str) -> None:
    """What is damaged at home is raised: told as the witness's fault it would be a warning."""
    place, tree = WitnessPlace("w1", url, WITNESS.verifier), Tree()
    patient_ask(place, tree.at(9), tree.proof, Shelf())

    def damaged(old: int, new: int) -> list[bytes]:
        raise VaultError("log.damaged", f"no tiles from {old} to {new}", "restore them")

    with pytest.raises(VaultError, match=r"log\.damaged"):
        patient_ask(place, tree.at(12), damaged, Shelf())


def test_a_witness_that_is_away_or_wrong_is_told_apart(url: str) -> None:
    """No answer is `away`; a stranger's cosignature or a witness that doesn't know the log is `misbehaving`."""
    tree, shelf = Tree(), Shelf()
    stranger = CosignatureSigner.of("witness.example/w1", Ed25519PrivateKey.generate(), lambda: AT)
    away = patient_ask(WitnessPlace("w", "http://127.0.0.1:9", WITNESS.verifier), tree.at(5), tree.proof, shelf)
    assert away.standing == "away"
    wrong = patient_ask(WitnessPlace("w", url, stranger.verifier), tree.at(5), tree.proof, shelf)
    assert wrong.standing == "misbehaving"
    unknown = patient_ask(WitnessPlace("w", url, WITNESS.verifier), tree.at(5, origin="x/y"), tree.proof, shelf)
    assert (unknown.standing, "verifier key" in unknown.detail) == ("misbehaving", True)
    lost = patient_ask(WitnessPlace("w", f"{url}/elsewhere", WITNESS.verifier), tree.at(5), tree.proof, shelf)
    assert lost.standing == "misbehaving"
    assert not shelf.proofs


@pytest.mark.parametrize(
    ("status", "body", "standing"),
    [
        (200, b"", "misbehaving"),
        (200, b"junk\n", "misbehaving"),
        (200, b"\xe2\x80\x94 " * 100_000, "misbehaving"),
        (200, Tree().at(5).note.partition(b"\n\n")[2], "misbehaving"),
        (409, b"many\n", "misbehaving"),
        (409, b"9" * 40, "misbehaving"),
        (409, b"3\n", "misbehaving"),
        (409, b"9\n", "rolled_back"),
        (422, b"\xff", "forked"),
        (500, b"", "away"),
        (302, b"", "misbehaving"),
    ],
)
def test_whatever_a_witness_answers_is_told_and_nothing_kept(status: int, body: bytes, standing: str) -> None:
    """Junk, endless, contradictory answers and redirects: each has a standing, none is raised, none is kept."""

    class Odd(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    shelf = Shelf()
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        place = WitnessPlace("w", f"http://127.0.0.1:{server.server_port}", WITNESS.verifier)
        heard = patient_ask(place, Tree().at(5), Tree().proof, shelf)
        server.shutdown()
        thread.join()
    assert heard.standing == standing, heard
    assert not shelf.proofs


def test_file_names_of_witnesses_differ() -> None:
    """Readable, safe in a path, and no two names or keys share one."""
    names = {plain_name(name, key) for name in ("a/b", "a-b", "A/B", "é", "../..") for key in (b"\0" * 4, b"\1" * 4)}
    assert len(names) == 10
    proofs = [Proof(WITNESSED, 1, name, b"x") for name in names]
    assert all(Proof.of(proof.path, b"x") == proof for proof in proofs)
    assert not any(Proof.of(proof.path, b"y") for proof in proofs)
    assert all(".." not in name and "/" not in name for name in names)
