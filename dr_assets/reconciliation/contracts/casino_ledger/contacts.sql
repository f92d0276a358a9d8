SELECT player_id, email_consent, sms_consent, (extract(epoch FROM synced_at) * 1000000)::bigint AS synced_us
FROM casino.crm_contacts
