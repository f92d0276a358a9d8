-- A record says what its outbox row says, under the same message key, in the topic that the row names. What an erasure
-- has blanked says nothing and is not compared.
-- reads: outbox, records
WITH own AS (
    SELECT DISTINCT topic FROM outbox
), told AS (
    SELECT r.topic, r.partition, r.record_offset, r.idempotency_key, r.message_key, r.payload_sha256, r.timestamp_us
    FROM records r JOIN own ON own.topic = r.topic WHERE r.idempotency_key IS NOT NULL AND NOT r.dead_letter
), unlike AS (
    SELECT t.topic, t.partition, t.record_offset, t.idempotency_key, t.timestamp_us, o.transfer_id, t.payload_sha256,
           sha256(o.payload) AS wanted_sha256, coalesce(t.message_key, '') AS message_key,
           coalesce(o.message_key, '') AS wanted_key
    FROM told t JOIN outbox o ON o.topic = t.topic AND o.idempotency_key = t.idempotency_key
    WHERE t.payload_sha256 IS NULL OR t.payload_sha256 <> sha256(o.payload)
       OR coalesce(t.message_key, '') <> coalesce(o.message_key, '')
)
SELECT CASE WHEN payload_sha256 IS NULL THEN 'payload_missing' ELSE 'payload_differs' END AS reason, NULL AS account,
       transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       topic || '/' || CAST(partition AS VARCHAR) || ' offset ' || CAST(record_offset AS VARCHAR) AS detail,
       idempotency_key AS reference, timestamp_us AS at_us
FROM unlike WHERE payload_sha256 IS NULL OR payload_sha256 <> wanted_sha256
UNION ALL
SELECT 'message_key_differs', NULL, transfer_id, NULL, NULL,
       'the record has ' || CASE WHEN message_key = '' THEN 'no key' ELSE message_key END || ', the outbox '
       || CASE WHEN wanted_key = '' THEN 'no key' ELSE wanted_key END,
       idempotency_key, timestamp_us
FROM unlike WHERE message_key <> wanted_key
UNION ALL
SELECT 'topic_differs', NULL, o.transfer_id, NULL, NULL,
       'the record is in ' || t.topic || ', the outbox says ' || o.topic, t.idempotency_key, t.timestamp_us
FROM told t JOIN outbox o ON o.idempotency_key = t.idempotency_key AND o.topic <> t.topic
ANTI JOIN outbox same ON same.topic = t.topic AND same.idempotency_key = t.idempotency_key
