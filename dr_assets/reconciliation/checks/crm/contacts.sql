-- Every player has a contact in the CRM within the agreed lag, and every contact is a player's who is not erased; whoever
-- closed the account is known there to have done so.
-- reads: players, contacts
-- severity: contact_missing=amber, closing_unknown=amber
SELECT 'contact_missing' AS reason, NULL AS account, NULL AS transfer, NULL AS currency, NULL AS amount_minor,
       'of player ' || CAST(p.player_id AS VARCHAR) AS detail, CAST(p.player_id AS VARCHAR) AS reference,
       p.created_us AS at_us
FROM players p CROSS JOIN settings s
ANTI JOIN contacts c ON CAST(c.player_id AS VARCHAR) = CAST(p.player_id AS VARCHAR)
WHERE NOT p.erased AND p.closed_us IS NULL AND p.created_us < s.as_of_us - s.crm_lag_us
UNION ALL
SELECT 'contact_of_nobody', NULL, NULL, NULL, NULL, 'no player ' || CAST(c.player_id AS VARCHAR),
       CAST(c.player_id AS VARCHAR), c.synced_us
FROM contacts c ANTI JOIN players p ON CAST(p.player_id AS VARCHAR) = CAST(c.player_id AS VARCHAR)
UNION ALL
SELECT 'erased_person_present', NULL, NULL, NULL, NULL, 'player ' || CAST(c.player_id AS VARCHAR) || ' was erased',
       CAST(c.player_id AS VARCHAR), c.synced_us
FROM contacts c JOIN players p ON CAST(p.player_id AS VARCHAR) = CAST(c.player_id AS VARCHAR)
WHERE p.erased
UNION ALL
SELECT 'closing_unknown', NULL, NULL, NULL, NULL,
       'player ' || CAST(c.player_id AS VARCHAR) || ' closed after the contact was brought up to date',
       CAST(c.player_id AS VARCHAR), p.closed_us
FROM contacts c JOIN players p ON CAST(p.player_id AS VARCHAR) = CAST(c.player_id AS VARCHAR) CROSS JOIN settings s
WHERE NOT p.erased AND p.closed_us IS NOT NULL AND c.synced_us < p.closed_us
  AND p.closed_us < s.as_of_us - s.crm_lag_us
UNION ALL
SELECT 'contact_repeated', NULL, NULL, NULL, NULL, CAST(count(*) AS VARCHAR) || ' contacts',
       CAST(player_id AS VARCHAR), max(synced_us)
FROM contacts GROUP BY player_id HAVING count(*) > 1
