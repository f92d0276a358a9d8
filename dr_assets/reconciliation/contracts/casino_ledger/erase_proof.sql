SELECT player_id FROM casino.crm_contacts JOIN pg_temp.erased_people ON player_id = personal_id::bigint
UNION ALL
SELECT player_id FROM casino.players JOIN pg_temp.erased_people ON player_id = personal_id::bigint
WHERE country <> 'ZZ' OR email_consent OR sms_consent OR NOT erased
