-- Each posting's hash is that of the one before it and its own content. Beside a gap the one before is unknown: the gap
-- is the break there.
-- reads: postings
-- needs: chain
SELECT 'hash_differs' AS reason, account_id AS account, transfer_id AS transfer, currency, amount_minor,
       'posting ' || sequence AS detail
FROM posting_steps WHERE follows AND hash_differs
