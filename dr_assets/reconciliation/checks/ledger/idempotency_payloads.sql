-- What a key was first used for is all that it is ever used for: one key with two payloads is two payments in one.
-- reads: transfers
-- needs: payload_hash
SELECT 'idempotency_payload_differs' AS reason, NULL AS account, max(transfer_id) AS transfer, NULL AS currency,
       NULL AS amount_minor, 'key ' || idempotency_key || ' stands for different payloads' AS detail
FROM transfers GROUP BY idempotency_key HAVING min(payload_hash) <> max(payload_hash)
