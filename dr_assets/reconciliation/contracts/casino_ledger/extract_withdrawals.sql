SELECT w.withdrawal_id, w.currency, w.amount_minor, w.state AS state_at_that_time, w.payout_reference, s.state AS step,
       s.stepped_at, s.transfer_id
FROM casino.withdrawals w JOIN casino.withdrawal_steps s USING (withdrawal_id)
WHERE w.player_id::text = %(person)s ORDER BY s.transfer_id
