SELECT d.transfer_id, t.created_at, d.provider_reference, d.currency, d.amount_minor, d.bonus_minor
FROM casino.deposits d JOIN casino.transfers t USING (transfer_id)
WHERE d.player_id::text = %(person)s ORDER BY d.transfer_id
