-- Posted payments that agree, and references that are no break for another reason.
WITH posted AS (
    SELECT p.currency, count(*) AS payments,
           sum(CASE p.direction WHEN 'in' THEN p.amount_minor ELSE -p.amount_minor END) AS amount_minor
    FROM payments p ANTI JOIN withdrawals w ON w.payout_reference = p.reference
    WHERE p.state = 'posted' GROUP BY p.currency
), doubtful AS (
    SELECT low_currency AS currency, sum(posted) AS payments, sum(ledger_minor) AS amount_minor
    FROM kept WHERE verdict NOT IN ('matched', 'settled_late') GROUP BY low_currency
)
SELECT 'matched' AS outcome, posted.currency, posted.payments - coalesce(doubtful.payments, 0) AS count,
       posted.amount_minor - coalesce(doubtful.amount_minor, 0) AS amount_minor
FROM posted LEFT JOIN doubtful ON doubtful.currency = posted.currency
UNION ALL
SELECT verdict, coalesce(line_currency, low_currency), count(*), sum(line_minor - ledger_minor)
FROM kept WHERE verdict IN ('tolerated', 'in_flight', 'not_covered') GROUP BY 1, 2
