SELECT player_id::text FROM casino.players
