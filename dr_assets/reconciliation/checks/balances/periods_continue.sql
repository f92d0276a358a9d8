-- A statement's opening balance and its entries give its closing balance, the next one opens with that, and none is left
-- out.
-- reads: periods
WITH steps AS (
    SELECT account_id, currency, period, opening_minor, entries_minor, closing_minor,
           lag(period) OVER earlier AS previous, lag(closing_minor) OVER earlier AS previous_minor
    FROM periods WINDOW earlier AS (PARTITION BY account_id, currency ORDER BY period, opening_minor, closing_minor)
)
SELECT 'period_does_not_add_up' AS reason, account_id AS account, NULL AS transfer, currency,
       closing_minor::HUGEINT - (opening_minor::HUGEINT + entries_minor) AS amount_minor,
       'period ' || period || ' closes with ' || closing_minor AS detail
FROM steps WHERE closing_minor::HUGEINT <> opening_minor::HUGEINT + entries_minor
UNION ALL
SELECT 'opening_differs_from_closing', account_id, NULL, currency, opening_minor::HUGEINT - previous_minor,
       'period ' || period || ' opens with ' || opening_minor || ' after ' || previous_minor
FROM steps WHERE period = previous + 1 AND opening_minor <> previous_minor
UNION ALL
SELECT 'period_missing', account_id, NULL, currency, NULL, 'period ' || period || ' after ' || previous
FROM steps WHERE period <> previous + 1
