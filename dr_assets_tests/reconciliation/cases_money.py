"""Planted breaks between the ledger and those who move the money: payment provider, bank, payouts."""

# ruff: noqa: ISC004, S608 - statements are put together from names of this file

from typing import Final

from dr_assets_tests.reconciliation.case import Broken, Case

# A deposit that is settled, posted and at the bank, long enough ago; and the sums it is part of.
_PAID: Final = """
    SELECT l.reference, l.line, l.batch, l.currency, l.gross_minor AS amount, -l.gross_minor AS gone,
           -2 * l.gross_minor AS turned, 2 * l.gross_minor AS turned_back, l.net_minor AS net, -l.net_minor AS net_gone,
           1 AS cent, -1 AS cent_back, p.account_id AS account, p.transfer_id AS transfer, b.reference AS at_bank,
           b.line AS bank_line, b.amount_minor AS settled, -b.amount_minor AS settled_gone,
           -2 * b.amount_minor AS settled_turned,
           CASE l.currency WHEN 'EUR' THEN 'USD' ELSE 'EUR' END AS other_currency, s.booked_us
    FROM provider_lines l JOIN payments p ON p.reference = l.reference
    JOIN bank_lines b ON b.reference = (SELECT max(reference) FROM provider_lines x
                                        WHERE x.batch = l.batch AND x.kind = 'batch' AND x.currency = l.currency)
    JOIN provider_lines s ON s.reference = b.reference AND s.kind = 'batch'
    WHERE l.kind = 'payment' AND old(l.booked_us) AND old(p.created_us) AND old(s.booked_us) AND old(b.booked_us)
      AND l.reference NOT IN (SELECT original_reference FROM provider_lines WHERE original_reference IS NOT NULL)
    ORDER BY l.reference LIMIT 1
"""
_BACK: Final = """
    SELECT l.reference, l.currency, l.gross_minor AS amount, p.account_id AS account
    FROM provider_lines l JOIN payments p ON p.reference = l.reference
    WHERE l.kind = '{}' AND old(l.booked_us) AND old(p.created_us) ORDER BY 1 LIMIT 1
"""
_LINE: Final = "WHERE reference = $reference AND line = $line"


def _batch(amount: str) -> tuple[Broken, ...]:
    """The batch settled what the provider really did: its lines no longer add up to it."""
    return (Broken("payments/batches_add_up", "batch_sum_differs", amount, reference="at_bank"),)


