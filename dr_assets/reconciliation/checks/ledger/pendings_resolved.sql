-- Money set aside is posted or voided once at most, for no more than was set aside, and by a transfer that exists.
-- reads: pendings, transfers
WITH resolved AS (
    SELECT pending_id, account_id, currency, max(amount_minor) AS amount_minor, count(resolution) AS resolutions,
           sum(resolved_minor) AS resolved_minor, max(transfer_id) AS transfer_id, max(created_us) AS at_us
    FROM pendings GROUP BY pending_id, account_id, currency
)
SELECT 'pending_resolved_twice' AS reason, account_id AS account, transfer_id AS transfer, currency,
       resolved_minor - amount_minor AS amount_minor,
       'pending ' || pending_id || ' was resolved ' || resolutions || ' times' AS detail,
       CAST(pending_id AS VARCHAR) AS reference, at_us
FROM resolved WHERE resolutions > 1
UNION ALL
SELECT 'pending_overdrawn', account_id, transfer_id, currency, resolved_minor - amount_minor,
       'pending ' || pending_id || ' of ' || amount_minor || ' was resolved for ' || resolved_minor,
       CAST(pending_id AS VARCHAR), at_us
FROM resolved WHERE resolutions = 1 AND resolved_minor > amount_minor
UNION ALL
SELECT 'pending_without_transfer', p.account_id, p.transfer_id, p.currency, p.resolved_minor,
       'pending ' || p.pending_id || ' was ' || p.resolution || ' by a transfer that does not exist',
       CAST(p.pending_id AS VARCHAR), p.created_us
FROM pendings p ANTI JOIN transfers t ON t.transfer_id = p.transfer_id
WHERE p.resolution IS NOT NULL
