"""Planted breaks of the ledger and of its balances."""

# ruff: noqa: ISC004, S608 - statements are put together from names of this file

from typing import Final

from dr_assets_tests.reconciliation.case import Broken, Case

# A leg of the house's in the middle of its account, of a bet: no read model, no payment and no hold depends on it.
_LEG: Final = """
    SELECT p.account_id AS account, p.sequence, p.transfer_id AS transfer, p.currency, p.amount_minor AS amount,
           -2 * p.amount_minor AS turned, 2 * p.amount_minor AS turned_back, 1 AS cent, -1 AS cent_back,
           -p.amount_minor AS gone, o.account_id AS other_account, -o.amount_minor AS other_gone
    FROM postings p JOIN balances b USING (account_id) JOIN accounts a USING (account_id)
    JOIN outbox e ON e.transfer_id = p.transfer_id AND e.topic = 'ledger.bet'
    JOIN postings o ON o.transfer_id = p.transfer_id AND o.account_id <> p.account_id
    WHERE a.may_go_negative AND p.sequence BETWEEN 3 AND b.last_sequence - 3 ORDER BY p.transfer_id LIMIT 1
"""
_THIS_LEG: Final = "WHERE account_id = $account AND sequence = $sequence"
_BALANCE: Final = """
    SELECT account_id AS account, currency, balance_minor AS amount, -2 * balance_minor AS turned, 1 AS cent
    FROM balances JOIN accounts USING (account_id) WHERE may_go_negative AND last_sequence > 3 ORDER BY 1 LIMIT 1
"""
_HOLD: Final = """
    SELECT h.hold_id, h.account_id AS account, h.currency, h.amount_minor AS amount, -h.amount_minor AS gone, 1 AS cent,
           -1 AS cent_back, w.account_id AS cash, -c.balance_minor AS cash_gone
    FROM holds h JOIN withdrawals w ON w.withdrawal_id = h.hold_id JOIN balances c ON c.account_id = w.account_id
    ORDER BY h.hold_id LIMIT 1
"""

_PENDING: Final = """
    SELECT pending_id AS pending, pending_id::VARCHAR AS reference, account_id AS account, transfer_id AS transfer,
           amount_minor AS amount, 1 AS cent
    FROM pendings WHERE resolution = 'posted' ORDER BY pending_id LIMIT 1
"""


def _sums(amount: str) -> tuple[Broken, ...]:
    return (Broken("balances/balance_is_sum", "balance_differs_from_postings", amount, account="account"),)


def _books(amount: str | None, count: int = 1) -> Broken:
    return Broken("ledger/books_balance", "currency_out_of_balance", amount, count=count)


def _rewritten(amount: str) -> tuple[Broken, ...]:
    """What an amount that is not the hashed one breaks besides."""
    return (
        Broken("ledger/hash_chain", "hash_differs", account="account", transfer="transfer"),
        Broken("balances/running_balance", "running_balance_differs", amount, account="account"),
        *_sums(amount),
    )


