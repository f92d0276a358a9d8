-- A payment goes in or out, is in a state that there is and of an amount above zero: of any other nobody could tell what
-- the provider ought to know.
-- reads: payments
WITH judged AS (
    SELECT payments.*,
           CASE WHEN state NOT IN ('pending', 'posted', 'reversed') THEN 'state_unknown'
                WHEN direction NOT IN ('in', 'out') THEN 'direction_unknown'
                WHEN amount_minor <= 0 THEN 'amount_not_positive' END AS verdict
    FROM payments
)
SELECT verdict AS reason, account_id AS account, transfer_id AS transfer, currency, amount_minor,
       'payment ' || payment_id || ' is ' || direction || ' and ' || state AS detail, reference, created_us AS at_us
FROM judged WHERE verdict IS NOT NULL
