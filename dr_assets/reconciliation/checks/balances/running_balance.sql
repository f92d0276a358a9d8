-- The balance noted on each posting is the one noted before it plus the amount. Beside a gap: see sequence_gapless.
-- reads: postings
SELECT 'running_balance_differs' AS reason, account_id AS account, transfer_id AS transfer, currency,
       balance_after_minor::HUGEINT - (coalesce(previous_balance_minor, 0)::HUGEINT + amount_minor) AS amount_minor,
       'posting ' || sequence || ' notes ' || balance_after_minor AS detail
FROM posting_steps
WHERE follows
  AND balance_after_minor::HUGEINT <> coalesce(previous_balance_minor, 0)::HUGEINT + amount_minor
