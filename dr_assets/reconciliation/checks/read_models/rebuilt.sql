-- A read model shows what the ledger's postings give, up to the posting that the model itself says it has seen.
-- Built again from the postings' amounts and compared row by row, whatever the model calls itself.
-- reads: read_models, postings, accounts
WITH shown AS (
    SELECT model, account_id, balance_minor, sequence, projected_us FROM read_models WHERE balance_minor IS NOT NULL
), rebuilt AS (
    SELECT m.model, m.account_id, m.sequence, sum(p.amount_minor) AS rebuilt_minor
    FROM (SELECT DISTINCT model, account_id, sequence FROM shown) m
    JOIN postings p ON p.account_id = m.account_id AND p.sequence <= m.sequence
    GROUP BY m.model, m.account_id, m.sequence
), newest AS (
    SELECT account_id, max(sequence) AS sequence FROM postings GROUP BY account_id
)
SELECT CASE WHEN m.sequence > coalesce(n.sequence, 0) THEN 'position_beyond_ledger' ELSE 'value_differs' END AS reason,
       m.account_id AS account, NULL AS transfer, a.currency,
       CAST(m.balance_minor AS DECIMAL(38, 0)) - coalesce(r.rebuilt_minor, 0) AS amount_minor,
       m.model || ' shows ' || CAST(m.balance_minor AS VARCHAR) || ' at posting ' || CAST(m.sequence AS VARCHAR)
       || ', the ledger gives ' || CAST(coalesce(r.rebuilt_minor, 0) AS VARCHAR) || ' and ends at posting '
       || CAST(coalesce(n.sequence, 0) AS VARCHAR) AS detail,
       m.model AS reference, m.projected_us AS at_us
FROM shown m JOIN accounts a ON a.account_id = m.account_id
LEFT JOIN rebuilt r ON r.model = m.model AND r.account_id = m.account_id AND r.sequence = m.sequence
LEFT JOIN newest n ON n.account_id = m.account_id
WHERE m.sequence > coalesce(n.sequence, 0) OR m.balance_minor <> coalesce(r.rebuilt_minor, 0)
UNION ALL
SELECT 'extra_row', m.account_id, NULL, NULL, m.balance_minor, m.model || ' shows an account that the ledger lacks',
       m.model, m.projected_us
FROM shown m ANTI JOIN accounts a ON a.account_id = m.account_id
UNION ALL
SELECT 'row_repeated', account_id, NULL, NULL, NULL, CAST(count(*) AS VARCHAR) || ' rows in ' || model, model,
       max(projected_us)
FROM shown GROUP BY model, account_id HAVING count(*) > 1
