-- A read model is no further behind the ledger than agreed, and has a row for each account that it ought to show once
-- the account has a posting of that age. The age is that of the oldest event which the model has not seen.
-- reads: read_models, postings, outbox, accounts
-- severity: behind=amber
WITH behind AS (
    SELECT m.model, m.account_id, m.balance_minor, m.sequence, min(o.created_us) AS since_us, count(*) AS postings
    FROM read_models m JOIN postings p ON p.account_id = m.account_id AND p.sequence > m.sequence
    JOIN outbox o ON o.transfer_id = p.transfer_id
    GROUP BY m.model, m.account_id, m.balance_minor, m.sequence
)
SELECT CASE WHEN b.balance_minor IS NULL THEN 'missing_row' ELSE 'behind' END AS reason, b.account_id AS account,
       NULL AS transfer, a.currency, NULL AS amount_minor,
       b.model || ' lacks ' || CAST(b.postings AS VARCHAR) || ' posting(s) behind posting '
       || CAST(b.sequence AS VARCHAR) AS detail,
       b.model AS reference, b.since_us AS at_us
FROM behind b LEFT JOIN accounts a ON a.account_id = b.account_id CROSS JOIN settings s
WHERE b.since_us < s.as_of_us - s.projection_lag_us
