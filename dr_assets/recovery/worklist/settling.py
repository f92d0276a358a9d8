"""An order in which every replay can be done: what follows from something after it, what spends after what pays for it.

What belongs here: positions, and what becomes of a line because of others. What stays out: what each line deserves by
itself (rules.yaml). Set-based: each step is one statement over all lines, repeated until nothing changes.

Outsiders' clocks are not one clock, so the times that they tell may have a bet before the deposit that paid for it. A
debit that would overdraw its player where it stands goes behind the first later credit that covers it; one that nothing
covers is held. Both only ever make what comes before larger, so one pass undoes no other.
"""

from typing import Final

import duckdb

_TURNS: Final = 60

# A line's place: when (order_us), and behind what at that time (tier).
_START: Final = """
    CREATE TABLE lines AS
    SELECT *, rule = 'undecided' AS open, at_us AS order_us, CASE WHEN cash_minor > 0 THEN 0 ELSE 1 END AS tier,
           NULL::VARCHAR AS behind, NULL::HUGEINT AS lacking_minor
    FROM judged
"""
_BLOCK: Final = """
    UPDATE lines SET action = 'hold', rule = 'step_before_open'
    WHERE action = 'replay' AND needs IN (SELECT op FROM lines WHERE action <> 'replay') RETURNING op
"""
_FOLLOW: Final = """
    UPDATE lines SET order_us = before.order_us, tier = before.tier + 1, behind = coalesce(behind, before.op)
    FROM (SELECT op AS before_op, op, order_us, tier FROM lines) AS before
    WHERE lines.needs = before.before_op AND lines.action = 'replay'
      AND (lines.order_us, lines.tier) <= (before.order_us, before.tier) RETURNING lines.op
"""
# What the player could play with after each replay, in the order as it stands.
_RUNNING: Final = """
    CREATE OR REPLACE TEMP TABLE running AS
    SELECT l.op, l.cash_account, l.order_us, l.tier, l.cash_minor,
           coalesce(b.balance_minor, 0) + sum(l.cash_minor) OVER (
               PARTITION BY l.cash_account ORDER BY l.order_us, l.tier, l.op ROWS UNBOUNDED PRECEDING) AS left_minor
    FROM lines l LEFT JOIN ledger_accounts b ON b.account = l.cash_account
    WHERE l.action = 'replay' AND l.cash_account IS NOT NULL AND l.cash_minor <> 0
      AND NOT coalesce(b.may_go_negative, false)
"""
_MOVE: Final = """
    UPDATE lines SET order_us = cover.order_us, tier = cover.tier + 1, behind = cover.credit
    FROM (
        SELECT d.op, c.op AS credit, c.order_us, c.tier FROM running d JOIN running c USING (cash_account)
        WHERE d.left_minor < 0 AND d.cash_minor < 0 AND c.left_minor >= 0 AND c.cash_minor > 0
          AND (c.order_us, c.tier, c.op) > (d.order_us, d.tier, d.op)
        QUALIFY row_number() OVER (PARTITION BY d.op ORDER BY c.order_us, c.tier, c.op) = 1
    ) AS cover
    WHERE lines.op = cover.op RETURNING lines.op
"""
# One an account and turn, the first that does not fit: with it held the later ones may.
_HOLD: Final = """
    UPDATE lines SET action = 'hold', rule = 'would_overdraw', lacking_minor = -short.left_minor
    FROM (
        SELECT op, left_minor FROM running WHERE left_minor < 0 AND cash_minor < 0
        QUALIFY row_number() OVER (PARTITION BY cash_account ORDER BY order_us, tier, op) = 1
    ) AS short
    WHERE lines.op = short.op RETURNING lines.op
"""
_HOLD_ALL: Final = """
    UPDATE lines SET action = 'hold', rule = 'would_overdraw', lacking_minor = -short.left_minor
    FROM (SELECT op, left_minor FROM running WHERE left_minor < 0 AND cash_minor < 0) AS short
    WHERE lines.op = short.op RETURNING lines.op
"""


def settle(database: duckdb.DuckDBPyConnection) -> None:
    """From `judged` make `lines`: places, and holds that follow from others."""
    database.execute(_START)
    for _ in range(_TURNS):
        _in_order(database)
        if not _done(database, _MOVE) and not _done(database, _HOLD):
            return
    _in_order(database)
    while _done(database, _HOLD_ALL):  # a tangle that is not worth more turns: what doesn't fit is a person's
        _in_order(database)


def _in_order(database: duckdb.DuckDBPyConnection) -> None:
    while _done(database, _BLOCK) or _done(database, _FOLLOW):
        pass
    database.execute(_RUNNING)


def _done(database: duckdb.DuckDBPyConnection, statement: str) -> bool:
    return bool(database.execute(statement).fetchall())
