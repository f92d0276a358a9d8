-- What the provider says it settled in a batch is the sum of the batch's lines. The amount is what it settled less that sum.
-- reads: provider_lines
WITH batches AS (
    SELECT provider, batch, currency,
           sum(CASE WHEN kind = 'batch' THEN -net_minor ELSE 0 END) AS settled_minor,
           sum(CASE WHEN kind = 'batch' THEN 0 ELSE net_minor END) AS lines_minor,
           count(*) FILTER (WHERE kind = 'batch') AS settlements, count(*) FILTER (WHERE kind <> 'batch') AS lines,
           max(CASE WHEN kind = 'batch' THEN reference END) AS reference,
           max(CASE WHEN kind = 'batch' THEN booked_us END) AS at_us
    FROM provider_lines WHERE batch IS NOT NULL GROUP BY provider, batch, currency
)
SELECT CASE WHEN settlements > 1 AND settled_minor = settlements * lines_minor THEN 'batch_settled_twice'
            ELSE 'batch_sum_differs' END AS reason,
       NULL AS account, NULL AS transfer, currency, settled_minor - lines_minor AS amount_minor,
       'batch ' || batch || ' of ' || provider || ': ' || settled_minor || ' settled, ' || lines || ' line(s) of '
       || lines_minor AS detail,
       reference, at_us
FROM batches WHERE settlements > 0 AND settled_minor <> lines_minor
