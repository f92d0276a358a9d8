-- How many events of the outbox are where they belong, on their way, or older than what the topics still keep.
-- reads: outbox, records, partitions
WITH complete AS (
    SELECT topic, max(complete_from_us) AS from_us FROM partitions GROUP BY topic
), places AS (
    SELECT r.topic, r.message_key, max(p.complete_from_us) AS from_us
    FROM records r JOIN partitions p ON p.topic = r.topic AND p.partition = r.partition
    WHERE r.message_key IS NOT NULL GROUP BY r.topic, r.message_key
), keys AS (
    SELECT DISTINCT topic, idempotency_key FROM records WHERE idempotency_key IS NOT NULL AND NOT dead_letter
), judged AS (
    SELECT CASE WHEN k.idempotency_key IS NOT NULL THEN 'matched'
                WHEN o.created_us >= s.as_of_us - s.projection_lag_us THEN 'in_flight'
                WHEN o.published AND o.created_us < coalesce(l.from_us, c.from_us, 0) THEN 'tolerated' END AS outcome
    FROM outbox o CROSS JOIN settings s LEFT JOIN complete c ON c.topic = o.topic
    LEFT JOIN places l ON l.topic = o.topic AND l.message_key = o.message_key
    LEFT JOIN keys k ON k.topic = o.topic AND k.idempotency_key = o.idempotency_key
)
SELECT outcome, CAST(NULL AS VARCHAR) AS currency, count(*) AS count, CAST(NULL AS BIGINT) AS amount_minor
FROM judged WHERE outcome IS NOT NULL GROUP BY outcome
