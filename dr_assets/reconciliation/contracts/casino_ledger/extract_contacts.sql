SELECT full_name, email, phone, email_consent, sms_consent, consent_changed_at
FROM casino.crm_contacts WHERE player_id::text = %(person)s
