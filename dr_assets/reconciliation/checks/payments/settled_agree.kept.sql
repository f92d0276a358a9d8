-- Every reference on which ledger and provider don't agree row by row, with what both say of it in all and a verdict.
-- Most references are one line and one payment of one amount: a join tells those, and only what is left is added up.
WITH special AS (
    -- Lines that follow another line or pay a customer out: few. Who knows their reference decides where they count.
    SELECT file, line, reference, original_reference, kind, currency, gross_minor, booked_us FROM provider_lines
    WHERE original_reference IS NOT NULL AND kind IN ('payment', 'refund', 'chargeback', 'reversal', 'payout')
    UNION ALL
    SELECT file, line, reference, original_reference, kind, currency, gross_minor, booked_us FROM provider_lines
    WHERE original_reference IS NULL AND kind = 'payout'
), paid_out AS (
    SELECT payout_reference AS reference FROM withdrawals WHERE payout_reference IS NOT NULL
), named AS (
    SELECT reference FROM special UNION SELECT original_reference FROM special WHERE original_reference IS NOT NULL
), known AS (
    SELECT DISTINCT p.reference FROM payments p
    SEMI JOIN named ON named.reference = p.reference ANTI JOIN paid_out ON paid_out.reference = p.reference
), of_withdrawals AS (
    -- Where withdrawals are given, payouts are theirs: checks/withdrawals judges them.
    SELECT reference FROM paid_out
    UNION SELECT s.reference FROM special s CROSS JOIN (SELECT count(*) AS given FROM withdrawals) w
          WHERE s.kind = 'payout' AND w.given > 0
), earlier AS (
    SELECT reference, min(original_reference) AS original_reference FROM special
    WHERE original_reference IS NOT NULL GROUP BY reference
), resolved AS (
    -- A refund counts under its own reference where the ledger knows that, else under the payment's.
    SELECT s.file, s.line, s.kind, s.currency, s.gross_minor, s.booked_us,
           CASE WHEN own.reference IS NOT NULL OR s.original_reference IS NULL THEN s.reference
                WHEN original.reference IS NOT NULL THEN s.original_reference
                ELSE coalesce(earlier.original_reference, s.original_reference) END AS reference
    FROM special s
    LEFT JOIN known AS own ON own.reference = s.reference
    LEFT JOIN known AS original ON original.reference = s.original_reference
    LEFT JOIN earlier ON earlier.reference = s.original_reference
    LEFT JOIN of_withdrawals AS payout ON payout.reference = s.reference
    LEFT JOIN of_withdrawals AS paid_back ON paid_back.reference = s.original_reference
    WHERE own.reference IS NOT NULL OR original.reference IS NOT NULL
       OR (payout.reference IS NULL AND paid_back.reference IS NULL)
), placed AS (
    SELECT *, CASE WHEN reference IS NOT NULL THEN hash(reference) END AS reference_hash FROM resolved
), itself AS NOT MATERIALIZED (
    -- Lines that follow none and pay nobody out. CASE is told once for each kind that there is, IN for each line.
    SELECT file, line, reference, reference_hash, kind, currency, gross_minor, booked_us FROM provider_lines
    WHERE original_reference IS NULL
      AND CASE kind WHEN 'payment' THEN TRUE WHEN 'refund' THEN TRUE WHEN 'chargeback' THEN TRUE
                    WHEN 'reversal' THEN TRUE ELSE FALSE END
), settled AS NOT MATERIALIZED (
    SELECT reference_hash, currency, gross_minor AS minor, booked_us AS at_us FROM itself
    WHERE reference_hash IS NOT NULL
    UNION ALL
    SELECT reference_hash, currency, gross_minor, booked_us FROM placed WHERE reference_hash IS NOT NULL
), posted AS NOT MATERIALIZED (
    SELECT p.reference_hash, p.currency, p.created_us AS at_us,
           CASE p.direction WHEN 'in' THEN p.amount_minor ELSE -p.amount_minor END AS minor
    FROM payments p ANTI JOIN paid_out ON paid_out.reference = p.reference
    WHERE p.state = 'posted' AND p.reference_hash IS NOT NULL
), compared AS (
    -- Every line beside every payment of its reference, and what is on one side only. References that differ and share
    -- a hash meet as if they were one: they are told apart below, unless they are one line and one payment that agree.
    SELECT s.reference_hash AS settled, p.reference_hash AS posted, s.minor % 16381 AS line_bucket,
           p.minor % 16381 AS payment_bucket,
           coalesce(s.currency = p.currency AND s.minor = p.minor
                    AND abs(s.at_us - p.at_us) <= (SELECT date_window_us FROM settings), FALSE) AS agree
    FROM settled s FULL OUTER JOIN posted p ON p.reference_hash = s.reference_hash
), counted AS MATERIALIZED (
    SELECT CASE WHEN agree THEN NULL ELSE coalesce(settled, posted) END AS reference_hash, line_bucket,
           CASE WHEN agree THEN NULL ELSE payment_bucket END AS payment_bucket,
           count(settled) AS lines, count(posted) AS payments
    FROM compared GROUP BY 1, 2, 3
), lines_too_many AS (
    -- Where a reference is there twice the join has more rows than a side, and never fewer: nothing cancels out, neither
    -- in all nor in a bucket. Lines are too many where payments are there twice, payments where lines are. Amounts are
    -- counted since references are longer to read.
    SELECT sum(lines) AS joined FROM counted HAVING sum(lines) <> (SELECT count(coalesce(minor, 0)) FROM settled)
), payments_too_many AS (
    SELECT sum(payments) AS joined FROM counted HAVING sum(payments) <> (SELECT count(coalesce(minor, 0)) FROM posted)
), payments_twice AS (
    SELECT bucket FROM (
        SELECT line_bucket AS bucket, counted.lines FROM counted CROSS JOIN lines_too_many
        UNION ALL SELECT minor % 16381, -count(*) FROM settled CROSS JOIN lines_too_many GROUP BY 1
    ) AS lines_of_buckets GROUP BY bucket HAVING sum(lines) <> 0
), lines_twice AS (
    SELECT bucket FROM (
        SELECT CASE WHEN reference_hash IS NULL THEN line_bucket ELSE payment_bucket END AS bucket, counted.payments
        FROM counted CROSS JOIN payments_too_many
        UNION ALL SELECT minor % 16381, -count(*) FROM posted CROSS JOIN payments_too_many GROUP BY 1
    ) AS payments_of_buckets GROUP BY bucket HAVING sum(payments) <> 0
), doubtful AS MATERIALIZED (
    -- A reference is beyond doubt with one row on each side, equal and near in time. One of which all rows agree has them
    -- in one bucket.
    SELECT reference_hash FROM counted WHERE reference_hash IS NOT NULL
    UNION
    SELECT reference_hash FROM settled SEMI JOIN lines_twice ON lines_twice.bucket = minor % 16381
    GROUP BY reference_hash HAVING count(*) > 1
    UNION
    SELECT reference_hash FROM posted SEMI JOIN payments_twice ON payments_twice.bucket = minor % 16381
    GROUP BY reference_hash HAVING count(*) > 1
), rows_of_both AS NOT MATERIALIZED (
    SELECT reference, reference_hash, 1 AS side, kind, file, line, currency, gross_minor AS minor, booked_us AS at_us,
           NULL AS account_id, NULL AS transfer_id
    FROM itself
    UNION ALL
    SELECT reference, reference_hash, 1, kind, file, line, currency, gross_minor, booked_us, NULL, NULL FROM placed
    UNION ALL
    SELECT reference, reference_hash, -1, state, NULL, NULL, currency,
           CASE WHEN state <> 'posted' THEN 0 WHEN direction = 'in' THEN amount_minor ELSE -amount_minor END,
           created_us, CAST(account_id AS VARCHAR), CAST(transfer_id AS VARCHAR)
    FROM payments ANTI JOIN paid_out ON paid_out.reference = payments.reference
), said AS (
    SELECT rows_of_both.*
    FROM rows_of_both SEMI JOIN doubtful ON doubtful.reference_hash = rows_of_both.reference_hash
    UNION ALL
    SELECT rows_of_both.* FROM rows_of_both WHERE reference IS NULL
), totals AS (
    SELECT reference,
           count(*) FILTER (WHERE side = 1) AS lines,
           count(*) FILTER (WHERE kind = 'payment') AS payment_lines,
           count(*) FILTER (WHERE side = -1) AS payments,
           count(*) FILTER (WHERE kind = 'posted') AS posted,
           count(*) FILTER (WHERE kind = 'pending') AS pending,
           min(currency) AS low_currency, max(currency) AS high_currency,
           min(CASE WHEN side = 1 THEN currency END) AS line_currency,
           sum(CASE WHEN side = 1 THEN minor ELSE 0 END) AS line_minor,
           sum(CASE WHEN side = 1 AND at_us > young_us THEN minor ELSE 0 END) AS young_line_minor,
           sum(CASE WHEN kind = 'refund' THEN minor ELSE 0 END) AS refund_minor,
           sum(CASE WHEN kind = 'chargeback' THEN minor ELSE 0 END) AS chargeback_minor,
           sum(CASE WHEN kind = 'payout' THEN minor ELSE 0 END) AS payout_minor,
           sum(CASE WHEN kind = 'reversal' THEN minor ELSE 0 END) AS reversal_minor,
           sum(CASE WHEN side = -1 THEN minor ELSE 0 END) AS ledger_minor,
           sum(CASE WHEN side = -1 AND at_us > young_us THEN minor ELSE 0 END) AS young_ledger_minor,
           min(CASE WHEN side = 1 THEN at_us END) AS line_us, min(CASE WHEN side = -1 THEN at_us END) AS ledger_us,
           max(CASE WHEN side = -1 THEN at_us END) AS ledger_last_us,
           min(file) AS file, min(line) AS line, min(account_id) AS account, min(transfer_id) AS transfer
    FROM said CROSS JOIN (SELECT as_of_us - in_flight_us AS young_us FROM settings) AS moments
    GROUP BY reference
)
SELECT totals.*,
       CASE
           WHEN lines = 0 AND posted = 0 THEN 'matched'
           WHEN low_currency <> high_currency THEN 'currency_differs' -- before any sum is believed
           WHEN lines = 0 AND ledger_minor = 0 THEN 'matched'
           WHEN lines = 0 AND ledger_minor = young_ledger_minor THEN 'in_flight'
           WHEN lines = 0 AND ledger_last_us < coalesce(covered_us, ledger_last_us) - date_window_us THEN 'not_covered'
           WHEN lines = 0 THEN 'missing_at_provider'
           WHEN payments = 0 AND line_minor = 0 THEN 'matched'
           WHEN payments = 0 AND line_minor = young_line_minor THEN 'in_flight'
           WHEN payments = 0 AND payment_lines > 0 THEN 'payment_not_posted'
           WHEN payments = 0 AND chargeback_minor <> 0 THEN 'chargeback_not_posted'
           WHEN payments = 0 AND refund_minor <> 0 THEN 'refund_not_posted'
           WHEN payments = 0 AND payout_minor <> 0 THEN 'payout_not_posted'
           WHEN payments = 0 THEN 'reversal_not_posted'
           WHEN line_minor = ledger_minor AND ledger_minor <> 0 AND abs(line_us - ledger_us) > date_window_us
               THEN 'settled_late'
           WHEN line_minor = ledger_minor THEN 'matched'
           WHEN abs(line_minor - ledger_minor) <= amount_tolerance_minor THEN 'tolerated'
           WHEN line_minor = ledger_minor - young_ledger_minor OR line_minor - young_line_minor = ledger_minor
               THEN 'in_flight'
           WHEN posted = 0 AND pending > 0 THEN 'still_pending'
           WHEN posted = 0 THEN 'reversed_but_settled'
           WHEN line_minor = -ledger_minor THEN 'sign_differs'
           WHEN posted = 1 AND lines > 1 AND line_minor = lines * ledger_minor THEN 'settled_twice'
           WHEN posted > 1 AND ledger_minor = posted * line_minor THEN 'posted_twice'
           WHEN chargeback_minor <> 0 AND line_minor - chargeback_minor = ledger_minor THEN 'chargeback_not_posted'
           WHEN refund_minor <> 0 AND line_minor - refund_minor = ledger_minor THEN 'refund_not_posted'
           WHEN reversal_minor <> 0 AND line_minor - reversal_minor = ledger_minor THEN 'reversal_not_posted'
           ELSE 'amount_differs'
       END AS verdict
FROM totals CROSS JOIN settings CROSS JOIN (SELECT min(booked_us) AS covered_us FROM provider_lines) AS coverage
