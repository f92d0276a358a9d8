-- What marketing knows goes. What the books need stays: a player is a number there, with accounts, rounds and withdrawals
-- that nobody may change; the country and what they agreed to are the last things about them that are not money.
DELETE FROM casino.crm_contacts USING pg_temp.erased_people AS erased
WHERE player_id = erased.personal_id::bigint;

UPDATE casino.players SET country = 'ZZ', email_consent = false, sms_consent = false, erased = true
FROM pg_temp.erased_people AS erased_people
WHERE player_id = erased_people.personal_id::bigint AND (country <> 'ZZ' OR NOT erased)
