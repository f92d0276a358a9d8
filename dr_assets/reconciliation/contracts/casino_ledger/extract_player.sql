SELECT player_id, country, created_at, closed_at
FROM casino.players WHERE player_id::text = %(person)s
