-- One event, one record: more of them under one key are more than once for whoever does not look at the key. A relay that
-- fell between the broker's answer and its own mark publishes again: that is seen here, and is not lost money.
-- reads: outbox, records
-- severity: record_repeated=amber
WITH repeated AS (
    SELECT topic, idempotency_key, count(*) AS times, max(timestamp_us) AS at_us, min(record_offset) AS first_offset,
           max(record_offset) AS last_offset
    FROM records WHERE idempotency_key IS NOT NULL AND NOT dead_letter
    GROUP BY topic, idempotency_key HAVING count(*) > 1
), topics AS (
    SELECT DISTINCT topic FROM outbox
)
SELECT 'record_repeated' AS reason, NULL AS account, o.transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       CAST(r.times AS VARCHAR) || ' records in topic ' || r.topic || ', offsets ' || CAST(r.first_offset AS VARCHAR)
       || ' to ' || CAST(r.last_offset AS VARCHAR) AS detail,
       r.idempotency_key AS reference, r.at_us
FROM repeated r JOIN topics t ON t.topic = r.topic
LEFT JOIN outbox o ON o.topic = r.topic AND o.idempotency_key = r.idempotency_key
