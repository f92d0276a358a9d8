-- The account knows its newest posting: the same number, and the balance noted there. Catches a chain cut at its end.
-- reads: balances, postings, accounts
WITH numbers AS (
    SELECT account_id, max(sequence) AS sequence FROM postings GROUP BY account_id
), newest AS (
    SELECT p.account_id, p.sequence, p.balance_after_minor, p.transfer_id
    FROM postings p SEMI JOIN numbers n ON p.account_id = n.account_id AND p.sequence = n.sequence
)
SELECT CASE WHEN coalesce(n.sequence, 0) <> b.last_sequence THEN 'newest_posting_missing'
            ELSE 'balance_differs_from_newest_posting' END AS reason,
       b.account_id AS account, n.transfer_id AS transfer, a.currency,
       b.balance_minor::HUGEINT - coalesce(n.balance_after_minor, 0) AS amount_minor,
       'the account is at posting ' || b.last_sequence || ' with ' || b.balance_minor || ', its newest is '
       || coalesce(n.sequence, 0) || ' with ' || coalesce(n.balance_after_minor, 0) AS detail
FROM balances b LEFT JOIN newest n USING (account_id) LEFT JOIN accounts a USING (account_id)
WHERE coalesce(n.sequence, 0) <> b.last_sequence OR coalesce(n.balance_after_minor, 0) <> b.balance_minor
