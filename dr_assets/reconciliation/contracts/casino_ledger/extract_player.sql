SELECT player_id, country, created_at, closed_at, email_consent, sms_consent, consent_changed_at
FROM casino.players WHERE player_id::text = %(person)s
