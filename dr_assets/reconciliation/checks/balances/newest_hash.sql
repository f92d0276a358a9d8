-- The account's hash is its newest posting's: else the end of the chain was rewritten.
-- reads: balances, postings, accounts
-- needs: chain
WITH numbers AS (
    SELECT account_id, max(sequence) AS sequence FROM postings GROUP BY account_id
), newest AS (
    SELECT p.account_id, p.sequence, p.hash
    FROM postings p SEMI JOIN numbers n ON p.account_id = n.account_id AND p.sequence = n.sequence
)
SELECT 'newest_hash_differs' AS reason, b.account_id AS account, NULL AS transfer, a.currency, NULL AS amount_minor,
       'posting ' || coalesce(n.sequence, 0) AS detail
FROM balances b LEFT JOIN newest n USING (account_id) LEFT JOIN accounts a USING (account_id)
WHERE coalesce(n.sequence, 0) = b.last_sequence AND b.last_hash IS DISTINCT FROM coalesce(n.hash, ''::BLOB)
