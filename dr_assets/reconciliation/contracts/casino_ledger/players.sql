SELECT player_id, (extract(epoch FROM created_at) * 1000000)::bigint AS created_us,
       (extract(epoch FROM closed_at) * 1000000)::bigint AS closed_us, erased, email_consent, sms_consent,
       (extract(epoch FROM consent_changed_at) * 1000000)::bigint AS consent_changed_us
FROM casino.players
