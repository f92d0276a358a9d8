-- How many events of the outbox are where they belong, on their way, or older than what the topics still keep.
-- reads: outbox, records, partitions
WITH judged AS (
    SELECT CASE WHEN a.created_us >= s.as_of_us - s.projection_lag_us THEN 'in_flight'
                WHEN a.published AND a.created_us < coalesce(a.from_us, 0) THEN 'tolerated' END AS outcome
    FROM kept a CROSS JOIN settings s
), counted AS (
    SELECT outcome, count(*) AS count FROM judged WHERE outcome IS NOT NULL GROUP BY outcome
    UNION ALL
    SELECT 'matched', (SELECT count(*) FROM outbox) - (SELECT count(*) FROM kept)
)
SELECT outcome, CAST(NULL AS VARCHAR) AS currency, count, CAST(NULL AS BIGINT) AS amount_minor
FROM counted WHERE count > 0
