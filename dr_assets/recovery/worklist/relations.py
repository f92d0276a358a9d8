"""What a work-list is made from: the restored ledger's side, and what outsiders know.

What belongs here: names, columns, and taking Arrow into DuckDB under them. What stays out: where the rows came from.

Every id is text here: the ledger's may be numbers, a file's never are. Amounts are whole minor units.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError

Rows: TypeAlias = pa.Table | pa.RecordBatchReader

_TYPES: Final = {"text": pa.string(), "minor": pa.int64(), "flag": pa.bool_()}


def _schema(columns: str) -> pa.Schema:
    pairs = (column.split() for column in columns.split(","))
    return pa.schema([(name, _TYPES[kind]) for name, kind in pairs])


# The restored ledger, before any traffic reaches it again.
LEDGER: Final[Mapping[str, pa.Schema]] = {
    "ledger_keys": _schema("idempotency_key text"),
    "ledger_payments": _schema("reference text, direction text, currency text, amount_minor minor, account text"),
    "ledger_withdrawals": _schema(
        "withdrawal text, account text, currency text, amount_minor minor, state text, payout_reference text"
    ),
    "ledger_accounts": _schema("account text, currency text, balance_minor minor, may_go_negative flag"),
    "ledger_players": _schema("player text, closed flag, erased flag"),
    # the accounts that players play from
    "ledger_player_accounts": _schema("account text, player text, currency text"),
}

# What outsiders know. Each may be absent: nobody was asked, which is not the same as nothing found.
OUTSIDERS: Final[Mapping[str, pa.Schema]] = {
    # as reconciliation's relation of this name
    "provider_lines": _schema(
        "provider text, file text, line minor, reference text, kind text, currency text, gross_minor minor,"
        " booked_us minor, original_reference text"
    ),
    # the game provider's own record of rounds; round_reference: the idempotency key of the bet that opened the round
    "rounds": _schema(
        "round_reference text, idempotency_key text, kind text, player text, currency text, amount_minor minor,"
        " at_us minor, status text"
    ),
    # what topics still hold. amount_minor is what was moved, cash_minor what it did to the account a player plays from;
    # chain: the withdrawal or the round it belongs to; says: false where an erasure has blanked the record
    "events": _schema(
        "topic text, place text, what text, idempotency_key text, player text, account text, currency text,"
        " amount_minor minor, cash_minor minor, reference text, chain text, at_us minor, says flag"
    ),
}


def take(database: duckdb.DuckDBPyConnection, given: Mapping[str, Rows | None]) -> None:
    """Make a table of every relation there is, empty for what is not given.

    Raises PolicyError (`worklist.relation`).
    """
    known: dict[str, pa.Schema] = {**LEDGER, **OUTSIDERS}
    for name in given:
        if name not in known:
            raise _refused(name, f"there is no such relation (there are {', '.join(known)})")
    for name, schema in known.items():
        rows = given.get(name)
        _take(database, name, schema, schema.empty_table() if rows is None else rows)


def _take(database: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: Rows) -> None:
    lacking = [field.name for field in schema if rows.schema.get_field_index(field.name) < 0]
    if lacking:
        raise _refused(name, f"no column {', '.join(lacking)} (given are {', '.join(rows.schema.names)})")
    columns = ", ".join(_cast(name, field, rows.schema.field(field.name).type) for field in schema)
    database.register("arriving", rows)
    database.execute(f"CREATE TABLE {name} AS SELECT {columns} FROM arriving")  # noqa: S608 - names of ours
    database.unregister("arriving")


def _cast(relation: str, field: pa.Field, found: pa.DataType) -> str:
    """A number that may have lost a minor unit is refused, never rounded."""
    if field.type == pa.int64() and not (pa.types.is_integer(found) or pa.types.is_null(found)):
        raise _refused(relation, f"{field.name} is {found}, expected a whole number of 64 bits")
    wanted = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.bool_(): "BOOLEAN"}[field.type]
    return f"{field.name}::{wanted} AS {field.name}"


def _refused(relation: str, found: str) -> PolicyError:
    return PolicyError(
        "worklist.relation", f"relation {relation}: {found}", "docs/work-list.md lists the columns of each relation"
    )
