SELECT 0::bigint AS hold_id, account_id, currency, 0::bigint AS amount_minor FROM bench.accounts WHERE false
