"""C2SP tlog-cosignature and tlog-witness: the published examples, and bytes that Go's transparency-dev/formats made."""

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.cosignature import (
    CosignatureSigner,
    CosignatureVerifier,
    cosigned_at,
    cosigned_message,
)
from dr_assets.vault.log.note import Ed25519Verifier, NoteSignature, parse_note, sign_note, verify_note
from dr_assets.vault.log.witness_protocol import AddCheckpoint

SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SOFA_LOG = (
    "— example.com/behind-the-sofa"
    " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
SOFA_WITNESS = (
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe"
    "+mbIUBkBIfZ+qnA==\n"
)
# Made by github.com/transparency-dev/formats v0.1.1 (note.NewSignerForCosignatureV1) with the test key of Go's sumdb.
GO_KEY = "PeterNeumann+18b9780b+BBpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_LINE = (
    "— PeterNeumann GLl4CwAAAABrAokxBBYEQ+aLW2nHyeNJTxwgyAZTeNuV6yWhSX31QMe3CmjcCS5cERcPLM5GPeqUXPVKK66jXQLBSOVc0h+Sf7"
    "iIDA==\n"
)
GO_TIME = datetime.fromtimestamp(0x6B028931, UTC)
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
REQUEST = (
    "old 20852014\n"
    "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
    "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
    "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
    "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
    "\n" + SOFA + "\n" + SOFA_LOG
)


def _peter() -> CosignatureSigner:
    return CosignatureSigner.of("PeterNeumann", Ed25519PrivateKey.from_private_bytes(PETER_SEED), lambda: GO_TIME)


def test_the_specifications_checkpoint_and_time_are_read() -> None:
    """The example checkpoint with a cosignature parses: origin, size, and the time that its signed message shows."""
    note = parse_note((SOFA + "\n" + SOFA_LOG + SOFA_WITNESS).encode())
    head = Checkpoint.parse(note.text)
    assert (head.origin, head.size, head.text()) == ("example.com/behind-the-sofa", 20852163, SOFA)
    assert cosigned_at(note.unverified[1]) == datetime.fromtimestamp(1679315147, UTC)


def test_the_signed_message_is_the_specifications() -> None:
    """Header line, time line, checkpoint's text."""
    assert cosigned_message(SOFA.encode(), 1679315147) == b"cosignature/v1\ntime 1679315147\n" + SOFA.encode()


def test_gos_cosignature_verifies_and_ours_has_its_bytes() -> None:
    """What Go's library cosigned is believed; the same key at the same second gives the same line here."""
    verifier = CosignatureVerifier.parse(GO_KEY)
    note = verify_note((SOFA + "\n" + GO_LINE).encode(), [verifier])
    assert cosigned_at(note.signatures[0]) == GO_TIME
    assert sign_note(SOFA, [_peter()]) == (SOFA + "\n" + GO_LINE).encode()
    assert str(_peter().verifier.key) == GO_KEY


def test_a_published_witness_key_is_read() -> None:
    """A real witness's verifier key (in the tests of transparency-dev/formats), with its key id."""
    text = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert str(CosignatureVerifier.parse(text).key) == text


def test_a_log_key_is_no_witness_key() -> None:
    """Types aren't mixed up: a key of type 0x01 doesn't verify cosignatures, nor one of 0x04 notes."""
    with pytest.raises(PolicyError):
        CosignatureVerifier.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    with pytest.raises(PolicyError):
        Ed25519Verifier.parse(GO_KEY)


@pytest.mark.parametrize("at", [0, 7, 8, 40, 71])
def test_every_part_of_a_cosignature_counts(at: int) -> None:
    """Time and signature: one altered bit in either and it isn't believed; nor when it is cut."""
    verifier = _peter().verifier
    good = parse_note((SOFA + "\n" + GO_LINE).encode()).unverified[0].signature
    assert verifier.verify(SOFA.encode(), good)
    altered = bytes([*good[:at], good[at] ^ 1, *good[at + 1 :]])
    assert not verifier.verify(SOFA.encode(), altered)
    assert not verifier.verify(SOFA.encode(), good[:-1])
    assert not verifier.verify(SOFA.replace("3\n", "4\n").encode(), good)


def test_a_time_beyond_63_bits_is_refused() -> None:
    """A time that the specification forbids doesn't verify, and is no time."""
    signature = b"\xff" * 8 + _peter().sign_raw(cosigned_message(SOFA.encode(), (1 << 64) - 1))
    assert not _peter().verifier.verify(SOFA.encode(), signature)
    with pytest.raises(VaultError):
        cosigned_at(NoteSignature("w", bytes(4), signature))


def test_the_specifications_request_is_read_and_written() -> None:
    """The example of an add-checkpoint request round-trips to the byte."""
    request = AddCheckpoint.parse(REQUEST.encode())
    assert (request.old_size, len(request.proof), request.note) == (20852014, 4, (SOFA + "\n" + SOFA_LOG).encode())
    assert request.to_bytes() == REQUEST.encode()
    without = AddCheckpoint(0, (), request.note)
    assert without.to_bytes().startswith(b"old 0\n\nexample.com/")
    assert AddCheckpoint.parse(without.to_bytes()) == without
