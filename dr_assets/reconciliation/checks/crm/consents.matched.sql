-- How many players' consents the CRM knows as they are, and how many changed too recently to be judged.
-- reads: players, contacts
WITH judged AS (
    SELECT CASE WHEN p.email_consent = c.email_consent AND p.sms_consent = c.sms_consent THEN 'matched'
                WHEN p.consent_changed_us >= s.as_of_us - s.crm_lag_us THEN 'in_flight' END AS outcome
    FROM players p JOIN contacts c ON CAST(c.player_id AS VARCHAR) = CAST(p.player_id AS VARCHAR) CROSS JOIN settings s
    WHERE NOT p.erased
)
SELECT outcome, CAST(NULL AS VARCHAR) AS currency, count(*) AS count, CAST(NULL AS BIGINT) AS amount_minor
FROM judged WHERE outcome IS NOT NULL GROUP BY outcome
