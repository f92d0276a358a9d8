-- How many rows of read models show what the ledger gives at their own position.
-- reads: read_models, postings, accounts
WITH rebuilt AS (
    SELECT m.model, m.account_id, m.sequence, sum(p.amount_minor) AS rebuilt_minor
    FROM (SELECT DISTINCT model, account_id, sequence FROM read_models WHERE balance_minor IS NOT NULL) m
    JOIN postings p ON p.account_id = m.account_id AND p.sequence <= m.sequence
    GROUP BY m.model, m.account_id, m.sequence
)
SELECT 'matched' AS outcome, a.currency, count(*) AS count, sum(CAST(m.balance_minor AS DECIMAL(38, 0))) AS amount_minor
FROM read_models m JOIN accounts a ON a.account_id = m.account_id
LEFT JOIN rebuilt r ON r.model = m.model AND r.account_id = m.account_id AND r.sequence = m.sequence
WHERE m.balance_minor = coalesce(r.rebuilt_minor, 0) GROUP BY a.currency
