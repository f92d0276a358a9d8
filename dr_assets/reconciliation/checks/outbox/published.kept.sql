-- Every event of the outbox that lies in no record of its topic, and since when all of its partition's records are known.
-- Where records of the same message key lie tells which partition's retention that is, else it may be any one's of the topic.
WITH complete AS (
    SELECT topic, max(complete_from_us) AS from_us FROM partitions GROUP BY topic
), places AS (
    SELECT r.topic, r.message_key, max(p.complete_from_us) AS from_us
    FROM records r JOIN partitions p ON p.topic = r.topic AND p.partition = r.partition
    WHERE r.message_key IS NOT NULL GROUP BY r.topic, r.message_key
), keys AS (
    SELECT DISTINCT topic, idempotency_key FROM records WHERE idempotency_key IS NOT NULL AND NOT dead_letter
)
SELECT o.transfer_id, o.topic, o.idempotency_key, o.message_key, o.position, o.created_us, o.published,
       coalesce(l.from_us, c.from_us) AS from_us
FROM outbox o LEFT JOIN complete c ON c.topic = o.topic
LEFT JOIN places l ON l.topic = o.topic AND l.message_key = o.message_key
LEFT JOIN keys k ON k.topic = o.topic AND k.idempotency_key = o.idempotency_key
WHERE k.idempotency_key IS NULL
