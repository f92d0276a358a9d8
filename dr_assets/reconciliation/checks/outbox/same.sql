-- A record says what its outbox row says, under the same message key, in the topic that the row names. What an erasure
-- has blanked says nothing and is not compared.
-- reads: outbox, records
WITH own AS (
    SELECT DISTINCT topic FROM outbox
), told AS (
    SELECT r.topic, r.partition, r.record_offset, r.idempotency_key, r.message_key, r.payload_sha256, r.timestamp_us
    FROM records r JOIN own ON own.topic = r.topic WHERE r.idempotency_key IS NOT NULL AND NOT r.dead_letter
)
SELECT 'payload_differs' AS reason, NULL AS account, o.transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       t.topic || '/' || CAST(t.partition AS VARCHAR) || ' offset ' || CAST(t.record_offset AS VARCHAR) AS detail,
       t.idempotency_key AS reference, t.timestamp_us AS at_us
FROM told t JOIN outbox o ON o.topic = t.topic AND o.idempotency_key = t.idempotency_key
WHERE t.payload_sha256 IS NOT NULL AND t.payload_sha256 <> sha256(o.payload)
UNION ALL
SELECT 'payload_missing', NULL, o.transfer_id, NULL, NULL,
       t.topic || '/' || CAST(t.partition AS VARCHAR) || ' offset ' || CAST(t.record_offset AS VARCHAR),
       t.idempotency_key, t.timestamp_us
FROM told t JOIN outbox o ON o.topic = t.topic AND o.idempotency_key = t.idempotency_key
WHERE t.payload_sha256 IS NULL
UNION ALL
SELECT 'message_key_differs', NULL, o.transfer_id, NULL, NULL,
       'the record has ' || coalesce(t.message_key, 'none') || ', the outbox ' || coalesce(o.message_key, 'none'),
       t.idempotency_key, t.timestamp_us
FROM told t JOIN outbox o ON o.topic = t.topic AND o.idempotency_key = t.idempotency_key
WHERE coalesce(t.message_key, '') <> coalesce(o.message_key, '')
UNION ALL
SELECT 'topic_differs', NULL, o.transfer_id, NULL, NULL,
       'the record is in ' || t.topic || ', the outbox says ' || o.topic, t.idempotency_key, t.timestamp_us
FROM told t JOIN outbox o ON o.idempotency_key = t.idempotency_key AND o.topic <> t.topic
ANTI JOIN outbox same ON same.topic = t.topic AND same.idempotency_key = t.idempotency_key
