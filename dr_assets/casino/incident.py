"""What goes wrong at a casino: one transaction that should never have been, and damage beneath the database's rules.

What belongs here: planting, and saying exactly what was planted. What stays out: finding it (reconciliation/) and
undoing it (a restore to a point in time).
"""

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from dr_assets.casino.damage import DAMAGES, Damage, plant_damage
from dr_assets.casino.source import connect

__all__ = ["DAMAGES", "Damage", "Planted", "plant_bad_transaction", "plant_damage"]

FRAUD_MINOR = 987_654_321_00
# Commit times on either side of the aim must differ by more than a recovery target's microsecond and a busy host's
# hiccup, or "just before" would be a matter of luck.
_MARGIN_S = 0.05


@dataclass(frozen=True)
class Planted:
    """A balanced but wrong transfer: every check of the ledger passes, so only a restore to before it helps.

    `good_transfer_id` was committed right before `good_at`, the time to restore to: it must come back, and
    `transfer_id` must not. Times are on the source's clock; `committed_at` is the moment right after the commit.
    `lsn_before` is the end of WAL between the two, `lsn_after` after the bad one's commit.
    """

    transfer_id: int
    xid: int
    player_id: int
    account_id: int
    currency: str
    amount_minor: int
    good_transfer_id: int
    good_at: datetime
    lsn_before: str
    committed_at: datetime
    lsn_after: str


def plant_bad_transaction(dsn: str, *, amount_minor: int = FRAUD_MINOR) -> Planted:
    """Post a huge manual adjustment from the house to one player, as a bribed clerk would.

    Waits a few hundredths of a second on each side of `good_at`. Raises SourceError when the casino is unreachable.
    """
    key = f"incident/{uuid.uuid4()}"
    with connect(dsn) as connection:
        house, player_id, account_id, currency = _parties(connection)
        good_transfer_id = _adjust(connection, f"{key}/good", house, account_id, 1)[0]
        time.sleep(_MARGIN_S)
        good_at, lsn_before = _clock_and_lsn(connection)
        time.sleep(_MARGIN_S)
        transfer_id, xid = _adjust(connection, f"{key}/bad", house, account_id, amount_minor)
        committed_at, lsn_after = _clock_and_lsn(connection)
    return Planted(
        transfer_id=transfer_id,
        xid=xid,
        player_id=player_id,
        account_id=account_id,
        currency=currency,
        amount_minor=amount_minor,
        good_transfer_id=good_transfer_id,
        good_at=good_at,
        lsn_before=lsn_before,
        committed_at=committed_at,
        lsn_after=lsn_after,
    )


def has_transfer(dsn: str, transfer_id: int) -> bool:
    """Whether the casino at `dsn` has this transfer."""
    with connect(dsn) as connection, connection.cursor(row_factory=scalar_row) as cursor:
        return bool(
            cursor.execute(
                "SELECT EXISTS (SELECT FROM casino.transfers WHERE transfer_id = %s)", (transfer_id,)
            ).fetchone()
        )


def _parties(connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[int, int, int, str]:
    row = connection.execute(
        "SELECT casino.house_account('house', currency), player_id, account_id, currency FROM casino.accounts"
        " WHERE kind = 'player_cash' ORDER BY account_id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise AssertionError(connection.info.dbname)  # a casino always has players
    return row[0], row[1], row[2], row[3]


def _adjust(
    connection: psycopg.Connection[tuple[Any, ...]], key: str, house: int, account_id: int, amount_minor: int
) -> tuple[int, int]:
    """The transfer's id and its transaction's 32-bit xid, as `recovery_target_xid` wants it."""
    row = connection.execute(
        "SELECT casino.adjust(%s, %s, %s, %s, 'goodwill'), (pg_current_xact_id()::text::numeric %% 4294967296)::bigint",
        (key, house, account_id, amount_minor),
    ).fetchone()
    if row is None:
        raise AssertionError(key)  # a function call gives one row
    return row[0], row[1]


def _clock_and_lsn(connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[datetime, str]:
    row = connection.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text").fetchone()
    if row is None:
        raise AssertionError
    return row[0].astimezone(UTC), row[1]
