"""One person's data at a moment, in a file that anybody can check; and nobody gets what was erased."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.extract import EXTRACT, Review, extract
from dr_assets.proving.extract_file import MANIFEST, SIGNATURE, verify_zip
from dr_assets.vault.facts import facts
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.subjects.ids import SubjectIds
from dr_assets_tests.integration.restore.test_erasure_replay import forget

if TYPE_CHECKING:
    from conftest import LivedCasino, Source

pytestmark = pytest.mark.integration

IDS = SubjectIds(b"\7" * 32)
ESTATE = load_estate(default_defs_dir())
REVIEW = Review("2", "latest", "eve", "AML directive, art. 40; case 17")
Ask = Callable[..., Path]


@pytest.fixture
def source(lived_casino: "LivedCasino") -> "Source":
    """The casino's vault in a copy of its own."""
    return lived_casino.source.clone()


@pytest.fixture
def ask(source: "Source", engine_dir: Path, tmp_path: Path) -> Ask:
    """`ask(person="2")`: the written file."""
    key = tmp_path / "id-key"
    key.touch(mode=0o600)
    key.write_text("07" * 32)
    assert ESTATE.subjects is not None
    # People's keys lie with the vault itself here: no other region is asked for erasures.
    estate = replace(ESTATE, subjects=replace(ESTATE.subjects, vaults=("primary",)))
    env = {WORK_DIR_ENV: str(engine_dir), estate.subjects.id_key_env: str(key)}  # type: ignore[union-attr]

    def run(**changed: object) -> Path:
        out = tmp_path / "extract.zip"
        review = replace(REVIEW, **changed)  # type: ignore[arg-type]
        return extract(estate, source.dataset, source.vault, review, out, env).path

    return run


def told(source: "Source") -> list[dict[str, object]]:
    """What is on record of extracts."""
    return [dict(fact.body) for fact in facts(source.vault, "ledger", EXTRACT)]


def test_an_extract_is_what_the_ledger_held_and_checks_offline(source: "Source", ask: Ask) -> None:
    """Rows of this person and nobody else, amounts as text, sums that add up; on record is no identifier of theirs."""
    path = ask()
    assert path.stat().st_mode & 0o077 == 0
    manifest = verify_zip(path, source.vault.trust)
    with zipfile.ZipFile(path) as archive:
        rows = {query["name"]: json.loads(archive.read(f"{query['name']}.json")) for query in manifest["queries"]}
        table = archive.read("accounts.csv").decode().splitlines()
    assert [row["player_id"] for row in rows["player"]] == [2]
    assert [row["email"] for row in rows["contacts"]] == ["player2@example.test"]
    assert rows["deposits"]
    assert all(isinstance(row["amount_minor"], str) for row in rows["postings"])
    # What the postings add up to is what the accounts hold.
    held = {(row["currency"]): 0 for row in rows["accounts"]}
    moved = dict(held)
    for row in rows["accounts"]:
        held[row["currency"]] += int(row["balance_minor"])
    for row in rows["postings"]:
        moved[row["currency"]] += int(row["amount_minor"])
    assert moved == held
    assert table[0] == "account_id,kind,currency,balance_minor,last_sequence"
    assert len(table) == 1 + len(rows["accounts"])
    fact = told(source)[-1]
    assert fact["outcome"] == "handed out"
    assert (fact["subject_id"], manifest["subject_id"]) == (IDS.of("2"), IDS.of("2"))
    assert (fact["by"], fact["reason"]) == ("eve", REVIEW.reason)
    assert "example.test" not in json.dumps(fact)
    assert manifest["base_backup"] == fact["base_backup"]


def test_nobody_gets_what_was_erased(source: "Source", ask: Ask, tmp_path: Path) -> None:
    """The backup still holds the contact; the answer is the erasure, it is on record, and there is no file."""
    forget(source, "2")
    with pytest.raises(PolicyError, match=r"extract\.erased"):
        ask()
    assert list(tmp_path.glob("*.zip*")) == []
    assert [(one["outcome"], one["why"]) for one in told(source)] == [("refused", "extract.erased")]


def test_a_slip_in_the_identifier_gives_no_signed_nothing(source: "Source", ask: Ask) -> None:
    """Unless that is what was asked for: then it is signed that there was nothing."""
    with pytest.raises(PolicyError, match=r"extract\.unknown") as caught:
        ask(person="4711-no-such")
    assert "4711" not in str(caught.value)
    manifest = verify_zip(ask(person="4711-no-such", may_be_unknown=True), source.vault.trust)
    assert {query["rows"] for query in manifest["queries"]} == {0}


def test_a_reason_that_names_the_person_is_refused(ask: Ask) -> None:
    """It would stay on record for years."""
    with pytest.raises(PolicyError, match=r"erasure\.names_somebody"):
        ask(person="anna@example.com", reason="review of anna@example.com")
    with pytest.raises(PolicyError, match=r"extract\.no_reason"):
        ask(reason="  ")


def test_whatever_is_changed_in_an_extract_shows(source: "Source", ask: Ask, tmp_path: Path) -> None:
    """A row, a count, a file more or less, another's signature: none passes."""
    path = ask()
    with zipfile.ZipFile(path) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}

    def verified(**changed: bytes | None) -> str:
        changes = {name.replace("_json", ".json").replace("_sig", ".sig"): data for name, data in changed.items()}
        other = tmp_path / "other.zip"
        with zipfile.ZipFile(other, "w") as archive:
            for name, data in (whole | changes).items():
                if data is not None:
                    archive.writestr(name, data)
        with pytest.raises(DrError) as caught:
            verify_zip(other, source.vault.trust)
        return caught.value.code

    assert verified(postings_json=whole["postings.json"].replace(b'"amount_minor":"', b'"amount_minor":"9', 1)) == (
        "extract.damaged"
    )
    assert verified(rounds_json=None) == "extract.damaged"
    assert verified(more=b"{}") == "extract.damaged"
    assert verified(manifest_json=whole[MANIFEST].replace(b'"rows":', b'"rows":1', 1)) == "vault.bad_signature"
    assert verified(manifest_sig=whole[SIGNATURE].replace(b'"signature":"', b'"signature":"zz', 1)) == "extract.damaged"
    with pytest.raises(VaultError, match=r"vault\.untrusted_signer"):
        verify_zip(path, Trust.of(Signer.generate()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VaultError, match=r"extract\.damaged"):
        verify_zip(path, source.vault.trust)
