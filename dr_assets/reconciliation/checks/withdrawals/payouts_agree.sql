-- What was paid out is what the ledger says of the withdrawal: paid once, this amount, this currency, after its approval
-- and never after a refusal. The amount is the provider's less the ledger's, money out being negative.
-- reads: withdrawals, provider_lines
-- uses: payments
-- severity: payout_overdue=amber
WITH payouts AS (
    SELECT CASE kind WHEN 'payout' THEN reference ELSE original_reference END AS reference, kind, file, line, currency,
           gross_minor, booked_us
    FROM provider_lines
    WHERE kind = 'payout' OR (kind = 'reversal' AND original_reference IN (
        SELECT reference FROM provider_lines WHERE kind = 'payout'
        UNION SELECT payout_reference FROM withdrawals WHERE payout_reference IS NOT NULL))
), paid AS (
    SELECT reference, count(*) FILTER (WHERE kind = 'payout') AS payouts,
           count(*) FILTER (WHERE kind = 'reversal') AS returns, sum(gross_minor) AS paid_minor,
           sum(CASE WHEN kind = 'payout' THEN gross_minor ELSE 0 END) AS payout_minor,
           min(currency) AS currency, max(currency) AS high_currency, min(booked_us) AS first_us,
           max(booked_us) AS last_us, min(file) AS file, min(line) AS line
    FROM payouts GROUP BY reference
), claimed AS (
    SELECT payout_reference AS reference, min(CAST(withdrawal_id AS VARCHAR)) AS withdrawal,
           min(CAST(account_id AS VARCHAR)) AS account, count(*) AS withdrawals, min(state) AS state,
           max(currency) AS currency, max(state_us) AS state_us,
           sum(CASE WHEN state = 'paid' THEN -amount_minor ELSE 0 END) AS ledger_minor, sum(-amount_minor) AS asked_minor
    FROM withdrawals WHERE payout_reference IS NOT NULL GROUP BY payout_reference
), covered AS (
    SELECT min(booked_us) AS begin_us FROM provider_lines
), compared AS (
    SELECT coalesce(c.reference, p.reference) AS reference, c.withdrawal, c.account, c.state, c.state_us, c.withdrawals,
           coalesce(c.ledger_minor, 0) AS ledger_minor, c.asked_minor, c.currency,
           coalesce(p.payouts, 0) AS payouts, coalesce(p.returns, 0) AS returns, coalesce(p.paid_minor, 0) AS paid_minor,
           p.payout_minor, p.currency AS paid_currency, p.high_currency, p.first_us, p.last_us, p.file, p.line
    FROM claimed c FULL OUTER JOIN paid p ON p.reference = c.reference
), judged AS (
    SELECT compared.*,
           CASE WHEN withdrawals > 1 THEN 'matched' -- states_legal says so
                WHEN payouts > 0 AND withdrawals = 1 AND (paid_currency <> currency OR high_currency <> currency)
                    THEN 'paid_other_currency'
                WHEN withdrawals IS NULL AND paid_minor = 0 AND paid_currency = high_currency THEN 'matched'
                WHEN withdrawals IS NULL AND first_us > as_of_us - in_flight_us THEN 'in_flight'
                WHEN withdrawals IS NULL THEN 'payout_unknown'
                WHEN payouts + returns = 0 AND state = 'paid' AND state_us > as_of_us - in_flight_us THEN 'in_flight'
                WHEN payouts + returns = 0 AND state = 'paid' AND state_us < coalesce(begin_us, state_us) - date_window_us
                    THEN 'not_covered'
                WHEN payouts + returns = 0 AND state = 'paid' THEN 'posted_not_paid'
                WHEN payouts + returns = 0 AND state = 'approved' AND state_us < as_of_us - payout_within_us
                    THEN 'payout_overdue'
                WHEN payouts + returns = 0 THEN 'matched'
                WHEN paid_minor = ledger_minor THEN 'matched'
                WHEN payouts > 1 AND payout_minor = payouts * asked_minor AND returns < payouts - 1 THEN 'paid_twice'
                WHEN abs(paid_minor - ledger_minor) <= amount_tolerance_minor THEN 'matched'
                WHEN state IN ('rejected', 'cancelled') THEN 'paid_after_refusal'
                WHEN state = 'requested' THEN 'paid_before_approval'
                WHEN last_us > as_of_us - in_flight_us AND state = 'approved' AND paid_minor = asked_minor THEN 'in_flight'
                WHEN state = 'approved' AND paid_minor = asked_minor THEN 'paid_not_posted'
                WHEN returns > 0 AND last_us > as_of_us - in_flight_us THEN 'in_flight'
                WHEN returns > 0 AND state = 'paid' THEN 'return_not_posted'
                ELSE 'paid_other_amount' END AS verdict
    FROM compared CROSS JOIN settings CROSS JOIN covered
)
SELECT verdict AS reason, account, NULL AS transfer, coalesce(paid_currency, currency) AS currency,
       CASE WHEN verdict = 'paid_other_currency' THEN paid_minor
            WHEN verdict = 'payout_overdue' THEN 0
            WHEN verdict IN ('paid_twice', 'paid_other_amount') THEN paid_minor - asked_minor
            ELSE paid_minor - ledger_minor END AS amount_minor,
       coalesce('withdrawal ' || withdrawal || ' is ' || state || ' with ' || asked_minor, 'no withdrawal') || ', '
       || payouts || ' payout(s) and ' || returns || ' return(s) of ' || paid_minor
       || coalesce(', first at line ' || line || ' of ' || file, '') AS detail,
       reference, coalesce(first_us, state_us) AS at_us
FROM judged ANTI JOIN (SELECT reference FROM payments SEMI JOIN paid USING (reference)) AS elsewhere
  ON elsewhere.reference = judged.reference AND judged.withdrawals IS NULL
WHERE verdict NOT IN ('matched', 'in_flight', 'not_covered')
