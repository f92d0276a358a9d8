-- Nothing the other checks compare is NULL (a NULL would slip through their comparisons).
-- reads: accounts, transfers, postings, balances, holds
SELECT 'value_missing' AS reason, account_id AS account, NULL AS transfer, currency, NULL AS amount_minor,
       'in accounts' AS detail
FROM accounts
WHERE account_id IS NULL OR currency IS NULL OR may_go_negative IS NULL OR holds_money IS NULL
UNION ALL
SELECT 'value_missing', NULL, transfer_id, NULL, NULL, 'in transfers'
FROM transfers WHERE transfer_id IS NULL OR idempotency_key IS NULL
UNION ALL
SELECT 'value_missing', account_id, transfer_id, currency, amount_minor, 'in postings'
FROM postings
WHERE account_id IS NULL OR sequence IS NULL OR transfer_id IS NULL OR currency IS NULL OR amount_minor IS NULL
   OR balance_after_minor IS NULL
UNION ALL
SELECT 'value_missing', account_id, NULL, NULL, balance_minor, 'in balances'
FROM balances WHERE account_id IS NULL OR balance_minor IS NULL OR last_sequence IS NULL
UNION ALL
SELECT 'value_missing', account_id, NULL, currency, amount_minor, 'in holds'
FROM holds WHERE hold_id IS NULL OR account_id IS NULL OR currency IS NULL OR amount_minor IS NULL
