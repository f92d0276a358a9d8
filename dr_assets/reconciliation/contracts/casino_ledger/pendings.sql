-- A withdrawal sets money aside; being paid posts it, being rejected or cancelled voids it.
SELECT w.withdrawal_id AS pending_id, a.account_id, w.currency, w.amount_minor,
       CASE s.state WHEN 'paid' THEN 'posted' WHEN 'rejected' THEN 'voided' WHEN 'cancelled' THEN 'voided' END AS resolution,
       p.amount_minor AS resolved_minor, s.transfer_id,
       (extract(epoch FROM r.stepped_at) * 1000000)::bigint AS created_us
FROM casino.withdrawals w
LEFT JOIN casino.accounts a ON a.player_id = w.player_id AND a.currency = w.currency AND a.kind = 'player_held'
LEFT JOIN casino.withdrawal_steps r ON r.withdrawal_id = w.withdrawal_id AND r.state = 'requested'
LEFT JOIN casino.withdrawal_steps s
    ON s.withdrawal_id = w.withdrawal_id AND s.state IN ('paid', 'rejected', 'cancelled')
LEFT JOIN casino.postings p ON p.transfer_id = s.transfer_id AND p.amount_minor > 0
