SELECT p.account_id, p.sequence, p.transfer_id, t.kind, t.created_at, t.reason, p.currency, p.amount_minor,
       p.balance_after_minor
FROM casino.accounts a JOIN casino.postings p USING (account_id) JOIN casino.transfers t USING (transfer_id)
WHERE a.player_id::text = %(person)s ORDER BY p.account_id, p.sequence
