-- Records of one message key lie in one partition, in the order in which their postings were made. Two transfers that
-- raced may be published either way: only what contradicts both the outbox's order and an account's own is a break.
-- A record that was published again counts where it lay first.
-- reads: outbox, records, postings
-- severity: key_in_two_partitions=amber
WITH own AS (
    SELECT o.topic, o.message_key, o.transfer_id, o.position, o.idempotency_key, min(r.partition) AS partition,
           min(r.record_offset) AS record_offset, min(r.timestamp_us) AS at_us
    FROM outbox o JOIN records r ON r.topic = o.topic AND r.idempotency_key = o.idempotency_key
    WHERE o.message_key IS NOT NULL AND NOT r.dead_letter
    GROUP BY o.topic, o.message_key, o.transfer_id, o.position, o.idempotency_key
), steps AS (
    SELECT own.topic, own.message_key, own.partition, own.record_offset, own.transfer_id, own.position,
           own.idempotency_key, own.at_us, p.account_id, p.sequence,
           lag(own.position) OVER earlier AS previous_position, lag(p.sequence) OVER earlier AS previous_sequence
    FROM own JOIN postings p ON p.transfer_id = own.transfer_id
    WINDOW earlier AS (PARTITION BY own.topic, own.partition, own.message_key, p.account_id
                       ORDER BY own.record_offset, own.position, p.sequence)
)
SELECT 'order_violated' AS reason, NULL AS account, transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       min(topic || '/' || CAST(partition AS VARCHAR) || ' offset ' || CAST(record_offset AS VARCHAR)
           || ' lies behind position ' || CAST(previous_position AS VARCHAR)) AS detail,
       idempotency_key AS reference, min(at_us) AS at_us
FROM steps WHERE position < previous_position AND sequence < previous_sequence
GROUP BY transfer_id, idempotency_key
UNION ALL
SELECT 'key_in_two_partitions', NULL, NULL, NULL, NULL,
       'message key ' || message_key || ' lies in ' || CAST(count(DISTINCT partition) AS VARCHAR)
       || ' partitions of ' || topic, message_key, max(at_us)
FROM own GROUP BY topic, message_key HAVING count(DISTINCT partition) > 1
