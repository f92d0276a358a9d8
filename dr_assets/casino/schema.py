"""Creating the casino: the schema from `sql/*.sql` in the order of their numbers, then its first players.

What belongs here: set-up. What stays out: rules of the ledger (they are in the SQL, so that they hold for every
client) and traffic (workload.py). A plain role that owns the database is enough.
"""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import psycopg

from dr_assets.casino.source import connect
from dr_assets.estate.errors import PolicyError

HOUSE_SHARDS = 32  # sql/010_accounts.sql spreads sessions over them by the backend's pid
CURRENCIES = (("EUR", 2), ("USD", 2), ("GBP", 2), ("JPY", 0))
_OPENING_MINOR = 500_000


def create(dsn: str, *, players: int = 1000) -> None:
    """Create the casino with `players` players, each with an opening deposit, in one transaction.

    Every player has one account in a home currency; every fourth has a second one. Raises PolicyError
    (`casino.exists`) when the database has a casino already, SourceError when it does not answer.
    """
    with connect(dsn) as connection, connection.transaction():
        if connection.execute("SELECT to_regnamespace('casino') IS NOT NULL").fetchone() == (True,):
            raise PolicyError(
                "casino.exists",
                "the database already has a schema named casino",
                "use an empty database, or leave this one as it is",
            )
        for statements in _sql_files():
            connection.execute(statements.encode())
        _open_accounts(connection, players)
        _fill_crm(connection)
        _deposit_openings(connection)


def _sql_files() -> Iterator[str]:
    folder = files("dr_assets.casino") / "sql"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            yield file.read_text(encoding="utf-8")


def _open_accounts(connection: psycopg.Connection[tuple[Any, ...]], players: int) -> None:
    codes = [code for code, _ in CURRENCIES]
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO casino.currencies VALUES (%s, %s)", CURRENCIES)
    connection.execute(
        "INSERT INTO casino.accounts (kind, currency, shard) SELECT kind, currency, shard"
        " FROM unnest(ARRAY['house', 'provider', 'bonus', 'payable']) AS kind, casino.currencies,"
        " generate_series(0, %s - 1) AS shard",
        (HOUSE_SHARDS,),
    )
    connection.execute(
        "INSERT INTO casino.players (country)"
        " SELECT (ARRAY['MT', 'SE', 'DE', 'FI', 'GB', 'JP'])[1 + n %% 6] FROM generate_series(1, %s) AS n",
        (players,),
    )
    connection.execute(
        "INSERT INTO casino.accounts (kind, player_id, currency)"
        " SELECT kind, player_id, (%(codes)s::text[])[1 + (player_id + second) %% 4]"
        " FROM casino.players, generate_series(0, 1) AS second, unnest(ARRAY['player_cash', 'player_held']) AS kind"
        " WHERE second = 0 OR player_id %% 4 = 0 ORDER BY player_id, second, kind",
        {"codes": codes},
    )


def _fill_crm(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute("UPDATE casino.players SET email_consent = player_id % 2 = 0, sms_consent = player_id % 3 = 1")
    connection.execute(
        "INSERT INTO casino.crm_contacts (player_id, full_name, email, phone, email_consent, sms_consent, synced_at)"
        " SELECT player_id, 'Player ' || player_id, 'player' || player_id || '@example.test',"
        " CASE WHEN player_id % 3 <> 0 THEN '+356' || (20000000 + player_id) END,"
        " email_consent, sms_consent, clock_timestamp() FROM casino.players"
    )


def _deposit_openings(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute(
        "SELECT casino.deposit('opening/' || account_id, player_id, currency, %s, 0, 'opening/' || account_id)"
        " FROM casino.accounts WHERE kind = 'player_cash' ORDER BY account_id",
        (_OPENING_MINOR,),
    )