LEDGER: Final = (
    Case(
        "sign error", "one leg of a transfer has its sign turned", _LEG,
        (f"UPDATE postings SET amount_minor = -amount_minor {_THIS_LEG}",),
        Broken("ledger/transfers_balance", "transfer_out_of_balance", "turned", None, None, "transfer", "currency"),
        (_books("turned"), *_rewritten("turned_back")),
    ),
    Case(
        "off by one cent", "one leg of a transfer", _LEG,
        (f"UPDATE postings SET amount_minor = amount_minor + 1 {_THIS_LEG}",),
        Broken("ledger/transfers_balance", "transfer_out_of_balance", "cent", transfer="transfer"),
        (_books("cent"), *_rewritten("cent_back")),
    ),
    Case(
        "missing", "one leg of a transfer", _LEG,
        (f"DELETE FROM postings {_THIS_LEG}",),
        Broken("ledger/transfers_balance", "transfer_out_of_balance", "gone", transfer="transfer"),
        (_books("gone"), Broken("ledger/sequence_gapless", "sequence_gap", account="account"), *_sums("amount")),
    ),
    Case(
        "duplicate", "a leg is there twice", _LEG,
        (f"INSERT INTO postings SELECT * FROM postings {_THIS_LEG}",),
        Broken("ledger/sequence_gapless", "sequence_repeated", "amount", account="account", transfer="transfer"),
        (
            _books("amount"),
            Broken("ledger/transfers_balance", "transfer_out_of_balance", "amount", transfer="transfer"),
            *_sums("gone"),
        ),
    ),
    Case(
        "wrong currency", "one leg is booked in another currency", _LEG,
        (f"UPDATE postings SET currency = 'XXX' {_THIS_LEG}",),
        Broken("ledger/postings_belong", "posting_in_other_currency", "amount", account="account", transfer="transfer"),
        (
            _books("amount", 2),
            Broken("ledger/transfers_balance", "transfer_out_of_balance", transfer="transfer", count=2),
            Broken("ledger/hash_chain", "hash_differs", account="account"),
        ),
    ),
    Case(
        "swapped accounts", "the two legs of a transfer lie on each other's account",
        _LEG,
        ("UPDATE postings SET amount_minor = -amount_minor WHERE transfer_id = $transfer",),
        Broken("ledger/hash_chain", "hash_differs", transfer="transfer", count=2),
        (
            Broken("balances/running_balance", "running_balance_differs", transfer="transfer", count=2),
            Broken("balances/balance_is_sum", "balance_differs_from_postings", count=2),
            Broken("read_models/rebuilt", "value_differs", "turned", account="other_account"),
        ),
    ),
    Case(
        "wrong account", "a leg lies on an account that nobody has", _LEG,
        (f"UPDATE postings SET account_id = -1 {_THIS_LEG}",),
        Broken("ledger/postings_belong", "posting_without_account", "amount", transfer="transfer"),
        (
            Broken("ledger/sequence_gapless", "sequence_gap", count=2),
            *_sums("amount"),
        ),
    ),
    Case(
        "missing", "a transfer, its legs are there", _LEG,
        ("DELETE FROM transfers WHERE transfer_id = $transfer",),
        Broken("ledger/postings_belong", "orphan_posting", transfer="transfer", count=2),
        (Broken("queues/entries", "record_without_entry"),),
    ),
    Case(
        "duplicate", "a transfer is there twice", _LEG,
        ("INSERT INTO transfers SELECT * FROM transfers WHERE transfer_id = $transfer",),
        Broken("ledger/ids_unique", "transfer_repeated", transfer="transfer"),
    ),
    Case(
        "duplicate", "two transfers under one idempotency key",
        "SELECT t.transfer_id AS transfer, t.idempotency_key AS reference, f.idempotency_key AS first_key"
        " FROM transfers t JOIN outbox o USING (transfer_id), (SELECT * FROM transfers ORDER BY transfer_id LIMIT 1) f"
        " WHERE old(o.created_us) AND o.topic = 'ledger.bet' ORDER BY t.transfer_id DESC LIMIT 1",
        ("UPDATE transfers SET idempotency_key = $first_key WHERE transfer_id = $transfer",),
        Broken("ledger/idempotency_keys_unique", "idempotency_key_repeated", transfer="transfer"),
        (
            Broken("ledger/idempotency_payloads", "idempotency_payload_differs", transfer="transfer"),
            Broken("ledger/transfer_digests", "transfer_altered", transfer="transfer"),
            Broken("queues/entries", "record_without_entry", reference="reference"),
        ),
    ),
    Case(
        "late", "a transfer is dated a day earlier", _LEG,
        ("UPDATE transfers SET created_us = created_us - 86400000000 WHERE transfer_id = $transfer",),
        Broken("ledger/transfer_digests", "transfer_altered", transfer="transfer"),
    ),
    Case(
        "missing", "a transfer without any leg", "SELECT -7 AS transfer, 'nothing' AS reference",
        ("INSERT INTO transfers SELECT * REPLACE (-7 AS transfer_id, 'nothing' AS idempotency_key) FROM transfers"
         " LIMIT 1",),
        Broken("ledger/transfers_have_postings", "transfer_without_postings", transfer="transfer"),
        (
            Broken("ledger/transfer_digests", "transfer_altered", transfer="transfer"),
            Broken("queues/entries", "entry_without_event", transfer="transfer"),
        ),
    ),
    Case(
        "altered", "a leg's hash", _LEG,
        (f"UPDATE postings SET hash = unhex(sha256(hash)) {_THIS_LEG}",),
        Broken("ledger/hash_chain", "hash_differs", account="account", count=2),
    ),
    Case(
        "duplicate", "money that was set aside is posted and voided", _PENDING,
        ("INSERT INTO pendings SELECT * REPLACE ('voided' AS resolution) FROM pendings WHERE pending_id = $pending",),
        Broken("ledger/pendings_resolved", "pending_resolved_twice", "amount", "reference", "account"),
    ),
    Case(
        "off by one cent", "more is posted than was set aside", _PENDING,
        ("UPDATE pendings SET resolved_minor = resolved_minor + 1 WHERE pending_id = $pending",),
        Broken("ledger/pendings_resolved", "pending_overdrawn", "cent", "reference", "account", "transfer"),
    ),
    Case(
        "missing", "the transfer that posted what was set aside", _PENDING,
        ("UPDATE pendings SET transfer_id = -1 WHERE pending_id = $pending",),
        Broken("ledger/pendings_resolved", "pending_without_transfer", "amount", "reference", "account"),
    ),
)  # fmt: skip

