SELECT d.transfer_id, t.created_at, d.provider_reference, d.currency, d.amount_minor, d.bonus_minor,
       r.kind AS reversed_by, r.provider_reference AS reversal_reference
FROM casino.deposits d JOIN casino.transfers t USING (transfer_id)
LEFT JOIN casino.deposit_reversals r ON r.deposit_transfer_id = d.transfer_id
WHERE d.player_id::text = %(person)s ORDER BY d.transfer_id
