"""What several checks share: the contract's texts beside the rows they are of, `settings`, and empty relations.

What belongs here: making these views. What stays out: the checks.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.checks import Check
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.relations import RELATIONS, SETTINGS, Kind

_TYPES: Final[dict[Kind, str]] = {"text": "VARCHAR", "minor": "BIGINT", "flag": "BOOLEAN", "bytes": "BLOB"}


def prepare(engine: Engine, contract: Contract, as_of: datetime) -> None:
    """Give the checks each posting beside the one before it, the contract's texts and its tolerances.

    Raises PolicyError (`reconciliation.contract_unmet`) for a text that is no expression over its relation.
    """
    try:
        for view, sql in _shared_views(contract):
            engine.define(view, sql)
    except PolicyError as error:
        raise PolicyError(
            "reconciliation.contract_unmet",
            f"contract {contract.name}: the text of chain or transfer_digest: {error.found}",
            "write a DuckDB expression over the columns that the relation's query gives",
        ) from None
    values = contract.tolerances.settings(as_of)
    columns = {column.name: pa.array([values[column.name]], pa.int64()) for column in SETTINGS}
    engine.load("settings", pa.table(columns))


def _shared_views(contract: Contract) -> Iterator[tuple[str, str]]:
    """The contract's expressions are code, as its queries are; everything else in these statements is ours."""
    hashed = ", hash, lag(hash) OVER earlier AS previous_hash" if contract.chain_text else ""
    text = f", {contract.chain_text} AS chain_text" if contract.chain_text else ""
    yield (
        "posting_steps",
        f"""SELECT account_id, sequence, transfer_id, currency, amount_minor, balance_after_minor{text}{hashed},
                   coalesce(lag(sequence) OVER earlier, 0) AS previous_sequence,
                   lag(balance_after_minor) OVER earlier AS previous_balance_minor
            FROM postings WINDOW earlier AS (PARTITION BY account_id ORDER BY sequence)""",  # noqa: S608 - see docstring
    )
    if contract.digest_text:
        yield (
            "transfer_digests",
            f"SELECT transfer_id, digest, {contract.digest_text} AS digest_text FROM transfers",  # noqa: S608 - see docstring
        )


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
