-- Every posting has its transfer and its account, in the account's currency.
-- reads: postings, transfers, accounts
SELECT 'orphan_posting' AS reason, account_id AS account, transfer_id AS transfer, currency, amount_minor,
       'posting ' || sequence || ' of a transfer that does not exist' AS detail
FROM postings ANTI JOIN transfers USING (transfer_id)
UNION ALL
SELECT 'posting_without_account', account_id, transfer_id, currency, amount_minor, 'posting ' || sequence
FROM postings ANTI JOIN accounts USING (account_id)
UNION ALL
SELECT 'posting_in_other_currency', p.account_id, p.transfer_id, p.currency, p.amount_minor,
       'posting ' || p.sequence || ' on an account in ' || a.currency
FROM postings p JOIN accounts a USING (account_id) WHERE p.currency <> a.currency
