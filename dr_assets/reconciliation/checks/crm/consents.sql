-- The CRM asks nobody who said no: its consents are the player's own, once the agreed lag is over. That it may write and
-- must not is red; that it does not write to who said yes costs a bonus and is amber.
-- reads: players, contacts
-- severity: consent_missing=amber
WITH pairs AS (
    SELECT p.player_id, p.consent_changed_us, 'email' AS channel, p.email_consent AS said, c.email_consent AS known
    FROM players p JOIN contacts c ON CAST(c.player_id AS VARCHAR) = CAST(p.player_id AS VARCHAR) WHERE NOT p.erased
    UNION ALL
    SELECT p.player_id, p.consent_changed_us, 'sms', p.sms_consent, c.sms_consent
    FROM players p JOIN contacts c ON CAST(c.player_id AS VARCHAR) = CAST(p.player_id AS VARCHAR) WHERE NOT p.erased
)
SELECT CASE WHEN known THEN 'consent_withdrawn' ELSE 'consent_missing' END AS reason, NULL AS account, NULL AS transfer,
       NULL AS currency, NULL AS amount_minor,
       channel || ': the player ' || CASE WHEN said THEN 'said yes' ELSE 'said no' END || ', the CRM thinks '
       || CASE WHEN known THEN 'it may write' ELSE 'it may not' END AS detail,
       CAST(player_id AS VARCHAR) AS reference, consent_changed_us AS at_us
FROM pairs CROSS JOIN settings s
WHERE said <> known AND consent_changed_us < s.as_of_us - s.crm_lag_us