PAYMENTS: Final = (
    Case(
        "missing", "a captured payment that the ledger does not know", _PAID,
        ("DELETE FROM payments WHERE reference = $reference",),
        Broken("payments/settled_agree", "payment_not_posted", "amount", "reference", currency="currency"),
    ),
    Case(
        "missing", "a posted deposit that the provider does not know", _PAID,
        (f"DELETE FROM provider_lines {_LINE}",),
        Broken("payments/settled_agree", "missing_at_provider", "gone", "reference", "account", "transfer"),
        _batch("net"),
    ),
    Case(
        "off by one cent", "a settled payment", _PAID,
        (f"UPDATE provider_lines SET gross_minor = gross_minor + 1, net_minor = net_minor + 1 {_LINE}",),
        Broken("payments/settled_agree", "amount_differs", "cent", "reference", "account", "transfer", "currency"),
        _batch("cent_back"),
    ),
    Case(
        "off by one cent", "a posted deposit", _PAID,
        ("UPDATE payments SET amount_minor = amount_minor + 1 WHERE reference = $reference",),
        Broken("payments/settled_agree", "amount_differs", "cent_back", "reference", "account"),
    ),
    Case(
        "sign error", "a deposit is booked as money out", _PAID,
        ("UPDATE payments SET direction = 'out' WHERE reference = $reference",),
        Broken("payments/settled_agree", "sign_differs", "turned_back", "reference", "account"),
    ),
    Case(
        "duplicate", "a payment is settled twice", _PAID,
        (f"INSERT INTO provider_lines SELECT * REPLACE (line + 100000 AS line) FROM provider_lines {_LINE}",),
        Broken("payments/settled_agree", "settled_twice", "amount", "reference", "account"),
        _batch("net_gone"),
    ),
    Case(
        "duplicate", "a deposit is posted twice under one reference", _PAID,
        ("INSERT INTO payments SELECT * REPLACE (-1 AS payment_id) FROM payments WHERE reference = $reference",),
        Broken("payments/settled_agree", "posted_twice", "gone", "reference", "account"),
    ),
    Case(
        "wrong currency", "a deposit is booked in another currency than it was paid in", _PAID,
        ("UPDATE payments SET currency = $other_currency WHERE reference = $reference",),
        Broken("payments/settled_agree", "currency_differs", "amount", "reference", "account", currency="currency"),
    ),
    Case(
        "late", "a deposit is posted more than the date window after its capture", _PAID,
        ("UPDATE payments SET created_us = created_us + 7200000000 WHERE reference = $reference",),
        Broken("payments/settled_agree", "settled_late", reference="reference", account="account"),
    ),
    Case(
        "swapped accounts", "two deposits bear each other's reference",
        _PAID.replace("SELECT l.reference", """SELECT (
               SELECT min(q.reference) FROM payments q
               WHERE q.direction = 'in' AND old(q.created_us) AND q.currency = l.currency
               AND q.amount_minor <> p.amount_minor AND q.reference NOT IN (
                   SELECT original_reference FROM provider_lines WHERE original_reference IS NOT NULL)
           ) AS other, l.reference""", 1),
        (
            "UPDATE payments SET reference = CASE reference WHEN $reference THEN $other ELSE $reference END"
            " WHERE reference IN ($reference, $other)",
        ),
        Broken("payments/settled_agree", "amount_differs", count=2),
    ),
    Case(
        "missing", "a refund that the ledger was never told of", _BACK.format("refund"),
        ("DELETE FROM payments WHERE reference = $reference",),
        Broken("payments/settled_agree", "refund_not_posted", "amount", currency="currency"),
    ),
    Case(
        "missing", "a chargeback that the ledger was never told of", _BACK.format("chargeback"),
        ("DELETE FROM payments WHERE reference = $reference",),
        Broken("payments/settled_agree", "chargeback_not_posted", "amount", currency="currency"),
    ),
    Case(
        "missing", "a payment was voided at the provider and stays in the ledger",
        _PAID,
        (f"INSERT INTO provider_lines SELECT * REPLACE (reference || '-back' AS reference, 'reversal' AS kind,"
         f" reference AS original_reference, -gross_minor AS gross_minor, 0 AS fee_minor, -gross_minor AS net_minor,"
         f" NULL AS batch, line + 100000 AS line) FROM provider_lines {_LINE}",),
        Broken("payments/settled_agree", "reversal_not_posted", "gone", account="account"),
    ),
    Case(
        "off by one cent", "what is left of a payment after its fee", _PAID,
        (f"UPDATE provider_lines SET net_minor = net_minor + 1 {_LINE}",),
        Broken("payments/fees_add_up", "net_differs", "cent", "reference", currency="currency"),
        _batch("cent_back"),
    ),
    Case(
        "duplicate", "a batch is settled twice by the provider", _PAID,
        ("INSERT INTO provider_lines SELECT * REPLACE (line + 100000 AS line) FROM provider_lines"
         " WHERE reference = $at_bank AND kind = 'batch'",),
        Broken("payments/batches_add_up", "batch_settled_twice", "settled", "at_bank"),
        (Broken("payments/batches_at_bank", "bank_amount_differs", "settled_gone", "at_bank"),),
    ),
    Case(
        "missing", "a batch never reached the bank", _PAID,
        ("DELETE FROM bank_lines WHERE reference = $at_bank",),
        Broken("payments/batches_at_bank", "batch_not_at_bank", "settled_gone", "at_bank", currency="currency"),
    ),
    Case(
        "off by one cent", "a batch on the bank's statement", _PAID,
        ("UPDATE bank_lines SET amount_minor = amount_minor + 1 WHERE reference = $at_bank",),
        Broken("payments/batches_at_bank", "bank_amount_differs", "cent", "at_bank"),
    ),
    Case(
        "duplicate", "a batch is on the statement twice", _PAID,
        ("INSERT INTO bank_lines SELECT * REPLACE (line + 100000 AS line) FROM bank_lines WHERE reference = $at_bank",),
        Broken("payments/batches_at_bank", "bank_paid_twice", "settled", "at_bank"),
    ),
    Case(
        "sign error", "a batch is taken from our account instead of paid to it", _PAID,
        ("UPDATE bank_lines SET amount_minor = -amount_minor WHERE reference = $at_bank",),
        Broken("payments/batches_at_bank", "bank_amount_differs", "settled_turned", "at_bank"),
    ),
    Case(
        "wrong currency", "a batch arrives in another currency", _PAID,
        ("UPDATE bank_lines SET currency = $other_currency WHERE reference = $at_bank",),
        Broken("payments/batches_at_bank", "bank_currency_differs", "settled", "at_bank", currency="other_currency"),
    ),
    Case(
        "unknown", "money at the bank that no provider explains", _PAID,
        ("INSERT INTO bank_lines SELECT * REPLACE ('from nobody' AS reference, line + 100000 AS line) FROM bank_lines"
         " WHERE reference = $at_bank",),
        Broken("payments/batches_at_bank", "bank_line_unknown", "settled"),
    ),
)  # fmt: skip

