"""A contract: how one schema gives the relations that the checks read. `docs/reconciliation.md` says how to write one.

What belongs here: reading and judging the contract's folder. What stays out: the database (extract.py compares the
contract with it). A contract is code: its SQL runs as the restoring role, so take one only from whom you trust.
"""

from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.relations import LEDGER, OPTIONAL, RELATIONS, Column
from dr_assets.reconciliation.tolerances import Tolerances, tolerances_of
from dr_assets.stores.postgres.erase import EraseRules

_KEYS = {
    *("contract", "relations", "chain", "transfer_digest", "payload_hash", "tolerances", "erase"),
    *("extract", "events", "outbox_mark"),
}
_ERASE_KEYS = ("people", "statements", "proof")
_HINT = "compare it with contracts/casino_ledger/contract.yaml; docs/reconciliation.md describes every key"


@dataclass(frozen=True)
class Contract:
    """`queries` gives the SELECT of each relation that the schema has, `meanings` what a row of it is, in words.

    The two texts are DuckDB expressions over a relation's own columns.

    A posting's hash must be SHA-256 of the account's previous hash (nothing before the first) followed by `chain_text`
    in UTF-8; a transfer's digest SHA-256 of `digest_text`. None: the schema has no such thing, its check is skipped.
    `has_payload_hash`: its transfers say what their idempotency key was used for.
    `erase` is how people are erased from a restored database, None where nobody said. `relationships` yields a person's
    identifier and when the relationship with them ended, NULL while it lasts (docs/erasure.md).
    """

    name: str
    queries: dict[str, str]
    chain_text: str | None
    digest_text: str | None
    erase: EraseRules | None = None
    relationships: str | None = None
    meanings: dict[str, str] = field(default_factory=dict)
    tolerances: Tolerances = field(default_factory=Tolerances)
    has_payload_hash: bool = False

    @property
    def parts(self) -> frozenset[str]:
        """The optional parts that this contract has."""
        has = {
            "chain": self.chain_text is not None,
            "transfer_digest": self.digest_text is not None,
            "payload_hash": self.has_payload_hash,
        }
        return frozenset(part for part, given in has.items() if given)

    def columns(self, relation: str) -> tuple[Column, ...]:
        """The columns that the relation must give under this contract."""
        return tuple(column for column in RELATIONS[relation] if column.only_with in (None, *self.parts))


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a contract that reconciling doesn't read, with the folder that its files lie in."""

    contract: Contract
    folder: Traversable
    value: Any


def load_contract(contract: str) -> Contract:
    """A packaged contract by name, or one of your own by the path of its folder (anything with a `/`).

    Raises PolicyError (`reconciliation.contract_unknown`, `reconciliation.contract_invalid`).
    """
    return _parse(contract, *_document(contract))


def load_section(contract: str, key: str) -> Section:
    """What a contract says under `key`, for whoever that is meant for; None where it says nothing. Raises alike."""
    folder, content = _document(contract)
    return Section(_parse(contract, folder, content), folder, content.get(key))


