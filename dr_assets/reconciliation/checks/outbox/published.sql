-- Every event of the outbox lies in its topic: what was not published must be replayed; what is marked as published and
-- is not there was lost. What retention has taken is not missed, nor what an erasure has blanked: where records of the
-- same message key lie tells which partition's retention that is, else it may be any one's of the topic.
-- reads: outbox, records, partitions
WITH complete AS (
    SELECT topic, max(complete_from_us) AS from_us FROM partitions GROUP BY topic
), places AS (
    SELECT r.topic, r.message_key, max(p.complete_from_us) AS from_us
    FROM records r JOIN partitions p ON p.topic = r.topic AND p.partition = r.partition
    WHERE r.message_key IS NOT NULL GROUP BY r.topic, r.message_key
), keys AS (
    SELECT DISTINCT topic, idempotency_key FROM records WHERE idempotency_key IS NOT NULL AND NOT dead_letter
), blanked AS (
    SELECT DISTINCT topic, message_key FROM records
    WHERE idempotency_key IS NULL AND payload_sha256 IS NULL AND message_key IS NOT NULL
), absent AS (
    SELECT o.transfer_id, o.topic, o.idempotency_key, o.position, o.created_us, o.published,
           coalesce(l.from_us, c.from_us) AS from_us
    FROM outbox o LEFT JOIN complete c ON c.topic = o.topic
    LEFT JOIN places l ON l.topic = o.topic AND l.message_key = o.message_key
    LEFT JOIN keys k ON k.topic = o.topic AND k.idempotency_key = o.idempotency_key
    LEFT JOIN blanked b ON b.topic = o.topic AND b.message_key = o.message_key
    WHERE k.idempotency_key IS NULL AND (b.message_key IS NULL OR NOT o.published)
)
SELECT CASE WHEN a.from_us IS NULL THEN 'topic_missing' WHEN a.published THEN 'record_missing'
            ELSE 'not_published' END AS reason,
       NULL AS account, a.transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       'topic ' || a.topic || ', position ' || CAST(a.position AS VARCHAR) AS detail,
       a.idempotency_key AS reference, a.created_us AS at_us
FROM absent a CROSS JOIN settings s
WHERE a.created_us < s.as_of_us - s.projection_lag_us AND (NOT a.published OR a.created_us >= coalesce(a.from_us, 0))
