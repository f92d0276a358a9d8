-- Every record of the ledger's topics is of a transfer, and every transfer has its event: in the outbox, or in a topic.
-- What was published after the moment that is judged is not of it.
-- reads: records, outbox, transfers
WITH topics AS (
    SELECT DISTINCT topic FROM outbox
), own AS (
    SELECT r.topic, r.partition, r.record_offset, r.idempotency_key, r.payload_sha256, r.timestamp_us
    FROM records r JOIN topics t ON t.topic = r.topic CROSS JOIN settings s
    WHERE NOT r.dead_letter AND r.timestamp_us <= s.as_of_us
)
SELECT 'record_without_entry' AS reason, NULL AS account, NULL AS transfer, NULL AS currency, NULL AS amount_minor,
       topic || '/' || CAST(partition AS VARCHAR) || ' offset ' || CAST(record_offset AS VARCHAR) AS detail,
       idempotency_key AS reference, timestamp_us AS at_us
FROM own ANTI JOIN transfers t ON t.idempotency_key = own.idempotency_key
WHERE idempotency_key IS NOT NULL
UNION ALL
SELECT 'record_without_key', NULL, NULL, NULL, NULL,
       topic || '/' || CAST(partition AS VARCHAR) || ' offset ' || CAST(record_offset AS VARCHAR), NULL, timestamp_us
FROM own WHERE idempotency_key IS NULL AND payload_sha256 IS NOT NULL
UNION ALL
SELECT 'entry_without_event', NULL, t.transfer_id, NULL, NULL, 'neither an outbox row nor a record', t.idempotency_key,
       NULL
FROM transfers t ANTI JOIN outbox o ON o.transfer_id = t.transfer_id
ANTI JOIN records r ON r.idempotency_key = t.idempotency_key
