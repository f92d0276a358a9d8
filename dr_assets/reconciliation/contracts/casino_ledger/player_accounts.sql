SELECT account_id, player_id, currency FROM casino.accounts WHERE kind = 'player_cash'
