"""What several checks share: the contract's texts beside the rows they are of, `settings`, and empty relations.

What belongs here: making these views. What stays out: the checks.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.checks import Check, all_checks
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.dialect import tables_of
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.relations import RELATIONS, SETTINGS, Kind

_TYPES: Final[dict[Kind, str]] = {"text": "VARCHAR", "minor": "BIGINT", "flag": "BOOLEAN", "bytes": "BLOB"}


def prepare(engine: Engine, contract: Contract, as_of: datetime, checks: Iterable[Check] | None = None) -> None:
    """Give the checks (all of them by default) what several read: `settings`, `posting_steps`, `transfer_digests`.

    Raises PolicyError (`reconciliation.contract_unmet`) for a text that is no expression over its relation.
    """
    values = contract.tolerances.settings(as_of)
    columns = {column.name: pa.array([values[column.name]], pa.int64()) for column in SETTINGS}
    engine.load("settings", pa.table(columns))
    read = {table for check in checks or all_checks() for table in tables_of(check.sql)}
    try:
        if "posting_steps" in read:
            engine.define("posting_pairs", _posting_pairs(contract))
            engine.keep("posting_steps", _posting_steps(contract))
        if "transfer_digests" in read and contract.digest_text:
            engine.define(
                "transfer_digests",
                f"SELECT transfer_id, digest, {contract.digest_text} AS digest_text FROM transfers",  # noqa: S608 - a contract is code
            )
    except PolicyError as error:
        raise PolicyError(
            "reconciliation.contract_unmet",
            f"contract {contract.name}: the text of chain or transfer_digest: {error.found}",
            "write a DuckDB expression over the columns that the relation's query gives",
        ) from None


def _posting_pairs(contract: Contract) -> str:
    """Each posting beside the one before it. The contract's expression is code, as its queries are."""
    hashed = ", hash, lag(hash) OVER earlier AS previous_hash" if contract.chain_text else ""
    text = f", {contract.chain_text} AS chain_text" if contract.chain_text else ""
    return f"""
        SELECT account_id, sequence, transfer_id, currency, amount_minor, balance_after_minor{text}{hashed},
               coalesce(lag(sequence) OVER earlier, 0) AS previous_sequence,
               lag(balance_after_minor) OVER earlier AS previous_balance_minor
        FROM postings WINDOW earlier AS (PARTITION BY account_id ORDER BY sequence, transfer_id)"""  # noqa: S608 - see docstring


def _posting_steps(contract: Contract) -> str:
    """The postings that don't follow from the one before them: one pass over all of them, for all who ask.

    `hash_differs` is only asked where the one before is known, and only of a contract with a chain.
    """
    hashed = (
        "hash IS DISTINCT FROM unhex(sha256(coalesce(previous_hash, ''::BLOB) || encode(chain_text)))"
        if contract.chain_text
        else "FALSE"
    )
    return f"""
        SELECT * FROM (
            SELECT account_id, sequence, transfer_id, currency, amount_minor, balance_after_minor, previous_sequence,
                   previous_balance_minor, sequence = previous_sequence + 1 AS follows, {hashed} AS hash_differs
            FROM posting_pairs) AS steps
        WHERE NOT follows OR hash_differs
           OR balance_after_minor::HUGEINT <> coalesce(previous_balance_minor, 0)::HUGEINT + amount_minor"""  # noqa: S608 - ours


def stand_in(engine: Engine, checks: Iterable[Check], given: frozenset[str]) -> None:
    """Empty relations for those that a check uses and nobody gives; their ids are of the ledger's own type."""
    missing = sorted({relation for check in checks for relation in check.uses} - given)
    if not missing:
        return
    account_id = engine.rows("SELECT account_id FROM accounts LIMIT 0").schema.field(0).type
    types = {**_TYPES, "id": "BIGINT" if pa.types.is_integer(account_id) else "VARCHAR"}
    for relation in missing:
        columns = ", ".join(f"CAST(NULL AS {types[column.kind]}) AS {column.name}" for column in RELATIONS[relation])
        engine.define(relation, f"SELECT {columns} FROM accounts WHERE FALSE")  # noqa: S608 - names of ours
