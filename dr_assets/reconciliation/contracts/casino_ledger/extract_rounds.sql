SELECT r.round_id, r.game, t.created_at AS bet_at, r.currency, r.stake_minor, r.win_minor, w.created_at AS win_at
FROM casino.rounds r JOIN casino.transfers t ON t.transfer_id = r.bet_transfer_id
LEFT JOIN casino.transfers w ON w.transfer_id = r.win_transfer_id
WHERE r.player_id::text = %(person)s ORDER BY r.round_id
