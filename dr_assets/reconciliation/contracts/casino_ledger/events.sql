-- DuckDB over `records` (what topics hold) and the restored ledger's accounts: one row an event, docs/work-list.md says
-- what each column is. The payload: key, request (what the key stands for), accounts and amounts_minor of the legs, the
-- player's account first where there is one, and what the transfer belongs to: reference, withdrawal, round, deposit.
WITH said AS (
    SELECT topic, partition || '/' || record_offset AS place, substr(topic, 8) AS what, message_key, timestamp_us,
           idempotency_key AS header_key, payload::JSON AS said, (payload::JSON -> '$.accounts')::VARCHAR[] AS accounts,
           (payload::JSON -> '$.amounts_minor')::BIGINT[] AS amounts, string_split(payload::JSON ->> '$.request', '|') AS request
    FROM records WHERE starts_with(topic, 'ledger.')
), legs AS (
    SELECT topic, place, unnest(accounts) AS account, unnest(amounts) AS amount_minor FROM said
), played AS (
    SELECT l.topic, l.place, min(l.account) AS account, min(a.player) AS player, sum(l.amount_minor)::BIGINT AS cash_minor
    FROM legs l JOIN ledger_player_accounts a ON a.account = l.account GROUP BY l.topic, l.place
)
SELECT s.topic, s.place, s.what, coalesce(s.said ->> '$.key', s.header_key) AS idempotency_key,
       coalesce(p.player, s.message_key) AS player, p.account,
       -- An account that was opened after the recovery point is unknown now; some requests name their currency.
       coalesce(a.currency, CASE WHEN s.what IN ('deposit', 'bet', 'withdrawal_requested') THEN s.request[3] END) AS currency,
       CASE s.what WHEN 'deposit' THEN -s.amounts[2] ELSE abs(s.amounts[1]) END AS amount_minor, -- a bonus is not paid in
       CASE WHEN s.said IS NOT NULL THEN coalesce(p.cash_minor, 0) END AS cash_minor,
       s.said ->> '$.reference' AS reference,
       coalesce(s.said ->> '$.withdrawal', s.said ->> '$.round', s.said ->> '$.deposit') AS chain,
       s.timestamp_us AS at_us, s.said IS NOT NULL AS says
FROM said s
LEFT JOIN played p ON p.topic = s.topic AND p.place = s.place
LEFT JOIN ledger_accounts a ON a.account = s.accounts[1]
