-- What marketing knows goes. What the books need stays: a player is a number there, with accounts, rounds and withdrawals
-- that nobody may change, and the country is the last thing about them that is not money.
DELETE FROM casino.crm_contacts USING pg_temp.erased_people AS erased
WHERE player_id = erased.personal_id::bigint;

UPDATE casino.players SET country = 'ZZ' FROM pg_temp.erased_people AS erased
WHERE player_id = erased.personal_id::bigint AND country <> 'ZZ'
