"""The museum of broken objects: each is refused, for its own reason, by the package and by the independent reader."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import open_sealed
from dr_assets.vault.signing import Trust
from dr_assets_tests.broken.vault import generate
from dr_assets_tests.vectors.vault import reader
from dr_assets_tests.vectors.vault.generate import DATA_KEY, SIGNER

FOLDER = Path(__file__).parent
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())


@pytest.mark.parametrize("exhibit", sorted(INDEX))
def test_each_exhibit_is_refused_for_its_own_reason(exhibit: str) -> None:
    """With its code, and without allocating more than a few frames' worth of memory."""
    data = (FOLDER / exhibit).read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(VaultError) as caught:
            open_sealed(
                data, trust=Trust.of(SIGNER), key_of=lambda _: DATA_KEY, key=ObjectKey.parse(INDEX[exhibit]["name"])
            )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == INDEX[exhibit]["refused"]
    assert peak < 8 << 20


@pytest.mark.parametrize("exhibit", sorted(INDEX))
def test_the_independent_reader_refuses_it_too(exhibit: str) -> None:
    """The page alone is enough to be safe."""
    with pytest.raises((reader.RefusedError, InvalidTag, InvalidSignature, zstandard.ZstdError)):
        reader.open_object(
            INDEX[exhibit]["name"], (FOLDER / exhibit).read_bytes(), [DATA_KEY.secret], [SIGNER.public_key.hex()]
        )


def test_the_museum_is_what_its_generator_makes() -> None:
    """Nothing was put in or taken out by hand."""
    made = generate.files()
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".bin", ".json"}} == made.keys()
    for name, content in made.items():
        assert (FOLDER / name).read_bytes() == content, name
