"""The published examples of C2SP signed-note and of Go's note package: others' bytes, read and written alike."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.note import (
    ED25519,
    Ed25519Signer,
    Ed25519Verifier,
    VerifierKey,
    format_note,
    parse_note,
    sign_note,
    verify_note,
)

C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"


def _peter() -> Ed25519Signer:
    seed = base64.b64decode(PETER_SECRET)[1:]
    return Ed25519Signer.of("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed))


def _bytes(*parts: str) -> bytes:
    return "".join(parts).encode()


def test_the_specifications_example_verifies() -> None:
    """The note printed in C2SP signed-note is verified by the key printed beside it, and written back to the byte."""
    note = verify_note(C2SP_NOTE.encode(), [Ed25519Verifier.parse(C2SP_KEY)])
    assert note.text == "This is an example message.\n"
    assert [(s.name, s.key_id.hex()) for s in note.signatures] == [("example.com/foo", "530d903a")]
    assert note.to_bytes() == C2SP_NOTE.encode()


def test_a_note_signed_here_is_the_one_that_go_signs() -> None:
    """Ed25519 leaves no choice: signing Go's text with Go's test key gives Go's bytes, and its verifier key."""
    peter = _peter()
    assert sign_note(TEXT, [peter]) == _bytes(TEXT, "\n", PETER)
    assert str(peter.verifier.key) == PETER_KEY
    assert peter.key_id.hex() == "c74f20a3"


def test_signatures_of_others_are_kept_but_not_believed() -> None:
    """One of two keys asked for: its line is verified, the other is kept as unverified; the same line twice is one."""
    peter, enoch = Ed25519Verifier.parse(PETER_KEY), Ed25519Verifier.parse(ENOCH_KEY)
    data = _bytes(TEXT, "\n", PETER, PETER, ENOCH, ENOCH)
    note = verify_note(data, [peter])
    assert [s.name for s in note.signatures] == ["PeterNeumann"]
    assert [s.name for s in note.unverified] == ["EnochRoot"]
    assert [s.name for s in verify_note(data, [peter, enoch]).signatures] == ["PeterNeumann", "EnochRoot"]
    assert note.by(peter) == note.signatures
    assert not note.by(enoch)


def test_a_note_that_nobody_believed_signed_is_refused() -> None:
    """Without a signature by one of the asked-for keys there is no note."""
    with pytest.raises(VaultError) as caught:
        verify_note(_bytes(TEXT, "\n", PETER), [Ed25519Verifier.parse(ENOCH_KEY)])
    assert caught.value.code == "log.unsigned_note"


@pytest.mark.parametrize("altered", [TEXT.replace("know", "knew"), TEXT + "\n", "\n" + TEXT], ids=["word", "+", "-"])
def test_a_known_keys_wrong_signature_spoils_the_note(altered: str) -> None:
    """A line by a known key that doesn't fit is not passed over, even beside one that does."""
    resigned = verify_note(sign_note(altered, [_enoch_stand_in()]), [_enoch_stand_in().verifier])
    data = format_note(altered, [*resigned.signatures, parse_note(_bytes(TEXT, "\n", PETER)).unverified[0]])
    with pytest.raises(VaultError) as caught:
        verify_note(data, [Ed25519Verifier.parse(PETER_KEY), _enoch_stand_in().verifier])
    assert caught.value.code == "log.bad_note_signature"


def _enoch_stand_in() -> Ed25519Signer:
    return Ed25519Signer.of("EnochRoot", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.mark.parametrize(
    "data",
    [
        _bytes(TEXT),
        _bytes(TEXT, "\n"),
        _bytes(TEXT, "\n", PETER[:-1]),
        b"\x01" + _bytes(TEXT, "\n", PETER),
        b"\xff" + _bytes(TEXT, "\n", PETER),
        _bytes(TEXT, "\n", PETER.replace("PeterNeumann", "Bad Name")),
        _bytes(TEXT, "\n", PETER.replace("PeterNeumann", "Bad+Name")),
        _bytes(TEXT, "\n", PETER, "Unexpected line.\n"),
        _bytes(TEXT, "\n", PETER.replace("AM=", "AN=")),
        _bytes(TEXT, "\n", PETER.replace("AM=", "AM")),
        _bytes(TEXT, "\n", "— PeterNeumann x08gow==\n"),
        _bytes(TEXT, "\n", PETER.replace("\n", "\r\n")),
        _bytes(TEXT, "\n", *(PETER.replace("x08g", f"A{n:03}") for n in range(101))),
        _bytes("x" * (1 << 20), "\n\n", PETER),
        b"",
        b"\n\n",
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    """Go's list of malformed notes, and some more: each is refused as malformed, none crashes."""
    with pytest.raises(VaultError) as caught:
        verify_note(data, [Ed25519Verifier.parse(PETER_KEY)])
    assert caught.value.code == "log.malformed_note"


def test_a_text_without_final_newline_is_not_signed() -> None:
    """Nothing is signed that reads back as another text."""
    with pytest.raises(VaultError) as caught:
        sign_note("abc", [_peter()])
    assert caught.value.code == "log.malformed_note"


def test_every_mangling_of_a_verifier_key_is_refused() -> None:
    """Each proper piece and each altered character of Go's test key is no key."""
    pieces = [PETER_KEY[i:j] for i in range(len(PETER_KEY)) for j in range(i + 1, len(PETER_KEY) + 1)]
    altered = [PETER_KEY[:i] + chr(ord(c) + 1) + PETER_KEY[i + 1 :] for i, c in enumerate(PETER_KEY)]
    for text in [*(piece for piece in pieces if piece != PETER_KEY), *altered]:
        with pytest.raises(PolicyError):
            Ed25519Verifier.parse(text)


def test_keys_of_other_kinds_or_lengths_are_refused() -> None:
    """Go's keys with a fitting key id but a wrong length, and of an unknown algorithm."""
    for text in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ]:
        with pytest.raises(PolicyError) as caught:
            Ed25519Verifier.parse(text)
        assert caught.value.code == "log.bad_verifier_key"
    assert VerifierKey.parse(PETER_KEY).kind == ED25519
    with pytest.raises(PolicyError):
        Ed25519Signer.of("with space", Ed25519PrivateKey.generate())
