-- Every event of the outbox lies in its topic: what was not published must be replayed; what is marked as published and
-- is not there was lost. What retention has taken is not missed, nor what an erasure has blanked.
-- reads: outbox, records, partitions
WITH blanked AS (
    SELECT DISTINCT topic, message_key FROM records
    WHERE idempotency_key IS NULL AND payload_sha256 IS NULL AND message_key IS NOT NULL
)
SELECT CASE WHEN a.from_us IS NULL THEN 'topic_missing' WHEN a.published THEN 'record_missing'
            ELSE 'not_published' END AS reason,
       NULL AS account, a.transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       'topic ' || a.topic || ', position ' || CAST(a.position AS VARCHAR) AS detail,
       a.idempotency_key AS reference, a.created_us AS at_us
FROM kept a CROSS JOIN settings s
LEFT JOIN blanked b ON b.topic = a.topic AND b.message_key = a.message_key
WHERE (b.message_key IS NULL OR NOT a.published)
  AND a.created_us < s.as_of_us - s.projection_lag_us AND (NOT a.published OR a.created_us >= coalesce(a.from_us, 0))
