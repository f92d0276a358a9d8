-- A withdrawal is in a state that there is, with what belongs to the state: a payout reference of its own once it is
-- approved, none before; an amount above zero; not changed before it was asked for; and it is there once.
-- reads: withdrawals
WITH sharing AS (
    SELECT withdrawals.*, first_value(withdrawal_id) OVER (
        PARTITION BY payout_reference ORDER BY requested_us, withdrawal_id) AS first_id,
        row_number() OVER (PARTITION BY withdrawal_id ORDER BY requested_us, state_us, state) AS times
    FROM withdrawals
), judged AS (
    SELECT sharing.*,
           CASE WHEN times > 1 THEN 'withdrawal_repeated'
                WHEN state NOT IN ('requested', 'approved', 'paid', 'rejected', 'cancelled') THEN 'state_unknown'
                WHEN state IN ('approved', 'paid') AND payout_reference IS NULL THEN 'payout_reference_missing'
                WHEN state = 'requested' AND payout_reference IS NOT NULL THEN 'payout_reference_too_early'
                WHEN payout_reference IS NOT NULL AND first_id <> withdrawal_id THEN 'payout_reference_repeated'
                WHEN amount_minor <= 0 THEN 'amount_not_positive'
                WHEN state_us < requested_us THEN 'state_before_request' END AS verdict
    FROM sharing
)
SELECT verdict AS reason, account_id AS account, NULL AS transfer, currency, amount_minor,
       'withdrawal ' || withdrawal_id || ' is ' || state || CASE WHEN first_id <> withdrawal_id AND payout_reference IS NOT NULL THEN ', as withdrawal ' || first_id ELSE '' END AS detail,
       payout_reference AS reference, state_us AS at_us
FROM judged WHERE verdict IS NOT NULL
