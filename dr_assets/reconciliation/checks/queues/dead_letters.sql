-- What a consumer gave up waits for a person. One row a topic, with how many there are and since when.
-- reads: records
-- severity: dead_letters=amber
SELECT 'dead_letters' AS reason, NULL AS account, NULL AS transfer, NULL AS currency, NULL AS amount_minor,
       CAST(count(*) AS VARCHAR) || ' records, ' || CAST(count(DISTINCT idempotency_key) AS VARCHAR)
       || ' idempotency keys' AS detail,
       topic AS reference, min(timestamp_us) AS at_us
FROM records WHERE dead_letter GROUP BY topic
