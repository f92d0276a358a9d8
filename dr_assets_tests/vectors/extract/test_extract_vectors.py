"""Extracts: format, page, generator and an independent reader, held to each other."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.proving.extract_file import MANIFEST, SIGNATURE, verify_zip, write_zip
from dr_assets.vault.signing import Trust
from dr_assets_tests.vectors.extract import generate, reader

FOLDER = Path(__file__).parent
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())
FILES = {name: bytes.fromhex(data) for name, data in INDEX["files"]}


def test_the_generator_still_makes_these_very_bytes() -> None:
    """A difference is a changed format."""
    assert (FOLDER / "index.json").read_bytes() == generate.encoded()


def test_package_and_independent_reader_believe_the_vector(tmp_path: Path) -> None:
    """A zip of the vector's files, packed by somebody else: the same rows, counts and sums."""
    path, contents = tmp_path / "extract.zip", dict(FILES)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    found = reader.read_extract(path, {who: bytes.fromhex(key) for who, key in INDEX["trusted"].items()})
    assert [row["amount_minor"] for row in found["postings"]] == ["9007199254740993", "-12", "5", None]
    body = verify_zip(path, Trust.of(generate.SIGNER))
    assert body["queries"][1]["sums"] == {"amount_minor": {"EUR": "9007199254740981", "JPY": "5"}}
    own = tmp_path / "own.zip"
    write_zip(own, contents.pop(MANIFEST), contents.pop(SIGNATURE), contents)
    assert verify_zip(own, Trust.of(generate.SIGNER)) == body
    with zipfile.ZipFile(own) as archive:
        assert archive.namelist() == list(FILES)


def test_a_file_that_no_query_lists_is_refused(tmp_path: Path) -> None:
    """Nobody slips a file in."""
    path = tmp_path / "extract.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**FILES, "more.csv": b"x"}.items():
            archive.writestr(name, data)
    with pytest.raises(VaultError, match=r"extract\.damaged"):
        verify_zip(path, Trust.of(generate.SIGNER))