# A withdrawal that was paid on both sides, long enough ago, and one that is approved and waits.
_OUT: Final = """
    SELECT w.withdrawal_id AS withdrawal, w.payout_reference AS reference, w.account_id AS account, w.currency,
           l.line, w.amount_minor AS amount, -w.amount_minor AS gone, 2 * w.amount_minor AS turned,
           1 AS cent, -1 AS cent_back, -l.net_minor AS net_gone, l.net_minor AS net, l.gross_minor AS gross,
           CASE w.currency WHEN 'EUR' THEN 'USD' ELSE 'EUR' END AS other_currency,
           2 * l.gross_minor AS batch_turned, b.reference AS at_bank
    FROM withdrawals w JOIN provider_lines l ON l.reference = w.payout_reference
    JOIN provider_lines b ON b.batch = l.batch AND b.kind = 'batch' AND b.currency = l.currency
    WHERE w.state = 'paid' AND l.kind = 'payout' AND old(w.state_us) AND old(l.booked_us) ORDER BY 1 LIMIT 1
"""
_WAITING: Final = """
    SELECT w.withdrawal_id AS withdrawal, w.payout_reference AS reference, w.account_id AS account, w.currency,
           w.amount_minor AS amount, -w.amount_minor AS gone, o.payout_reference AS other
    FROM withdrawals w, withdrawals o
    WHERE w.state = 'approved' AND o.state = 'paid' AND o.withdrawal_id < w.withdrawal_id
      AND w.payout_reference NOT IN (SELECT reference FROM provider_lines)
    ORDER BY 1 DESC, o.withdrawal_id LIMIT 1
"""
_PAYOUT_OF: Final = (
    "INSERT INTO provider_lines SELECT * REPLACE (line + 100000 AS line, $reference AS reference,"
    " $currency AS currency, $gone AS gross_minor, 0 AS fee_minor, $gone AS net_minor, NULL AS batch)"
    " FROM provider_lines WHERE kind = 'payout' AND old(booked_us) LIMIT 1"
)

