-- The account's hash is its newest posting's: else the end of the chain was rewritten.
-- reads: balances, postings
-- needs: chain
WITH newest AS (
    SELECT account_id, max(sequence) AS sequence, arg_max(hash, sequence) AS hash FROM postings GROUP BY account_id
)
SELECT 'newest_hash_differs' AS reason, b.account_id AS account, NULL AS transfer, a.currency, NULL AS amount_minor,
       'posting ' || coalesce(n.sequence, 0) AS detail
FROM balances b LEFT JOIN newest n USING (account_id) LEFT JOIN accounts a USING (account_id)
WHERE coalesce(n.sequence, 0) = b.last_sequence AND b.last_hash IS DISTINCT FROM coalesce(n.hash, ''::BLOB)
