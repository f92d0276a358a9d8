"""Where a work-list's relations come from: the restored ledger by its contract, rounds from a file, events of topics.

What belongs here: reading those three. What stays out: providers' files (reconciliation/providers reads them), and what
is made of the rows (sql/).
"""

from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.contract import Contract, load_contract, load_section
from dr_assets.reconciliation.extract import compare_with_source, reading
from dr_assets.recovery.worklist.relations import OUTSIDERS, Rows, take

# Of the contract's relations, what the list needs of the restored ledger.
_QUERIES: Final = {
    "ledger_keys": ("transfers", "idempotency_key"),
    "ledger_payments": ("payments", "reference, direction, currency, amount_minor, account_id AS account"),
    "ledger_withdrawals": (
        "withdrawals",
        "withdrawal_id AS withdrawal, account_id AS account, currency, amount_minor, state, payout_reference",
    ),
    "ledger_players": ("players", "player_id AS player, closed_us IS NOT NULL AS closed, erased"),
    "ledger_player_accounts": ("player_accounts", "account_id AS account, player_id AS player, currency"),
}
_ROUNDS: Final = ("round_reference", "idempotency_key", "kind", "player_id", "currency", "amount_minor", "at", "status")
_STATUSES: Final = ("acknowledged", "refused", "unknown", "voided")

_READ_ROUNDS: Final = """
    CREATE TABLE read AS SELECT * FROM read_csv(
        $path, all_varchar = true, header = true, delim = ',', quote = '"', strict_mode = true, null_padding = false)
"""
# A line that says something else than it may ends the reading: half a list would lose bets without a word.
_TAKE_ROUNDS: Final = """
    SELECT nullif(round_reference, '') AS round_reference, nullif(idempotency_key, '') AS idempotency_key, kind,
           nullif(player_id, '') AS player, nullif(currency, '') AS currency, amount_minor::BIGINT AS amount_minor,
           epoch_us("at"::TIMESTAMPTZ) AS at_us, status,
           CASE WHEN NOT regexp_full_match(amount_minor, '-?[0-9]+') THEN error('amount_minor ' || amount_minor)
                WHEN kind NOT IN ('bet', 'win') THEN error('kind ' || kind)
                WHEN NOT list_contains($statuses, status) THEN error('status ' || status)
                WHEN NOT regexp_full_match("at", '.*(Z|[+-][0-9:]+)') THEN error('no time zone in ' || "at")
                WHEN "at" = '' THEN error('a line says nothing of its time')
           END AS checked
    FROM (SELECT * REPLACE (coalesce(amount_minor, '') AS amount_minor, coalesce(kind, '') AS kind,
                            coalesce(status, '') AS status, coalesce("at", '') AS "at") FROM read)
"""


def restored_ledger(dsn: str, contract: str) -> dict[str, pa.Table]:
    """The relations of the restored ledger at `dsn`, in one snapshot. Read it before traffic reaches it again.

    Raises PolicyError (`worklist.contract`) for a contract that lacks a relation, and what reconciliation raises.
    """
    agreed = load_contract(contract)
    _require(agreed)
    found: dict[str, pa.Table] = {}
    with reading(dsn) as read, duckdb.connect() as database:
        compare_with_source(read.cursor, agreed)
        for relation in ("accounts", "balances", *(relation for relation, _ in _QUERIES.values())):
            read.cursor.execute(agreed.queries[relation])
            database.register("arriving", read.cursor.fetch_record_batch())
            database.execute(f"CREATE TABLE {relation} AS SELECT * FROM arriving")  # noqa: S608 - a name of ours
            database.unregister("arriving")
        for name, (relation, columns) in _QUERIES.items():
            found[name] = database.sql(f"SELECT {columns} FROM {relation}").to_arrow_table()  # noqa: S608 - as above
        found["ledger_accounts"] = database.sql(
            "SELECT account_id AS account, currency, balance_minor, may_go_negative"
            " FROM accounts JOIN balances USING (account_id)"
        ).to_arrow_table()
    return found


def _require(contract: Contract) -> None:
    lacking = sorted({relation for relation, _ in _QUERIES.values()} - set(contract.queries))
    if lacking:
        raise PolicyError(
            "worklist.contract",
            f"contract {contract.name} has no relation {', '.join(lacking)}",
            "a work-list needs them to tell what the restored ledger has; docs/reconciliation.md describes each",
        )


def rounds_file(path: Path) -> pa.Table:
    """The game provider's rounds from a CSV file, whole or not at all. Raises SourceError (`worklist.rounds`)."""
    with duckdb.connect() as database:
        try:
            database.execute(_READ_ROUNDS, {"path": str(path)})
            names = [row[0] for row in database.execute("DESCRIBE read").fetchall()]
            if lacking := [name for name in _ROUNDS if name not in names]:
                raise _unreadable(path, f"no column {', '.join(lacking)} (its columns are {', '.join(names)})")
            found = database.sql(_TAKE_ROUNDS, params={"statuses": list(_STATUSES)}).to_arrow_table()
        except duckdb.Error as error:
            raise _unreadable(path, str(error).splitlines()[0]) from None
    return found.select(OUTSIDERS["rounds"].names)


def _unreadable(path: Path, found: str) -> SourceError:
    return SourceError(
        "worklist.rounds", f"{path.name} is no list of rounds: {found}", f"expected the columns {', '.join(_ROUNDS)}"
    )


def events(records: Rows, ledger: dict[str, pa.Table], contract: str) -> pa.Table:
    """What the records of topics say, read as the contract's `events:` has it.

    `records` are reconciliation's, with their payload (streams/records.py). Raises PolicyError (`worklist.events`).
    """
    query = _events_query(contract)
    with duckdb.connect() as database:
        take(database, ledger)
        database.register("arriving", records)
        database.execute("CREATE TABLE records AS SELECT * FROM arriving")
        try:
            return database.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise PolicyError(
                "worklist.events",
                f"the records of the topics don't fit the events of contract {contract}: {str(error).splitlines()[0]}",
                "write its `events:` query so that it reads the payloads of these topics",
            ) from None


def _events_query(contract: str) -> str:
    section = load_section(contract, "events")
    declared, entry = section.value, section.folder / str(section.value)
    if declared is None or "/" in str(declared) or not entry.is_file():
        raise PolicyError(
            "worklist.events",
            f"contract {contract} does not say how events are read",
            "give it `events:` with a query, as contracts/casino_ledger/events.sql, or leave --topics away",
        )
    return entry.read_text(encoding="utf-8").strip().rstrip(";")
