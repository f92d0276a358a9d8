SELECT account_id, currency, false AS may_go_negative, false AS holds_money FROM bench.accounts
