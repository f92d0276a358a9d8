-- What is taken back is a movement of its own, and the deposit stays as it is. Opening balances were taken over from
-- elsewhere: no provider ever saw them.
SELECT d.transfer_id AS payment_id, d.provider_reference AS reference, 'in' AS direction, d.currency, d.amount_minor,
       (extract(epoch FROM t.created_at) * 1000000)::bigint AS created_us, d.transfer_id, a.account_id,
       'posted' AS state
FROM casino.deposits d
LEFT JOIN casino.transfers t USING (transfer_id)
LEFT JOIN casino.accounts a ON a.player_id = d.player_id AND a.currency = d.currency AND a.kind = 'player_cash'
WHERE d.provider_reference NOT LIKE 'opening/%'
UNION ALL
SELECT r.transfer_id, r.provider_reference, 'out', d.currency, d.amount_minor,
       (extract(epoch FROM t.created_at) * 1000000)::bigint, r.transfer_id, a.account_id, 'posted'
FROM casino.deposit_reversals r
LEFT JOIN casino.deposits d ON d.transfer_id = r.deposit_transfer_id
LEFT JOIN casino.transfers t ON t.transfer_id = r.transfer_id
LEFT JOIN casino.accounts a ON a.player_id = d.player_id AND a.currency = d.currency AND a.kind = 'player_cash'
