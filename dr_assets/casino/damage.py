"""Damage beneath the database's rules, for negative controls: a reconciliation that cannot catch these proves nothing.

What belongs here: one small, seeded forgery per kind, done as a superuser can do it. What stays out: naming what
reconciliation says about it (its tests do), and any server that is not a sandbox: those are refused.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from dr_assets.casino.source import connect
from dr_assets.estate.errors import PolicyError

SANDBOX_PREFIX: Final = "dr_assets-sandbox"

_Connection = psycopg.Connection[tuple[Any, ...]]
_Touched = tuple[int | None, int | None]


@dataclass(frozen=True)
class Damage:
    """What was forged: the account and the transfer it touched, where there is one."""

    kind: str
    account_id: int | None
    transfer_id: int | None


def plant_damage(dsn: str, kind: str, seed: int) -> Damage:
    """Forge one thing in the casino at `dsn`, in one transaction; the seed picks where.

    Only on a server whose `cluster_name` starts with `dr_assets-sandbox`, and only as a superuser, else PolicyError
    (`casino.not_a_sandbox`, `casino.not_superuser`). An unknown kind is a PolicyError (`casino.damage_kind`).
    """
    forge = _KINDS.get(kind)
    if forge is None:
        raise PolicyError("casino.damage_kind", f"no damage is called {kind!r}", f"choose from {', '.join(DAMAGES)}")
    with connect(dsn) as connection, connection.transaction():
        _require_sandbox(connection)
        try:
            connection.execute("SET LOCAL session_replication_role = replica")  # user triggers and foreign keys rest
        except psycopg.errors.InsufficientPrivilege:
            raise PolicyError(
                "casino.not_superuser",
                "this role may not switch triggers off",
                "connect to the sandbox as its superuser",
            ) from None
        account_id, transfer_id = forge(connection, random.Random(f"{kind} {seed}"))
    return Damage(kind, account_id, transfer_id)


def _require_sandbox(connection: _Connection) -> None:
    name = str(_one(connection, "SELECT current_setting('cluster_name')")[0])
    if not name.startswith(SANDBOX_PREFIX):
        raise PolicyError(
            "casino.not_a_sandbox",
            f"the server's cluster_name is {name!r}: damage is only planted where nothing can be lost",
            f"start the sandbox with cluster_name = '{SANDBOX_PREFIX}-…'",
        )


def _one(connection: _Connection, statement: str, parameters: dict[str, Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(statement.encode(), parameters).fetchone()
    if row is None:
        raise PolicyError(
            "casino.nothing_to_damage",
            "the casino has no row of the kind that this damage needs",
            "let the workload run for a few seconds first",
        )
    return row


_INNER_POSTING = """
    SELECT p.account_id, p.sequence, p.transfer_id FROM casino.postings p JOIN casino.accounts a USING (account_id)
    WHERE p.sequence BETWEEN 2 AND a.last_sequence - 1 ORDER BY p.account_id, p.sequence
    OFFSET floor(%(at)s * (SELECT count(*) FROM casino.postings p JOIN casino.accounts a USING (account_id)
                           WHERE p.sequence BETWEEN 2 AND a.last_sequence - 1)) LIMIT 1
"""
_TRANSFER = """
    SELECT t.transfer_id, t.idempotency_key FROM casino.transfers t ORDER BY t.transfer_id
    OFFSET floor(%(at)s * (SELECT count(*) FROM casino.transfers)) LIMIT 1
"""
_DEPOSIT = """
    SELECT t.transfer_id, t.idempotency_key FROM casino.transfers t WHERE t.kind = 'deposit' ORDER BY t.transfer_id
    OFFSET floor(%(at)s * (SELECT count(*) FROM casino.transfers t WHERE t.kind = 'deposit')) LIMIT 1
"""
_MAINTAIN_INDEX = "UPDATE pg_index SET indisready = %s WHERE indexrelid = 'casino.transfers_idempotency_key'::regclass"
_PLAYER_CASH = """
    SELECT a.account_id, a.currency, a.balance_minor FROM casino.accounts a
    WHERE a.kind = 'player_cash' AND a.last_sequence > 0 ORDER BY a.account_id
    OFFSET floor(%(at)s * (SELECT count(*) FROM casino.accounts a WHERE a.kind = 'player_cash' AND a.last_sequence > 0))
    LIMIT 1
"""

_WALLET = """
    SELECT account_id FROM casino.wallets ORDER BY account_id
    OFFSET floor(%(at)s * (SELECT count(*) FROM casino.wallets)) LIMIT 1
"""
_CONTACT = """
    SELECT c.player_id FROM casino.crm_contacts c JOIN casino.players p USING (player_id) WHERE NOT p.erased
    ORDER BY c.player_id
    OFFSET floor(%(at)s * (SELECT count(*) FROM casino.crm_contacts c JOIN casino.players p USING (player_id)
                           WHERE NOT p.erased)) LIMIT 1
