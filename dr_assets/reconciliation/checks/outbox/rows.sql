-- A transfer that has a record has its outbox row, unless it is older than the oldest row: then it was cleared away.
-- A record of no transfer at all is queues/entries. One key has one row in a topic.
-- reads: outbox, records, transfers
WITH begun AS (
    SELECT topic, min(created_us) AS from_us FROM outbox GROUP BY topic
)
SELECT 'outbox_row_missing' AS reason, NULL AS account, t.transfer_id AS transfer, NULL AS currency,
       NULL AS amount_minor,
       r.topic || '/' || CAST(r.partition AS VARCHAR) || ' offset ' || CAST(r.record_offset AS VARCHAR) AS detail,
       r.idempotency_key AS reference, r.timestamp_us AS at_us
FROM records r JOIN begun b ON b.topic = r.topic AND r.timestamp_us >= b.from_us
JOIN transfers t ON t.idempotency_key = r.idempotency_key
ANTI JOIN outbox o ON o.idempotency_key = r.idempotency_key
WHERE NOT r.dead_letter
UNION ALL
SELECT 'outbox_row_repeated', NULL, max(transfer_id), NULL, NULL,
       CAST(count(*) AS VARCHAR) || ' rows for topic ' || topic, idempotency_key, max(created_us)
FROM outbox GROUP BY topic, idempotency_key HAVING count(*) > 1
