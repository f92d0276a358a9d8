-- One key, one transfer: a repeated key is a payment made twice. One break per further transfer.
-- reads: transfers
WITH repeated AS (
    SELECT idempotency_key FROM transfers GROUP BY idempotency_key HAVING count(*) > 1
), ordered AS (
    SELECT transfer_id, idempotency_key, first_value(transfer_id) OVER (
        PARTITION BY idempotency_key ORDER BY transfer_id) AS first_id
    FROM transfers SEMI JOIN repeated USING (idempotency_key)
)
SELECT 'idempotency_key_repeated' AS reason, NULL AS account, transfer_id AS transfer, NULL AS currency,
       NULL AS amount_minor, 'key ' || idempotency_key || ' was first used by transfer ' || first_id AS detail
FROM ordered WHERE transfer_id <> first_id
