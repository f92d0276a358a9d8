-- Money is neither made nor lost: the postings of a transfer sum to zero in each currency.
-- reads: postings
SELECT 'transfer_out_of_balance' AS reason, NULL AS account, transfer_id AS transfer, currency,
       sum(amount_minor) AS amount_minor, count(*) || ' posting(s) do not sum to zero' AS detail
FROM postings GROUP BY transfer_id, currency HAVING sum(amount_minor) <> 0
