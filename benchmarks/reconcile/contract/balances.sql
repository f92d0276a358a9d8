SELECT account_id, 0::bigint AS balance_minor, max(sequence) AS last_sequence FROM bench.postings GROUP BY account_id
