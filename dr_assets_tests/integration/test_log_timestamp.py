"""RFC 3161 time stamps against a real authority: OpenSSL's, served on loopback."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log import timestamp
from dr_assets.vault.log.checkpoint import Checkpoint, Signed
from dr_assets.vault.log.note import Ed25519Signer, sign_note
from dr_assets.vault.log.shelf import TIMESTAMP, Proof
from dr_assets.vault.log.timestamp import StampPlace, load_roots, stamp_held, verify_stamp

pytestmark = pytest.mark.integration

LOG = Ed25519Signer.of("dr-assets/casino/primary", Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
CONFIG = """
[tsa]
default_tsa = tsa1
[tsa1]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.32473.1
digests = sha256
"""
ROOT = "basicConstraints=critical,CA:TRUE"
stamp_checkpoint = partial(timestamp.stamp_checkpoint, patience_s=180)  # a busy machine answers late
LEAF = "extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n"


class Shelf:
    """Proofs in memory."""

    def __init__(self) -> None:
        self.proofs: list[Proof] = []

    def put(self, proof: Proof) -> None:
        """As the port."""
        self.proofs.append(proof)

    def held(self, kind: str, size: int) -> list[Proof]:
        """As the port."""
        return [proof for proof in self.proofs if (proof.kind, proof.size) == (kind, size)]

    def sizes(self, kind: str) -> list[int]:
        """As the port."""
        return sorted({proof.size for proof in self.proofs if proof.kind == kind})


@dataclass
class Authority:
    """A folder with keys and certificates, and the address it is served at."""

    folder: Path
    url: str = ""

    def place(self) -> StampPlace:
        """As the estate would declare it."""
        return StampPlace(self.url, load_roots(self.folder / "root.pem"))

    def reply(self, query: bytes) -> bytes:
        """What OpenSSL answers."""
        (self.folder / "query").write_bytes(query)
        _openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "answer", cwd=self.folder)
        return (self.folder / "answer").read_bytes()


def _openssl(*args: str, cwd: Path) -> None:
    subprocess.run(["openssl", *args], cwd=cwd, check=True, capture_output=True, timeout=180)  # noqa: S607 - from PATH


def _authority(folder: Path) -> Authority:
    folder.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (folder / "leaf").write_text(LEAF)
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
    root = ["-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=Test root"]
    _openssl("req", *root, "-addext", ROOT, "-addext", "keyUsage=critical,keyCertSign", cwd=folder)
    _openssl("req", *key, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Test authority", cwd=folder)
    signed = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "30", "-extfile", "leaf"]
    _openssl("x509", "-req", "-in", "tsa.csr", *signed, "-out", "tsa.pem", cwd=folder)
    return Authority(folder)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, requires: Callable[..., None]) -> Iterator[Authority]:
    """OpenSSL's authority behind HTTP on loopback."""
    requires("openssl")
    made = _authority(tmp_path_factory.mktemp("tsa") / "tsa")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = made.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/" else 503)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def signed() -> Signed:
    """A signed checkpoint."""
    checkpoint = Checkpoint(LOG.name, 7, b"\7" * 32)
    return Signed(checkpoint, sign_note(checkpoint.text(), [LOG]))


def test_a_checkpoint_is_stamped_once_and_verified_offline(authority: Authority, signed: Signed) -> None:
    """The token lies beside the checkpoint, is verified with the root alone, and isn't asked for twice."""
    shelf = Shelf()
    assert stamp_checkpoint(authority.place(), signed, shelf).standing == "vouched"
    assert stamp_checkpoint(authority.place(), signed, shelf).detail == "kept before"
    (proof,) = shelf.proofs
    stamp = verify_stamp(proof.data, signed.note, load_roots(authority.folder / "root.pem"))
    assert stamp.by == "CN=Test authority"
    assert stamp.at.tzinfo is not None


def test_openssl_verifies_what_is_kept(authority: Authority, signed: Signed, tmp_path: Path) -> None:
    """Others' tools: `openssl ts -verify` believes the kept file for the checkpoint's file, and for no other."""
    shelf = Shelf()
    stamp_checkpoint(authority.place(), signed, shelf)
    (tmp_path / "token").write_bytes(shelf.proofs[0].data)
    (tmp_path / "checkpoint").write_bytes(signed.note)
    shutil.copy(authority.folder / "root.pem", tmp_path / "root.pem")
    verify = ("ts", "-verify", "-in", "token", "-CAfile", "root.pem", "-data", "checkpoint")
    _openssl(*verify, cwd=tmp_path)
    (tmp_path / "checkpoint").write_bytes(signed.note + b"\n")
    with pytest.raises(subprocess.CalledProcessError):
        _openssl(*verify, cwd=tmp_path)


def test_another_authoritys_or_checkpoints_stamp_is_refused(
    authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    """A root that didn't issue it, other bytes, junk, a cut or altered token: none proves anything."""
    shelf = Shelf()
    stamp_checkpoint(authority.place(), signed, shelf)
    token, roots = shelf.proofs[0].data, load_roots(authority.folder / "root.pem")
    other = load_roots(_authority(tmp_path / "other").folder / "root.pem")
    for data, note, believed in [
        (token, signed.note, other),
        (token, signed.note + b"x", roots),
        (token[:-1], signed.note, roots),
        (token[:100] + b"\xff" + token[101:], signed.note, roots),
        (b"", signed.note, roots),
        (b"\x30\x80" * 30000, signed.note, roots),
    ]:
        with pytest.raises(VaultError) as caught:
            verify_stamp(data, note, believed)
        assert caught.value.code == "log.bad_timestamp"


def test_junk_on_the_shelf_does_not_stand_in_for_a_stamp(authority: Authority, signed: Signed) -> None:
    """What anybody could lay there is passed over: the authority is asked all the same."""
    shelf = Shelf()
    shelf.put(Proof(TIMESTAMP, 7, authority.place().shelf_name, b"junk"))
    assert stamp_held(shelf, signed, authority.place().roots) is None
    assert stamp_checkpoint(authority.place(), signed, shelf).detail.startswith("stamped at")
    assert stamp_held(shelf, signed, authority.place().roots)


def test_an_authority_that_is_away_or_unbelieved_delays_nothing(
    authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    """No answer and a 503 are `away`, a stranger's token is `misbehaving`; nothing is kept of any."""
    shelf, place = Shelf(), authority.place()
    assert stamp_checkpoint(StampPlace("http://127.0.0.1:9/", place.roots), signed, shelf).standing == "away"
    assert stamp_checkpoint(StampPlace(f"{place.url}busy", place.roots), signed, shelf).standing == "away"
    other = load_roots(_authority(tmp_path / "other").folder / "root.pem")
    assert stamp_checkpoint(StampPlace(place.url, other), signed, shelf).standing == "misbehaving"
    assert not shelf.proofs


def test_an_old_token_for_a_new_question_is_refused(authority: Authority, signed: Signed) -> None:
    """A replayed token has another nonce: it isn't taken for the answer."""
    shelf = Shelf()
    stamp_checkpoint(authority.place(), signed, shelf)
    with pytest.raises(VaultError):
        verify_stamp(shelf.proofs[0].data, signed.note, authority.place().roots, nonce=1)


def test_roots_are_certificates(tmp_path: Path) -> None:
    """A file that is missing or holds none is the operator's to mend."""
    (tmp_path / "empty").write_text("")
    for name in ("empty", "absent"):
        with pytest.raises(PolicyError) as caught:
            load_roots(tmp_path / name)
        assert caught.value.code == "log.bad_roots"
