"""Others' tools read what we write: an exported log, checked by the Go project's note and tlog packages."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.vault.log.checkpoint import verifiers_of
from dr_assets.vault.log.cosignature import CosignatureSigner
from dr_assets.vault.log.export import export_log
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.note import NoteSignature
from dr_assets.vault.log.shelf import WITNESSED, Proof, VaultShelf

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parent / "go"


@pytest.fixture(scope="module")
def checklog(tmp_path_factory: pytest.TempPathFactory, requires: Callable[..., None]) -> Path:
    """The checker, built from go/main.go with the modules that its go.sum names."""
    requires("go")
    folder = tmp_path_factory.mktemp("go")
    shutil.copytree(SOURCE, folder / "source")
    program = folder / "checklog"
    built = subprocess.run(
        ["go", "build", "-o", str(program), "."],  # noqa: S607 - from PATH
        cwd=folder / "source",
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,  # the first time all of Go's own packages as well
    )
    if built.returncode:
        pytest.skip(f"go can't build the checker here (its modules, or a version): {built.stderr[-300:]}")
    return program


def test_go_believes_an_export(checklog: Path, logged: Any, tmp_path: Path) -> None:
    """Every leaf is included, every checkpoint consistent, every cosignature believed; an altered tile is refused."""
    witness = CosignatureSigner.of("witness.example/w1", Ed25519PrivateKey.generate(), lambda: logged.now)
    for count in (3, 260, 40):
        for _ in range(count):
            logged.fact()
        logged.sequence()
        signed = logged.reader().signed
        line = NoteSignature(witness.name, witness.key_id, witness.sign(signed.checkpoint.text().encode())).line()
        VaultShelf(LogFiles(logged.vault)).put(Proof(WITNESSED, signed.checkpoint.size, "w1", line.encode()))
    reader = logged.reader()
    export_log(reader, tmp_path / "copy")
    (log_key,) = verifiers_of(reader.checkpoint.origin, logged.vault.trust)
    keys = [str(log_key.key), str(witness.verifier.key)]

    def check() -> subprocess.CompletedProcess[str]:
        args = [str(checklog), str(tmp_path / "copy"), *keys]
        return subprocess.run(args, capture_output=True, text=True, check=False, timeout=120)

    done = check()
    assert done.stdout == f"{reader.checkpoint.size} leaves, 3 checkpoints, 3 cosignatures\n", done.stderr
    tile = tmp_path / "copy/tile/0/000"
    data = tile.read_bytes()
    tile.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert check().returncode != 0
