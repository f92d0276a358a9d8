from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.relations import LEDGER, OPTIONAL
from dr_assets.reconciliation.tolerances import Tolerances


def _folder(tmp_path: Path, document: object) -> str:
    for relation in (*LEDGER, *OPTIONAL):
        (tmp_path / f"{relation}.sql").write_text("SELECT 1;\n")
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(document))
    return f"{tmp_path}/"


def _document(**changes: object) -> dict[str, object]:
    relations = {relation: f"{relation}.sql" for relation in LEDGER}
    return {"contract": "mine", "relations": relations, **changes}


def test_the_packaged_contract_gives_every_relation() -> None:
    """The name that datasets declare resolves to a query per relation, with the hash chain and the digests."""
    contract = load_contract("casino_ledger")
    assert set(LEDGER) <= set(contract.queries) <= {*LEDGER, *OPTIONAL}
    assert contract.parts == {"chain", "transfer_digest", "payload_hash"}


def test_a_contract_of_ones_own_is_taken_by_path(tmp_path: Path) -> None:
    """A schema without chain and digests is fine: the columns that only they need are not asked for."""
    contract = load_contract(_folder(tmp_path, _document()))
    assert contract.name == "mine"
    assert contract.parts == frozenset()
    assert "hash" not in {column.name for column in contract.columns("postings")}
    assert contract.queries["accounts"] == "SELECT 1\n"


def test_relations_beyond_the_ledgers_have_a_meaning_and_the_contract_its_tolerances(tmp_path: Path) -> None:
    """A relation is a file's name, or that and what a row means; spans are durations, amounts whole minor units."""
    relations = {relation: f"{relation}.sql" for relation in LEDGER}
    payments = {"file": "payments.sql", "meaning": "a card payment\n  as the cashier saw it"}
    tolerances = {"amount_minor": 2, "in_flight": "36h", "lag_max": 50}
    document = _document(relations={**relations, "payments": payments}, tolerances=tolerances)
    contract = load_contract(_folder(tmp_path, document))
    assert set(contract.queries) == {*LEDGER, "payments"}
    assert contract.meanings == {"payments": "a card payment as the cashier saw it"}
    assert contract.tolerances == Tolerances(amount_minor=2, in_flight=timedelta(hours=36), lag_max=50)
    settings = contract.tolerances.settings(datetime(2026, 1, 1, tzinfo=UTC))
    assert settings["as_of_us"] == 1_767_225_600_000_000
    assert settings["in_flight_us"] == 36 * 3600 * 1_000_000


def test_an_unknown_contract_names_the_known_ones() -> None:
    """A typo in a dataset's declaration is told what there is."""
    with pytest.raises(PolicyError, match="casino_ledger") as caught:
        load_contract("casino_leger")
    assert caught.value.code == "reconciliation.contract_unknown"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "mapping"),
        (_document(chains={"text": "1"}), "keys"),
        (_document(relations={"accounts": "accounts.sql"}), "postings"),
        (_document(relations=dict.fromkeys((*LEDGER, "gifts"), "x.sql")), "payments"),
        (_document(relations={**dict.fromkeys(LEDGER, "accounts.sql"), "payments": {"query": "x"}}), "payments"),
        (_document(relations=dict.fromkeys((*LEDGER, "bank_lines"), "x.sql")), "no others"),
        (_document(tolerances={"amount": 1}), "no tolerance amount"),
        (_document(tolerances={"amount_minor": 0.5}), "whole number"),
        (_document(tolerances={"in_flight": 3}), "not a duration"),
        (_document(tolerances=[]), "mapping"),
        (_document(contract=None), "name"),
        (_document(chain="sha256"), "text"),
        (_document(chain={"text": "1", "algorithm": "md5"}), "text"),
        (_document(relations=dict.fromkeys(LEDGER, "missing.sql")), "missing.sql"),
        (_document(relations=dict.fromkeys(LEDGER, "../accounts.sql")), "accounts.sql"),
    ],
)
def test_an_invalid_contract_says_what_is_wrong_with_it(tmp_path: Path, document: object, said: str) -> None:
    """Every malformed part is refused before any database is touched."""
    with pytest.raises(PolicyError, match=said) as caught:
        load_contract(_folder(tmp_path, document))
    assert caught.value.code == "reconciliation.contract_invalid"


def test_a_contract_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    """A torn file is no contract."""
    path = _folder(tmp_path, _document())
    (tmp_path / "contract.yaml").write_text("contract: [")
    with pytest.raises(PolicyError, match="not YAML"):
        load_contract(path)


def test_nothing_but_the_contract_knows_the_casinos_tables() -> None:
    """Another ledger needs another contract and no other change: no check and no module reads a table of the casino."""
    root = files("dr_assets.reconciliation")
    checks = [file for folder in (root / "checks").iterdir() for file in folder.iterdir()]
    modules = [Path(str(file)) for file in Path(str(root)).rglob("*.py")]
    assert checks
    for file in (*checks, *modules):
        assert "casino." not in file.read_text(encoding="utf-8").replace("dr_assets.casino.", ""), file.name
