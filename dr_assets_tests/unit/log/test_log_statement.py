"""Leaves: in-toto statements in DSSE envelopes that others' tools read, one form each, at most a kibibyte."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.batch import Batch, Mark, Names, parse_batch
from dr_assets.vault.log.statement import (
    IN_TOTO,
    NAMES,
    OBJECT,
    SAYS,
    Statement,
    make_leaf,
    parse_leaf,
    plain_words,
    seal_envelope,
)
from dr_assets.vault.signing import Signer, Trust
from dr_assets_tests.unit.log.conftest import Logged

SIGNER = Signer.from_seed(b"\x07" * 32)
TRUST = Trust.of(SIGNER)
NAME = "casino/ledger/facts-expiry/0/00000000/0006400000000000-0006400000000001-" + "ab" * 16
SAID = Statement(OBJECT, NAME, "cd" * 32, {"kind": "fact", "stored_at": "2026-03-10T12:00:00.000000Z"})


def test_a_leaf_is_what_others_call_dsse_and_in_toto() -> None:
    """An implementation that is not ours finds the signature good and the statement whole."""
    leaf = make_leaf(SAID, SIGNER)
    envelope = Envelope.from_dict(json.loads(leaf))
    key = SSlibKey(SIGNER.signer_id, "ed25519", "ed25519", {"public": SIGNER.public_key.hex()})
    assert envelope.verify([key], 1)
    assert envelope.payload_type == IN_TOTO
    body = json.loads(envelope.payload)
    assert (body["_type"], body["subject"][0]["name"]) == ("https://in-toto.io/Statement/v1", NAME)
    assert parse_leaf(leaf, TRUST) == SAID
    assert leaf == make_leaf(SAID, SIGNER), "the same words, the same bytes"


@pytest.mark.parametrize("said", [{}, {"who": "a" * 300}, {str(number): "b" * 90 for number in range(40)}])
@pytest.mark.parametrize("length", [1, 63])
def test_no_leaf_is_above_a_kibibyte_whatever_it_has_to_say(said: dict[str, str], length: int) -> None:
    """With the longest names that there can be the words go, and the name and digest stay."""
    part = "e" * length
    name = f"{part}/{part}/{part}/{part}/00000001/{0:016X}-{1:016X}-" + "0" * 32
    predicate = {"kind": "manifest", "stored_at": "2026-03-10T12:00:00.000000Z", SAYS: dict(said)}
    leaf = make_leaf(Statement(OBJECT, name, "cd" * 32, predicate), SIGNER)  # type: ignore[arg-type]  # texts are Json
    assert len(leaf) <= 1024
    assert (parse_leaf(leaf, TRUST).name, parse_leaf(leaf, TRUST).sha256) == (name, "cd" * 32)


def test_what_a_leaf_says_of_a_fact_is_its_short_words() -> None:
    """Scalars, the shortest first; lists, maps and long texts stay in the sealed fact."""
    body = {"event": "begun", "list": ["a"], "map": {"a": 1}, "text": "x" * 500, "count": 3, "none": None}
    assert list(plain_words(body).items()) == [("count", 3), ("event", "begun")]


@given(st.integers(0, 2000), st.integers(1, 255))
@settings(deadline=None)
def test_one_altered_byte_anywhere_in_a_leaf_is_caught(at: int, flip: int) -> None:
    """Envelope, payload, key id or signature: it is no leaf of ours any more."""
    leaf = make_leaf(SAID, SIGNER)
    at %= len(leaf)
    with pytest.raises(VaultError, match=r"log\.(malformed|bad_leaf)"):
        parse_leaf(leaf[:at] + bytes([leaf[at] ^ flip]) + leaf[at + 1 :], TRUST)


def test_a_leaf_by_a_stranger_or_of_another_form_is_refused() -> None:
    """Trust is the trust file's; one meaning has one form."""
    with pytest.raises(VaultError, match="trust file does not list"):
        parse_leaf(make_leaf(SAID, Signer.generate()), TRUST)
    leaf = json.loads(make_leaf(SAID, SIGNER))
    for other in (
        json.dumps(leaf),
        json.dumps(leaf | {"more": 1}, separators=(",", ":"), sort_keys=True),
        "{}",
        "[",
        "",
    ):
        with pytest.raises(VaultError, match=r"log\.malformed"):
            parse_leaf(other.encode(), TRUST)
    with pytest.raises(VaultError, match=r"log\.malformed"):
        parse_leaf(seal_envelope(b'{"_type":"x"}', IN_TOTO, SIGNER), TRUST)
    with pytest.raises(VaultError, match=r"log\.malformed"):
        parse_leaf(seal_envelope(base64.b64decode(leaf["payload"]), "text/plain", SIGNER), TRUST)


def test_a_batch_reads_back_as_it_was_written(logged: Logged) -> None:
    """Leaves, lists and marks; an altered byte or a stranger's signature is refused."""
    leaf = make_leaf(Statement(NAMES, "casino/ledger/wal/7/00000001/", "ab" * 32, {"count": 2}), SIGNER)
    batch = Batch(
        origin="dr-assets/casino/primary", base=7, base_root=b"\x01" * 32, looked_at=logged.now, caught_up=True,
        leaves=(leaf,), lists=(Names(7, "casino/ledger/wal/7/00000001/", ("a", "b")),),
        marks={"casino/ledger/wal/7/00000001/": Mark(5, frozenset({"0123"}))}, closed={"ledger": "base-x"},
        swept_at=logged.now,
    )  # fmt: skip
    data = batch.sealed(SIGNER)
    assert parse_batch(data, TRUST) == batch
    assert batch.size == 8
    with pytest.raises(VaultError, match=r"log\.bad_leaf"):
        parse_batch(data, Trust.of(Signer.generate()))
    for at in range(0, len(data), 37):
        with pytest.raises(VaultError, match=r"log\."):
            parse_batch(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], TRUST)
