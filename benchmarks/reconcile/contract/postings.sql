SELECT account_id, sequence, transfer_id, currency, amount_minor, balance_after_minor FROM bench.postings
