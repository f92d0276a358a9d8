-- Money is neither made nor lost: the postings of a transfer sum to zero in each currency. A sum has no one account
-- unless a single posting is left, so the break names the first accounts in its detail.
-- reads: postings
WITH broken AS (
    SELECT transfer_id, currency, sum(amount_minor) AS sum_minor
    FROM postings GROUP BY transfer_id, currency HAVING sum(amount_minor) <> 0
), legs AS (
    SELECT transfer_id, currency, any_value(sum_minor) AS sum_minor, list(account_id ORDER BY account_id) AS accounts
    FROM postings JOIN broken USING (transfer_id, currency) GROUP BY transfer_id, currency
)
SELECT 'transfer_out_of_balance' AS reason, CASE WHEN len(accounts) = 1 THEN accounts[1] END AS account,
       transfer_id AS transfer, currency, sum_minor AS amount_minor,
       len(accounts) || ' posting(s), on account(s) ' || array_to_string(accounts[1:4], ', ') AS detail
FROM legs
