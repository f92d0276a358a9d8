SELECT full_name, email, phone, email_consent, sms_consent, synced_at
FROM casino.crm_contacts WHERE player_id::text = %(person)s
