-- A stored balance is the sum of the account's postings; every account has one balance, and no balance is without account.
-- reads: balances, postings, accounts
WITH sums AS (
    SELECT account_id, sum(amount_minor) AS sum_minor FROM postings GROUP BY account_id
)
SELECT 'balance_differs_from_postings' AS reason, b.account_id AS account, NULL AS transfer, a.currency,
       b.balance_minor - coalesce(s.sum_minor, 0) AS amount_minor,
       'balance ' || b.balance_minor || ', postings sum to ' || coalesce(s.sum_minor, 0) AS detail
FROM balances b LEFT JOIN sums s USING (account_id) LEFT JOIN accounts a USING (account_id)
WHERE b.balance_minor <> coalesce(s.sum_minor, 0)
UNION ALL
SELECT 'account_without_balance', account_id, NULL, currency, NULL, NULL FROM accounts ANTI JOIN balances USING (account_id)
UNION ALL
SELECT 'balance_without_account', account_id, NULL, NULL, balance_minor, NULL
FROM balances ANTI JOIN accounts USING (account_id)
UNION ALL
SELECT 'balance_repeated', account_id, NULL, NULL, NULL, count(*) || ' rows'
FROM balances GROUP BY account_id HAVING count(*) > 1
