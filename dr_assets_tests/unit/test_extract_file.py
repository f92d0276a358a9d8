"""The signed file of an extract: whatever is changed in it is named, and never a crash."""

from pathlib import Path

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.proving.extract_file import files_of, manifest_of, signature_of, verify_zip, write_zip
from dr_assets.reconciliation.extracts import Answer
from dr_assets.vault.signing import Signer, Trust

SIGNER = Signer.from_seed(bytes(range(32)))
ANSWERS = [Answer("player", ("player_id", "amount_minor", "currency"), (("2", "12", "EUR"), ("2", "-5", "USD")))]


def test_every_changed_byte_is_told_as_damage(tmp_path: Path) -> None:
    """Each byte in turn: what lies in no file of the zip may change, all else is refused in words."""
    path, contents = tmp_path / "extract.zip", files_of(ANSWERS)
    manifest = manifest_of({"dataset": "ledger"}, ANSWERS, contents)
    write_zip(path, manifest, signature_of(manifest, SIGNER), contents)
    trust, whole = Trust.of(SIGNER), path.read_bytes()
    wanted = verify_zip(path, trust)
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert verify_zip(path, trust) == wanted
        except VaultError:
            refused += 1
    assert refused > len(whole) // 2
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(VaultError):
            verify_zip(path, trust)
