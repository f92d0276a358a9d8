-- Withdrawals that are paid on both sides, and those that are on their way.
WITH paid AS (
    SELECT reference, sum(gross_minor) AS paid_minor, min(currency) AS currency FROM provider_lines
    WHERE kind = 'payout' GROUP BY reference
)
SELECT CASE WHEN w.state = 'paid' AND p.paid_minor = -w.amount_minor THEN 'matched'
            WHEN w.state IN ('requested', 'approved') THEN 'open' ELSE 'other' END AS outcome,
       w.currency, count(*) AS count, sum(-w.amount_minor) AS amount_minor
FROM withdrawals w LEFT JOIN paid p ON p.reference = w.payout_reference AND p.currency = w.currency
WHERE w.state IN ('requested', 'approved') OR (w.state = 'paid' AND p.paid_minor = -w.amount_minor)
GROUP BY 1, 2
