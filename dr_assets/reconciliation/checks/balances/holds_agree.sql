-- Reserved money lies where its open holds say, no more and no less; each hold is in its account's currency, and none
-- takes away from another.
-- reads: holds, balances, accounts
WITH held AS (
    SELECT account_id, sum(amount_minor) AS held_minor, count(*) AS holds FROM holds GROUP BY account_id
)
SELECT 'balance_differs_from_holds' AS reason, a.account_id AS account, NULL AS transfer, a.currency,
       b.balance_minor - coalesce(h.held_minor, 0) AS amount_minor,
       'balance ' || b.balance_minor || ', ' || coalesce(h.holds, 0) || ' open hold(s) of '
       || coalesce(h.held_minor, 0) AS detail
FROM accounts a JOIN balances b USING (account_id) LEFT JOIN held h USING (account_id)
WHERE a.holds_money AND b.balance_minor <> coalesce(h.held_minor, 0)
UNION ALL
SELECT 'hold_on_wrong_account', h.account_id, NULL, h.currency, h.amount_minor,
       'hold ' || h.hold_id || ' on ' || coalesce('an account in ' || a.currency, 'no account')
FROM holds h LEFT JOIN accounts a USING (account_id)
WHERE a.account_id IS NULL OR NOT a.holds_money OR a.currency <> h.currency
UNION ALL
SELECT 'hold_not_positive', account_id, NULL, currency, amount_minor, 'hold ' || hold_id
FROM holds WHERE amount_minor <= 0