def _document(contract: str) -> tuple[Traversable, Any]:
    folder: Traversable = (
        Path(contract) if "/" in contract else files("dr_assets.reconciliation") / "contracts" / contract
    )
    document = folder / "contract.yaml"
    if not document.is_file():
        raise PolicyError(
            "reconciliation.contract_unknown",
            f"there is no contract {contract!r}",
            f"name a packaged one ({', '.join(_packaged())}) or give the path of a folder with a contract.yaml",
        )
    try:
        content = yaml.safe_load(document.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise _invalid(contract, f"contract.yaml is not YAML: {' '.join(str(error).split())}") from None
    return folder, content


def _packaged() -> list[str]:
    folder = files("dr_assets.reconciliation") / "contracts"
    return sorted(entry.name for entry in folder.iterdir() if (entry / "contract.yaml").is_file())


def _parse(contract: str, folder: Traversable, content: Any) -> Contract:
    if not isinstance(content, dict) or set(content) - _KEYS:
        raise _invalid(contract, f"expected a mapping with the keys {', '.join(sorted(_KEYS))} and no others")
    relations = _relations(contract, content.get("relations"))
    if not isinstance(content.get("contract"), str):
        raise _invalid(contract, "contract must be the contract's name")
    erase = content.get("erase")
    return Contract(
        name=content["contract"],
        queries={relation: _query(contract, folder, file) for relation, (file, _) in relations.items()},
        chain_text=_text(contract, content, "chain"),
        digest_text=_text(contract, content, "transfer_digest"),
        erase=_erase(contract, folder, erase),
        relationships=_query(contract, folder, str(erase["relationships"]))
        if isinstance(erase, dict) and "relationships" in erase
        else None,
        meanings={relation: meaning for relation, (_, meaning) in relations.items() if meaning},
        tolerances=_tolerances(contract, content.get("tolerances", {})),
        has_payload_hash=_flag(contract, content, "payload_hash"),
    )


def _relations(contract: str, declared: Any) -> dict[str, tuple[str, str]]:
    """Each relation's file and meaning, in the order in which RELATIONS has them."""
    known = LEDGER | OPTIONAL
    if not isinstance(declared, dict) or not set(LEDGER) <= set(declared) <= set(known):
        raise _invalid(
            contract,
            f"relations must name {', '.join(LEDGER)}, and may name {', '.join(OPTIONAL)}; there are no others",
        )
    found: dict[str, tuple[str, str]] = {}
    for relation in known:
        value = declared.get(relation)
        if isinstance(value, dict) and set(value) <= {"file", "meaning"} and "file" in value:
            found[relation] = str(value["file"]), " ".join(str(value.get("meaning", "")).split())
        elif isinstance(value, str):
            found[relation] = value, ""
        elif relation in declared:
            raise _invalid(contract, f"relation {relation} must be a file's name, or its `file` and its `meaning`")
    return found


def _flag(contract: str, content: dict[str, Any], key: str) -> bool:
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise _invalid(contract, f"{key} must be true or false: whether transfers have this column")
    return value


def _tolerances(contract: str, declared: Any) -> Tolerances:
    if not isinstance(declared, dict):
        raise _invalid(contract, "tolerances must be a mapping")
    try:
        return tolerances_of(declared)
    except (PolicyError, ValueError) as error:
        raise _invalid(contract, f"tolerances: {error.found if isinstance(error, PolicyError) else error}") from None


def _erase(contract: str, folder: Traversable, value: Any) -> EraseRules | None:
    if value is None:
        return None
    if value == "none":
        return EraseRules("", "", "")
    if not isinstance(value, dict) or not set(_ERASE_KEYS) <= set(value) <= {*_ERASE_KEYS, "relationships"}:
        raise _invalid(contract, f"erase must be `none` or name the files {', '.join(_ERASE_KEYS)} (and relationships)")
    people, statements, proof = (_query(contract, folder, str(value[key])) for key in _ERASE_KEYS)
    if not all(text.strip() for text in (people, statements, proof)):
        raise _invalid(contract, "erase names an empty file")
    return EraseRules(people, statements, proof)


def _query(contract: str, folder: Traversable, file: str) -> str:
    entry = folder / file
    if "/" in file or not entry.is_file():
        raise _invalid(contract, f"{file!r} is no file in the contract's folder")
    return entry.read_text(encoding="utf-8").strip().rstrip(";") + "\n"


def _text(contract: str, content: dict[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"text"} or not isinstance(value["text"], str):
        raise _invalid(contract, f"{key} must have one key, text: a DuckDB expression")
    return value["text"]


def _invalid(contract: str, found: str) -> PolicyError:
    return PolicyError("reconciliation.contract_invalid", f"contract {contract}: {found}", _HINT)