WITHDRAWALS: Final = (
    Case(
        "missing", "paid by the provider, not posted", _WAITING,
        (_PAYOUT_OF,),
        Broken("withdrawals/payouts_agree", "paid_not_posted", "gone", "reference", "account"),
    ),
    Case(
        "missing", "posted as paid, never paid", _OUT,
        (f"DELETE FROM provider_lines {_LINE}",),
        Broken("withdrawals/payouts_agree", "posted_not_paid", "amount", "reference", "account", currency="currency"),
        (Broken("payments/batches_add_up", "batch_sum_differs", "net", "at_bank"),),
    ),
    Case(
        "duplicate", "paid out twice", _OUT,
        ("INSERT INTO provider_lines SELECT * REPLACE (line + 100000 AS line, NULL AS batch) FROM provider_lines"
         f" {_LINE}",),
        Broken("withdrawals/payouts_agree", "paid_twice", "gone", "reference", "account"),
    ),
    Case(
        "off by one cent", "a payout", _OUT,
        (f"UPDATE provider_lines SET gross_minor = gross_minor - 1, net_minor = net_minor - 1 {_LINE}",),
        Broken("withdrawals/payouts_agree", "paid_other_amount", "cent_back", "reference", "account"),
        (Broken("payments/batches_add_up", "batch_sum_differs", "cent", "at_bank"),),
    ),
    Case(
        "sign error", "a payout that came in instead of going out", _OUT,
        (f"UPDATE provider_lines SET gross_minor = -gross_minor, net_minor = -gross_minor - fee_minor {_LINE}",),
        Broken("withdrawals/payouts_agree", "paid_other_amount", "turned", "reference", "account"),
        (Broken("payments/batches_add_up", "batch_sum_differs", "batch_turned", "at_bank"),),
    ),
    Case(
        "wrong currency", "a withdrawal is paid out in another currency", _OUT,
        ("UPDATE withdrawals SET currency = $other_currency WHERE withdrawal_id = $withdrawal",),
        Broken("withdrawals/payouts_agree", "paid_other_currency", "gone", "reference", "account", currency="currency"),
    ),
    Case(
        "out of order", "paid although it was cancelled", _OUT,
        ("UPDATE withdrawals SET state = 'cancelled' WHERE withdrawal_id = $withdrawal",),
        Broken("withdrawals/payouts_agree", "paid_after_refusal", "gone", "reference", "account"),
    ),
    Case(
        "unknown", "a payout that belongs to no withdrawal", _WAITING,
        (_PAYOUT_OF.replace("$reference AS", "'nobody' AS"),),
        Broken("withdrawals/payouts_agree", "payout_unknown", "gone"),
    ),
    Case(
        "late", "approved and overdue",
        _WAITING,
        ("UPDATE withdrawals SET state_us = state_us - 3600000000, requested_us = requested_us - 3600000000"
         " WHERE withdrawal_id = $withdrawal",),
        Broken("withdrawals/payouts_agree", "payout_overdue", reference="reference", account="account"),
    ),
    Case(
        "swapped accounts", "two withdrawals bear each other's payout reference",
        _OUT.replace("SELECT w.withdrawal_id", """SELECT (
               SELECT min(o.payout_reference) FROM withdrawals o WHERE o.state = 'paid' AND o.currency = w.currency
               AND o.amount_minor <> w.amount_minor AND old(o.state_us)) AS other, w.withdrawal_id""", 1).replace(
            "WHERE w.state", """WHERE EXISTS (SELECT 1 FROM withdrawals o
               WHERE o.state = 'paid' AND o.currency = w.currency
               AND o.amount_minor <> w.amount_minor AND old(o.state_us)) AND w.state"""),
        (
            "UPDATE withdrawals SET payout_reference = CASE payout_reference WHEN $reference THEN $other"
            " ELSE $reference END WHERE payout_reference IN ($reference, $other)",
        ),
        Broken("withdrawals/payouts_agree", "paid_other_amount", count=2),
    ),
    Case(
        "missing", "a paid withdrawal has lost its payout reference", _OUT,
        ("UPDATE withdrawals SET payout_reference = NULL WHERE withdrawal_id = $withdrawal",),
        Broken("withdrawals/states_legal", "payout_reference_missing", "amount", account="account"),
        (Broken("withdrawals/payouts_agree", "payout_unknown", "gross", "reference"),),
    ),
    Case(
        "duplicate", "two withdrawals under one payout reference", _WAITING,
        ("UPDATE withdrawals SET payout_reference = $other WHERE withdrawal_id = $withdrawal",),
        Broken("withdrawals/states_legal", "payout_reference_repeated", "amount", "other", "account"),
    ),
    Case(
        "altered", "a state that there is none of", _OUT,
        ("UPDATE withdrawals SET state = 'lost' WHERE withdrawal_id = $withdrawal",),
        Broken("withdrawals/states_legal", "state_unknown", "amount", "reference", "account"),
        (Broken("withdrawals/payouts_agree", "paid_other_amount"),),
    ),
)  # fmt: skip
