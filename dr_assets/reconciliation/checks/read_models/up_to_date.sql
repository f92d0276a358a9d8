-- A read model is no further behind the ledger than agreed, and has a row for each account that it ought to show once
-- the account has a posting of that age. The age is that of the oldest event which the model has not seen; where its row
-- was cleared away it is at least that of the oldest row.
-- reads: read_models, postings, outbox, accounts
-- severity: behind=amber
WITH oldest AS (
    SELECT min(created_us) AS created_us FROM outbox
), behind AS (
    SELECT m.model, m.account_id, m.balance_minor, m.sequence, min(coalesce(o.created_us, oldest.created_us)) AS since_us,
           count(*) AS postings
    FROM read_models m JOIN postings p ON p.account_id = m.account_id AND p.sequence > m.sequence
    LEFT JOIN outbox o ON o.transfer_id = p.transfer_id CROSS JOIN oldest
    GROUP BY m.model, m.account_id, m.balance_minor, m.sequence
)
SELECT CASE WHEN b.balance_minor IS NULL THEN 'missing_row' ELSE 'behind' END AS reason, b.account_id AS account,
       NULL AS transfer, a.currency, NULL AS amount_minor,
       b.model || ' lacks ' || CAST(b.postings AS VARCHAR) || ' posting(s) behind posting '
       || CAST(b.sequence AS VARCHAR) AS detail,
       b.model AS reference, b.since_us AS at_us
FROM behind b LEFT JOIN accounts a ON a.account_id = b.account_id CROSS JOIN settings s
WHERE b.since_us < s.as_of_us - s.projection_lag_us
