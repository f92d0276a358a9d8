-- A transfer and an account are there once.
-- reads: transfers, accounts
SELECT 'transfer_repeated' AS reason, NULL AS account, transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       count(*) || ' rows' AS detail
FROM transfers GROUP BY transfer_id HAVING count(*) > 1
UNION ALL
SELECT 'account_repeated', account_id, NULL, NULL, NULL, count(*) || ' rows'
FROM accounts GROUP BY account_id HAVING count(*) > 1
