SELECT account_id, currency, may_go_negative, kind IN ('player_held', 'payable') AS holds_money
FROM casino.accounts
