-- Every account that the wallets ought to show, and every wallet there is.
SELECT 'wallets' AS model, coalesce(w.account_id, a.account_id) AS account_id, w.balance_minor,
       coalesce(w.sequence, 0) AS sequence, (extract(epoch FROM w.projected_at) * 1000000)::bigint AS projected_us
FROM (SELECT account_id FROM casino.accounts WHERE player_id IS NOT NULL) a
FULL JOIN casino.wallets w USING (account_id)
