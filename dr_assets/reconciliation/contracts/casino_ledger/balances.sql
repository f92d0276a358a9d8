SELECT account_id, balance_minor, last_sequence, last_hash
FROM casino.accounts
