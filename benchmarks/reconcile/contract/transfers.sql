SELECT DISTINCT transfer_id, transfer_id::text AS idempotency_key FROM bench.postings