"""


def _pick(connection: _Connection, statement: str, rng: random.Random) -> tuple[Any, ...]:
    return _one(connection, statement, {"at": rng.random()})


def _altered_balance(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, *_ = _pick(connection, _PLAYER_CASH, rng)
    connection.execute(
        "UPDATE casino.accounts SET balance_minor = balance_minor + %s WHERE account_id = %s",
        (rng.randint(1, 1_000_000), account_id),
    )
    return account_id, None


def _altered_posting(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, sequence, transfer_id = _pick(connection, _INNER_POSTING, rng)
    connection.execute(
        "UPDATE casino.postings SET amount_minor = amount_minor * 2 WHERE account_id = %s AND sequence = %s",
        (account_id, sequence),
    )
    return account_id, transfer_id


def _altered_balance_after(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, sequence, transfer_id = _pick(connection, _INNER_POSTING, rng)
    connection.execute(
        "UPDATE casino.postings SET balance_after_minor = balance_after_minor + 1"
        " WHERE account_id = %s AND sequence = %s",
        (account_id, sequence),
    )
    return account_id, transfer_id


def _deleted_posting(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, sequence, transfer_id = _pick(connection, _INNER_POSTING, rng)
    connection.execute("DELETE FROM casino.postings WHERE account_id = %s AND sequence = %s", (account_id, sequence))
    return account_id, transfer_id


def _deleted_newest_posting(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, *_ = _pick(connection, _PLAYER_CASH, rng)
    (transfer_id,) = _one(
        connection,
        "DELETE FROM casino.postings p USING casino.accounts a WHERE a.account_id = %(account)s"
        " AND p.account_id = a.account_id AND p.sequence = a.last_sequence RETURNING p.transfer_id",
        {"account": account_id},
    )
    return account_id, transfer_id


def _swapped_hash(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, sequence, transfer_id = _pick(connection, _INNER_POSTING, rng)
    connection.execute(
        "UPDATE casino.postings SET hash = sha256(hash) WHERE account_id = %s AND sequence = %s", (account_id, sequence)
    )
    return account_id, transfer_id


def _altered_last_hash(connection: _Connection, rng: random.Random) -> _Touched:
    account_id, *_ = _pick(connection, _PLAYER_CASH, rng)
    connection.execute("UPDATE casino.accounts SET last_hash = sha256(last_hash) WHERE account_id = %s", (account_id,))
    return account_id, None


def _orphaned_postings(connection: _Connection, rng: random.Random) -> _Touched:
    transfer_id, _ = _pick(connection, _TRANSFER, rng)
    connection.execute("DELETE FROM casino.transfers WHERE transfer_id = %s", (transfer_id,))
    return None, transfer_id


def _empty_transfer(connection: _Connection, rng: random.Random) -> _Touched:
    connection.execute("ALTER TABLE casino.transfers DISABLE TRIGGER transfer_has_postings")
    connection.execute("SET LOCAL session_replication_role = origin")
    (transfer_id,) = _one(
        connection,
        "INSERT INTO casino.transfers (kind, idempotency_key, payload_hash) VALUES ('bet', %(key)s, sha256(''))"
        " RETURNING transfer_id",
        {"key": f"damage/{rng.getrandbits(64):x}"},
    )
    connection.execute("ALTER TABLE casino.transfers ENABLE TRIGGER transfer_has_postings")
    return None, transfer_id


def _altered_transfer(connection: _Connection, rng: random.Random) -> _Touched:
    transfer_id, _ = _pick(connection, _TRANSFER, rng)
    connection.execute(
        "UPDATE casino.transfers SET created_at = created_at - interval '1 day' WHERE transfer_id = %s", (transfer_id,)
    )
    return None, transfer_id


def _unbalanced_transfer(connection: _Connection, rng: random.Random) -> _Touched:
    """A one-legged transfer: money out of nothing, each account in order with itself."""
    account_id, *_ = _pick(connection, _PLAYER_CASH, rng)
    connection.execute("ALTER TABLE casino.postings DISABLE TRIGGER transfer_balanced")
    connection.execute("SET LOCAL session_replication_role = origin")
    key, amount_minor = f"damage/{rng.getrandbits(64):x}", rng.randint(1, 1_000_000)
    (transfer_id,) = _one(
        connection,
        "SELECT transfer_id FROM casino.post('adjustment', %(key)s, %(key)s, ARRAY[%(account)s::bigint],"
        " ARRAY[%(amount)s::bigint], 'damage')",
        {"key": key, "account": account_id, "amount": amount_minor},
    )
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # ALTER TABLE refuses while deferred triggers wait
    connection.execute("ALTER TABLE casino.postings ENABLE TRIGGER transfer_balanced")
    return account_id, transfer_id


def _duplicated_idempotency_key(connection: _Connection, rng: random.Random) -> _Touched:
    """A deposit paid twice under one key, as a torn index lets through: each row is right, only the pair is wrong.

    The index is left out while the copy is written, so the copy is in the table and not in the index.
    """
    transfer_id, _ = _pick(connection, _DEPOSIT, rng)
    connection.execute("SET LOCAL session_replication_role = origin")
    connection.execute(_MAINTAIN_INDEX, (False,))
    (copy_id,) = _one(
        connection,
        """WITH copied AS (
               INSERT INTO casino.transfers (kind, idempotency_key, payload_hash)
               SELECT kind, idempotency_key, payload_hash FROM casino.transfers WHERE transfer_id = %(source)s
               RETURNING transfer_id
           ), posted AS (
               INSERT INTO casino.postings (transfer_id, account_id, amount_minor)
               SELECT c.transfer_id, p.account_id, p.amount_minor FROM copied c, casino.postings p
               WHERE p.transfer_id = %(source)s ORDER BY p.account_id
           ) SELECT transfer_id FROM copied""",
        {"source": transfer_id},
    )
    connection.execute(_MAINTAIN_INDEX, (True,))
    return None, copy_id


def _negative_balance(connection: _Connection, rng: random.Random) -> _Touched:
    """A player overdrawn by a transfer that is right in every other way."""
    account_id, currency, balance_minor = _pick(connection, _PLAYER_CASH, rng)
    connection.execute("SET LOCAL session_replication_role = origin")
    connection.execute("ALTER TABLE casino.accounts DROP CONSTRAINT accounts_no_overdraft")
    (transfer_id,) = _one(
        connection,
        "SELECT casino.adjust(%(key)s, %(account)s, casino.house_account('house', %(currency)s), %(amount)s, 'damage')",
        {
            "key": f"damage/{rng.getrandbits(64):x}",
            "account": account_id,
            "currency": currency,
            "amount": balance_minor + rng.randint(1, 100_000),
        },
    )
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # ALTER TABLE refuses while deferred triggers wait
    connection.execute(
        "ALTER TABLE casino.accounts ADD CONSTRAINT accounts_no_overdraft"
        " CHECK (balance_minor >= 0 OR may_go_negative) NOT VALID"
    )
    return account_id, transfer_id


def _hold_released_without_money(connection: _Connection, rng: random.Random) -> _Touched:
    """A withdrawal that says it is over while its money still lies in the holding account."""
    account_id, transfer_id = _one(
        connection,
        """WITH chosen AS (
               SELECT withdrawal_id, holding_account_id FROM casino.withdrawals WHERE state = 'requested'
               ORDER BY withdrawal_id
               OFFSET floor(%(at)s * (SELECT count(*) FROM casino.withdrawals WHERE state = 'requested')) LIMIT 1
           )
           UPDATE casino.withdrawals w SET state = 'rejected', holding_account_id = NULL FROM chosen c
           WHERE w.withdrawal_id = c.withdrawal_id RETURNING c.holding_account_id, w.last_transfer_id""",
        {"at": rng.random()},
    )
    return account_id, transfer_id


def _altered_wallet(connection: _Connection, rng: random.Random) -> _Touched:
    """What a player is shown is not what the ledger gives; the ledger itself is right."""
    (account_id,) = _pick(connection, _WALLET, rng)
    connection.execute(
        "UPDATE casino.wallets SET balance_minor = balance_minor + %s WHERE account_id = %s",
        (rng.randint(1, 1_000_000), account_id),
    )
    return account_id, None


def _returned_contact(connection: _Connection, rng: random.Random) -> _Touched:
    """Somebody who was erased is in the CRM all the same, as a copy from before the erasure brings them back."""
    (player_id,) = _pick(connection, _CONTACT, rng)
    connection.execute(
        "UPDATE casino.players SET country = 'ZZ', email_consent = false, sms_consent = false, erased = true"
        " WHERE player_id = %s",
        (player_id,),
    )
    return None, None


def _stray_contact(connection: _Connection, rng: random.Random) -> _Touched:
    """A contact of a player that the casino never had."""
    (player_id,) = _pick(connection, _CONTACT, rng)
    connection.execute(
        "INSERT INTO casino.crm_contacts SELECT -player_id, full_name, 'stray-' || email, phone, email_consent,"
        " sms_consent, synced_at FROM casino.crm_contacts WHERE player_id = %s",
        (player_id,),
    )
    return None, None


# Those that touch what follows the ledger come first: a leg that is gone damages what its player is shown as well.
_KINDS: Final[dict[str, Callable[[_Connection, random.Random], _Touched]]] = {
    "altered_wallet": _altered_wallet,
    "returned_contact": _returned_contact,
    "stray_contact": _stray_contact,
    "altered_balance": _altered_balance,
    "altered_posting": _altered_posting,
    "altered_balance_after": _altered_balance_after,
    "deleted_posting": _deleted_posting,
    "deleted_newest_posting": _deleted_newest_posting,
    "swapped_hash": _swapped_hash,
    "altered_last_hash": _altered_last_hash,
    "orphaned_postings": _orphaned_postings,
    "empty_transfer": _empty_transfer,
    "altered_transfer": _altered_transfer,
    "unbalanced_transfer": _unbalanced_transfer,
    "duplicated_idempotency_key": _duplicated_idempotency_key,
    "negative_balance": _negative_balance,
    "hold_released_without_money": _hold_released_without_money,
}
DAMAGES: Final = tuple(_KINDS)
