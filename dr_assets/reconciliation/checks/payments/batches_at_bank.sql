-- Each batch that a provider settled is one entry on our bank's statement, and of money from nobody we ask. The amount is
-- the bank's less the provider's.
-- reads: provider_lines, bank_lines
-- severity: bank_line_unknown=amber
WITH batches AS (
    SELECT provider, batch, currency,
           coalesce(max(CASE WHEN kind = 'batch' THEN reference END), batch) AS reference,
           CASE WHEN count(*) FILTER (WHERE kind = 'batch') > 0
                THEN sum(CASE WHEN kind = 'batch' THEN -net_minor ELSE 0 END) ELSE sum(net_minor) END AS settled_minor,
           max(CASE WHEN kind = 'batch' THEN coalesce(settled_us, booked_us) END) AS settled_us,
           max(coalesce(settled_us, booked_us)) AS last_us
    FROM provider_lines WHERE batch IS NOT NULL GROUP BY provider, batch, currency
), entries AS (
    SELECT reference, min(currency) AS currency, max(currency) AS high_currency, sum(amount_minor) AS amount_minor,
           count(*) AS lines, min(account) AS account, min(statement) AS statement, min(booked_us) AS booked_us
    FROM bank_lines GROUP BY reference
), covered AS (
    SELECT min(booked_us) AS begin_us, max(booked_us) AS end_us FROM bank_lines
), compared AS (
    SELECT b.provider, b.batch, b.reference, b.currency, b.settled_minor, coalesce(b.settled_us, b.last_us) AS at_us,
           e.currency AS bank_currency, e.high_currency, e.amount_minor AS bank_minor, e.lines, e.statement, e.booked_us
    FROM batches b LEFT JOIN entries e ON e.reference = b.reference
), judged AS (
    SELECT compared.*,
           CASE WHEN lines IS NULL AND settled_minor = 0 THEN 'matched'
                WHEN lines IS NULL AND at_us > as_of_us - in_flight_us THEN 'in_flight'
                WHEN lines IS NULL AND at_us < coalesce(begin_us, at_us) - date_window_us THEN 'not_covered'
                WHEN lines IS NULL THEN 'batch_not_at_bank'
                WHEN bank_currency <> currency OR high_currency <> currency THEN 'bank_currency_differs'
                WHEN bank_minor = settled_minor THEN 'matched'
                WHEN abs(bank_minor - settled_minor) <= amount_tolerance_minor THEN 'matched'
                WHEN lines > 1 AND bank_minor = lines * settled_minor THEN 'bank_paid_twice'
                ELSE 'bank_amount_differs' END AS verdict
    FROM compared CROSS JOIN settings CROSS JOIN covered
)
SELECT verdict AS reason, NULL AS account, NULL AS transfer, coalesce(bank_currency, currency) AS currency,
       CASE verdict WHEN 'bank_currency_differs' THEN bank_minor ELSE coalesce(bank_minor, 0) - settled_minor END
           AS amount_minor,
       'batch ' || batch || ' of ' || provider || ': ' || settled_minor || ' settled, '
       || coalesce(bank_minor || ' in ' || lines || ' line(s) of statement ' || statement, 'nothing on a statement')
           AS detail,
       reference, at_us
FROM judged WHERE verdict NOT IN ('matched', 'in_flight', 'not_covered')
UNION ALL
SELECT 'bank_line_unknown', NULL, NULL, e.currency, e.amount_minor,
       e.lines || ' line(s) of statement ' || e.statement || ' that no file of a provider explains', e.reference, e.booked_us
FROM entries e CROSS JOIN settings ANTI JOIN batches b ON b.reference = e.reference
ANTI JOIN (SELECT l.reference FROM provider_lines l SEMI JOIN entries e2 ON e2.reference = l.reference) AS l
  ON l.reference = e.reference
WHERE e.booked_us <= as_of_us - in_flight_us
