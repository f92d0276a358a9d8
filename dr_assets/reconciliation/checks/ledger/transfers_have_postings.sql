-- A transfer moves something.
-- reads: transfers, postings
SELECT 'transfer_without_postings' AS reason, NULL AS account, transfer_id AS transfer, NULL AS currency,
       NULL AS amount_minor, 'idempotency key ' || idempotency_key AS detail
FROM transfers ANTI JOIN postings USING (transfer_id)
