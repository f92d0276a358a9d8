"""Envelopes: format, page, generator and an independent reader, held to each other."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.envelope import bound_to, open_with, sealed_size
from dr_assets_tests.vectors.envelope import generate, reader

FOLDER = Path(__file__).parent
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())


def test_the_generator_still_makes_these_very_bytes() -> None:
    """A difference is a changed format."""
    assert (FOLDER / "index.json").read_bytes() == generate.encoded()


@pytest.mark.parametrize("label", sorted(INDEX["envelopes"]))
def test_package_and_independent_reader_open_every_envelope(label: str) -> None:
    """The very plaintext, of every edge of the format; the size is foretold."""
    wanted = INDEX["envelopes"][label]
    aad, sealed = generate.seal(label, wanted["size_bytes"])
    if "envelope" in wanted:
        sealed = bytes.fromhex(wanted["envelope"])
    assert hashlib.sha256(sealed).hexdigest() == wanted["envelope_sha256"]
    assert len(sealed) == wanted["envelope_bytes"] == sealed_size(wanted["size_bytes"])
    assert aad == bytes.fromhex(wanted["aad"])
    secret, plaintext = bytes.fromhex(INDEX["person_key"]), generate.pattern(wanted["size_bytes"])
    assert reader.open_envelope(secret, sealed, aad) == plaintext
    assert open_with(DataKey.of(secret), sealed, aad) == plaintext


def test_what_an_envelope_is_bound_to_is_as_the_page_says() -> None:
    """Canonical JSON of four fields."""
    aad = bound_to(estate="casino", dataset="kyc", subject_id="3f" * 16, document_id="documents/emptyé#1")
    assert aad.hex() == INDEX["envelopes"]["empty"]["aad"]
    assert json.loads(aad).keys() == {"dataset", "document_id", "estate", "subject_id"}
