-- Money is neither made nor lost: the postings of a transfer sum to zero in each currency. A sum has no one account
-- unless a single posting is left, so the break names the lowest and the highest of them in its detail.
-- reads: postings
WITH broken AS (
    SELECT transfer_id, currency, sum(amount_minor) AS sum_minor
    FROM postings GROUP BY transfer_id, currency HAVING sum(amount_minor) <> 0
), legs AS (
    SELECT p.transfer_id, p.currency, any_value(b.sum_minor) AS sum_minor, count(*) AS postings,
           min(p.account_id) AS lowest, max(p.account_id) AS highest
    FROM postings p JOIN broken b USING (transfer_id, currency) GROUP BY p.transfer_id, p.currency
)
SELECT 'transfer_out_of_balance' AS reason, CASE WHEN postings = 1 THEN lowest END AS account,
       transfer_id AS transfer, currency, sum_minor AS amount_minor,
       postings || ' posting(s), on accounts from ' || lowest || ' to ' || highest AS detail
FROM legs
