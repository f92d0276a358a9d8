SELECT player_id::text, closed_at FROM casino.players
