SELECT withdrawal_id AS hold_id, holding_account_id AS account_id, currency, amount_minor
FROM casino.withdrawals
WHERE state IN ('requested', 'approved')
