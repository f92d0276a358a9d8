SELECT posting_id AS payment_id, reference, CASE WHEN amount_minor > 0 THEN 'in' ELSE 'out' END AS direction, currency,
       abs(amount_minor) AS amount_minor, created_us, transfer_id, account_id, 'posted' AS state
FROM bench.postings
