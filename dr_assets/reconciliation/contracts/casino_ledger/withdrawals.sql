SELECT w.withdrawal_id, a.account_id, w.currency, w.amount_minor, w.state, w.payout_reference,
       (extract(epoch FROM r.stepped_at) * 1000000)::bigint AS requested_us,
       (extract(epoch FROM coalesce(s.stepped_at, r.stepped_at)) * 1000000)::bigint AS state_us
FROM casino.withdrawals w
LEFT JOIN casino.accounts a ON a.player_id = w.player_id AND a.currency = w.currency AND a.kind = 'player_cash'
LEFT JOIN casino.withdrawal_steps r ON r.withdrawal_id = w.withdrawal_id AND r.state = 'requested'
LEFT JOIN casino.withdrawal_steps s ON s.withdrawal_id = w.withdrawal_id AND s.state = w.state
