SELECT transfer_id, kind, idempotency_key, payload_hash, reason,
       (extract(epoch FROM created_at) * 1000000)::bigint AS created_us, digest
FROM casino.transfers
