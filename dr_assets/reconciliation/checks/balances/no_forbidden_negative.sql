-- Nobody owes what they may not: neither now nor at any posting.
-- reads: balances, accounts, postings
SELECT 'forbidden_negative' AS reason, b.account_id AS account, NULL AS transfer, a.currency,
       b.balance_minor AS amount_minor, 'the balance' AS detail
FROM balances b JOIN accounts a USING (account_id) WHERE b.balance_minor < 0 AND NOT a.may_go_negative
UNION ALL
SELECT 'forbidden_negative', p.account_id, p.transfer_id, p.currency, p.balance_after_minor, 'after posting ' || p.sequence
FROM postings p JOIN accounts a USING (account_id) WHERE p.balance_after_minor < 0 AND NOT a.may_go_negative
