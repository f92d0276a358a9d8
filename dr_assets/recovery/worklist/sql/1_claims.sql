-- What each outsider says, one row a saying, with the operation (`op`) that it is about: sayings of one op are one line.
--   op    what|id: a deposit and its reversal by the provider's reference, a payout by its withdrawal, all else by key
--   told  captured, executed, refunded, charged_back, undone (provider) · acknowledged, unknown, refused, voided (game)
--         · posted, silent (topic)

-- A file that came twice is no second payment: a line counts as often as the file that has it most often.
CREATE TABLE provider_sayings AS
WITH per_file AS (
    SELECT provider, kind, reference, original_reference, currency, gross_minor, booked_us, file, count(*) AS times,
           min(line) AS line
    FROM provider_lines GROUP BY provider, kind, reference, original_reference, currency, gross_minor, booked_us, file
)
SELECT provider, kind, reference, original_reference, currency, gross_minor, booked_us, max(times) AS times,
       arg_min(file, (file, line)) AS file, arg_min(line, (file, line)) AS line, sum(times) AS rows_read
FROM per_file GROUP BY provider, kind, reference, original_reference, currency, gross_minor, booked_us;

-- The withdrawal behind the provider's name for its payout.
CREATE TABLE payout_chains AS
SELECT reference, min(chain) AS chain FROM (
    SELECT payout_reference AS reference, withdrawal AS chain FROM ledger_withdrawals
    UNION ALL
    SELECT reference, chain FROM events WHERE starts_with(what, 'withdrawal_')
    UNION ALL
    SELECT idempotency_key, chain FROM events WHERE what = 'withdrawal_approved'
) WHERE reference IS NOT NULL AND chain IS NOT NULL GROUP BY reference;

-- What a line that undoes another one undoes.
CREATE TABLE originals AS
SELECT reference, min(what) AS what FROM (
    SELECT reference, CASE kind WHEN 'payment' THEN 'deposit' WHEN 'payout' THEN 'withdrawal_paid'
                                ELSE 'deposit_reversed' END AS what
    FROM provider_lines WHERE kind IN ('payment', 'payout', 'refund', 'chargeback')
    UNION ALL
    SELECT reference, CASE direction WHEN 'in' THEN 'deposit' ELSE 'deposit_reversed' END FROM ledger_payments
    UNION ALL
    SELECT payout_reference, 'withdrawal_paid' FROM ledger_withdrawals WHERE payout_reference IS NOT NULL
    UNION ALL
    SELECT reference, what FROM events WHERE what IN ('deposit', 'deposit_reversed') AND reference IS NOT NULL
) GROUP BY reference;

CREATE TABLE provider_claims AS
SELECT 'provider' AS source, s.provider || ' ' || s.file || ':' || s.line AS place, s.rows_read, s.times,
       CASE WHEN s.kind = 'payment' THEN 'deposit' WHEN s.kind = 'payout' THEN 'withdrawal_paid'
            WHEN s.kind IN ('refund', 'chargeback') THEN 'deposit_reversed' ELSE coalesce(o.what, 'reversal') END AS what,
       CASE WHEN s.kind = 'reversal' AND o.what IS NOT NULL THEN s.original_reference ELSE s.reference END AS reference,
       CASE WHEN s.kind IN ('refund', 'chargeback') THEN s.original_reference ELSE c.chain END AS chain,
       s.currency, abs(s.gross_minor)::HUGEINT * s.times AS amount_minor, s.booked_us AS at_us,
       CASE s.kind WHEN 'payment' THEN 'captured' WHEN 'payout' THEN 'executed' WHEN 'refund' THEN 'refunded'
                   WHEN 'chargeback' THEN 'charged_back' ELSE 'undone' END AS told
FROM provider_sayings s
LEFT JOIN originals o ON o.reference = s.original_reference AND s.kind = 'reversal'
LEFT JOIN payout_chains c ON c.reference = CASE WHEN s.kind = 'reversal' THEN s.original_reference ELSE s.reference END
WHERE s.kind IN ('payment', 'payout', 'refund', 'chargeback', 'reversal');

CREATE TABLE claims AS
WITH said AS (
    SELECT source, place, rows_read, times, what, NULL AS idempotency_key, reference, chain, NULL AS player,
           NULL AS account, currency, amount_minor, NULL::BIGINT AS cash_minor, at_us, told
    FROM provider_claims
    UNION ALL
    SELECT 'game', 'game provider', 1, 1, kind, idempotency_key, NULL, coalesce(round_reference, idempotency_key),
           player, NULL, currency, amount_minor, NULL, at_us, status
    FROM rounds
    UNION ALL
    SELECT 'topic', topic || ' ' || place, 1, 1, what, idempotency_key, reference, chain, player, account, currency,
           amount_minor, cash_minor, at_us, CASE WHEN says THEN 'posted' ELSE 'silent' END
    FROM events
)
SELECT *, what || '|' || CASE
    WHEN told = 'silent' THEN place
    WHEN what IN ('deposit', 'deposit_reversed') THEN coalesce(reference, idempotency_key, place)
    WHEN what = 'withdrawal_paid' THEN coalesce(chain, reference, idempotency_key, place)
    ELSE coalesce(idempotency_key, reference, place) END AS op
FROM said;

-- What the restored ledger has: by key, by the provider's reference, by the withdrawal's state.
CREATE TABLE ops_there AS
SELECT op FROM claims c SEMI JOIN ledger_keys k ON c.idempotency_key = k.idempotency_key
UNION
SELECT op FROM claims c SEMI JOIN ledger_payments p ON c.reference = p.reference
WHERE c.what IN ('deposit', 'deposit_reversed')
UNION
SELECT op FROM claims c JOIN ledger_withdrawals w ON c.chain = w.withdrawal
WHERE c.what = 'withdrawal_paid' AND w.state = 'paid';

-- Who is on no line and why; NULL: on one. What the ledger has is work all the same where an outsider has undone it since.
CREATE TABLE handled_ops AS
SELECT op, CASE
    WHEN op IN (FROM ops_there)
         AND coalesce(max(at_us) FILTER (told IN ('undone', 'voided')), w.since_us - 1) < w.since_us THEN 'in_ledger'
    WHEN max(at_us) < w.since_us - w.slack_us OR min(at_us) > w.until_us + w.slack_us THEN 'outside_window' END AS handled
FROM claims CROSS JOIN settings w GROUP BY op, w.since_us, w.until_us, w.slack_us;
