SELECT account_id, kind, currency, balance_minor, last_sequence
FROM casino.accounts WHERE player_id::text = %(person)s ORDER BY account_id
