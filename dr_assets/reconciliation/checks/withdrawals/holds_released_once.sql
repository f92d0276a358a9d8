-- The money of a withdrawal is reserved while it is open, once and whole, and no longer once it is paid or refused. The
-- amount is what is held less what ought to be. A withdrawal's hold bears the withdrawal's id.
-- reads: withdrawals, holds
WITH held AS (
    SELECT CAST(hold_id AS VARCHAR) AS withdrawal, count(*) AS holds, sum(amount_minor) AS held_minor,
           min(currency) AS currency, max(currency) AS high_currency
    FROM holds GROUP BY hold_id
), due AS (
    SELECT w.account_id, w.withdrawal_id, w.currency, w.state, w.state_us, w.payout_reference,
           CASE WHEN w.state IN ('requested', 'approved') THEN w.amount_minor ELSE 0 END AS due_minor,
           coalesce(h.holds, 0) AS holds, coalesce(h.held_minor, 0) AS held_minor, h.currency AS held_currency,
           h.high_currency
    FROM withdrawals w LEFT JOIN held h ON h.withdrawal = CAST(w.withdrawal_id AS VARCHAR)
)
SELECT CASE WHEN due_minor = 0 THEN 'hold_not_released'
            WHEN holds = 0 THEN 'hold_missing'
            WHEN holds > 1 THEN 'held_twice'
            WHEN held_currency <> currency THEN 'hold_in_other_currency'
            ELSE 'hold_differs' END AS reason,
       account_id AS account, NULL AS transfer, coalesce(held_currency, currency) AS currency,
       held_minor - due_minor AS amount_minor,
       'withdrawal ' || withdrawal_id || ' is ' || state || ', ' || holds || ' hold(s) of ' || held_minor || ' instead of '
       || due_minor AS detail,
       payout_reference AS reference, state_us AS at_us
FROM due
WHERE held_minor <> due_minor OR holds <> CASE WHEN due_minor = 0 THEN 0 ELSE 1 END
   OR coalesce(held_currency <> currency OR high_currency <> currency, FALSE)
