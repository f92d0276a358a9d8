SELECT transfer_id, position, topic, payload ->> 'key' AS idempotency_key, message_key, payload::text AS payload,
       (extract(epoch FROM created_at) * 1000000)::bigint AS created_us, published_at IS NOT NULL AS published
FROM casino.outbox