BALANCES: Final = (
    Case(
        "off by one cent", "an account's balance", _BALANCE,
        ("UPDATE balances SET balance_minor = balance_minor + 1 WHERE account_id = $account",),
        Broken("balances/balance_is_sum", "balance_differs_from_postings", "cent", None, "account", None, "currency"),
        (Broken("balances/newest_posting", "balance_differs_from_newest_posting", "cent", account="account"),),
    ),
    Case(
        "sign error", "an account's balance", _BALANCE,
        ("UPDATE balances SET balance_minor = -balance_minor WHERE account_id = $account",),
        Broken("balances/balance_is_sum", "balance_differs_from_postings", "turned", account="account"),
        (Broken("balances/newest_posting", "balance_differs_from_newest_posting", "turned", account="account"),),
    ),
    Case(
        "swapped accounts", "two accounts have each other's balance",
        "SELECT x.account_id AS account, y.account_id AS other, x.balance_minor AS mine, y.balance_minor AS theirs,"
        " y.balance_minor - x.balance_minor AS amount FROM balances x JOIN balances y ON y.account_id > x.account_id"
        " JOIN accounts a ON a.account_id = x.account_id JOIN accounts b ON b.account_id = y.account_id"
        " WHERE a.may_go_negative AND b.may_go_negative AND x.balance_minor <> y.balance_minor"
        " AND x.last_sequence > 0 AND y.last_sequence > 0 ORDER BY 1, 2 LIMIT 1",
        (
            "UPDATE balances SET balance_minor = $theirs WHERE account_id = $account",
            "UPDATE balances SET balance_minor = $mine WHERE account_id = $other",
        ),
        Broken("balances/balance_is_sum", "balance_differs_from_postings", count=2),
        (Broken("balances/newest_posting", "balance_differs_from_newest_posting", count=2),),
    ),
    Case(
        "missing", "an account's balance", _BALANCE,
        ("DELETE FROM balances WHERE account_id = $account",),
        Broken("balances/balance_is_sum", "account_without_balance", account="account", currency="currency"),
    ),
    Case(
        "wrong account", "a balance of an account that nobody has", "SELECT -1 AS account, 0 AS amount",
        ("INSERT INTO balances SELECT * REPLACE (-1 AS account_id, 0 AS balance_minor, 0 AS last_sequence,"
         " ''::BLOB AS last_hash) FROM balances LIMIT 1",),
        Broken("balances/balance_is_sum", "balance_without_account", "amount", account="account"),
    ),
    Case(
        "missing", "the newest leg of an account, cut off with its balance's knowledge of it",
        "SELECT b.account_id AS account, p.transfer_id AS transfer, -p.amount_minor AS gone, p.amount_minor AS amount"
        " FROM balances b JOIN postings p ON p.account_id = b.account_id AND p.sequence = b.last_sequence"
        " JOIN accounts a ON a.account_id = b.account_id WHERE a.may_go_negative ORDER BY 1 LIMIT 1",
        ("DELETE FROM postings WHERE account_id = $account AND transfer_id = $transfer",),
        Broken("balances/newest_posting", "newest_posting_missing", "amount", account="account"),
        (
            _books("gone"),
            Broken("ledger/transfers_balance", "transfer_out_of_balance", "gone", transfer="transfer"),
            *_sums("amount"),
        ),
    ),
    Case(
        "off by one cent", "the balance noted on a leg", _LEG,
        (f"UPDATE postings SET balance_after_minor = balance_after_minor + 1 {_THIS_LEG}",),
        Broken("balances/running_balance", "running_balance_differs", account="account", count=2),
        (Broken("ledger/hash_chain", "hash_differs", account="account", transfer="transfer"),),
    ),
    Case(
        "altered", "the newest hash that an account knows", _BALANCE,
        ("UPDATE balances SET last_hash = unhex(sha256(last_hash)) WHERE account_id = $account",),
        Broken("balances/newest_hash", "newest_hash_differs", account="account", currency="currency"),
    ),
    Case(
        "overdrawn", "an account that may not owe anything",
        "SELECT b.account_id AS account, b.balance_minor AS amount,"
        " 1 + (SELECT count(*) FROM postings p WHERE p.account_id = b.account_id AND p.balance_after_minor < 0)"
        " AS times"
        " FROM balances b WHERE b.balance_minor < 0 ORDER BY 1 LIMIT 1",
        ("UPDATE accounts SET may_go_negative = false WHERE account_id = $account",),
        Broken("balances/no_forbidden_negative", "forbidden_negative", account="account", count="times"),
    ),
    Case(
        "missing", "the hold of an open withdrawal", _HOLD,
        ("DELETE FROM holds WHERE hold_id = $hold_id",),
        Broken("balances/holds_agree", "balance_differs_from_holds", "amount", account="account", currency="currency"),
        (Broken("withdrawals/holds_released_once", "hold_missing", "gone"),),
    ),
    Case(
        "duplicate", "a withdrawal's hold", _HOLD,
        ("INSERT INTO holds SELECT * FROM holds WHERE hold_id = $hold_id",),
        Broken("balances/holds_agree", "balance_differs_from_holds", "gone", account="account"),
        (Broken("withdrawals/holds_released_once", "held_twice", "amount"),),
    ),
    Case(
        "off by one cent", "a withdrawal's hold", _HOLD,
        ("UPDATE holds SET amount_minor = amount_minor + 1 WHERE hold_id = $hold_id",),
        Broken("balances/holds_agree", "balance_differs_from_holds", "cent_back", account="account"),
        (Broken("withdrawals/holds_released_once", "hold_differs", "cent"),),
    ),
    Case(
        "swapped accounts", "a hold on the player's cash instead of the holding account", _HOLD,
        ("UPDATE holds SET account_id = $cash WHERE hold_id = $hold_id",),
        Broken("balances/holds_agree", "hold_on_wrong_account", "amount", account="cash"),
        (Broken("balances/holds_agree", "balance_differs_from_holds", "amount", account="account"),),
    ),
)  # fmt: skip
