-- One row per operation that was lost, with all that a rule may ask: rules.yaml lists the columns and what they mean.

CREATE TABLE grouped AS
SELECT op, split_part(op, '|', 1) AS what,
       max(idempotency_key) FILTER (source = 'topic') AS topic_key,
       max(idempotency_key) FILTER (source = 'game') AS game_key,
       max(reference) AS reference, max(chain) AS chain,
       max(player) AS player, max(account) AS account, max(currency) AS currency,
       count(DISTINCT currency) > 1 AS currencies_differ,
       sum(amount_minor) FILTER (source = 'provider' AND told <> 'undone') AS provider_minor,
       coalesce(sum(times) FILTER (source = 'provider' AND told <> 'undone'), 0) AS provider_times,
       max(amount_minor) FILTER (told = 'undone') AS undone_minor,
       max(amount_minor) FILTER (source = 'game') AS game_minor,
       max(amount_minor) FILTER (source = 'topic') AS topic_minor,
       count(DISTINCT amount_minor) FILTER (source = 'game') > 1
           OR count(DISTINCT amount_minor) FILTER (source = 'topic') > 1 AS source_differs,
       max(cash_minor) FILTER (source = 'topic') AS topic_cash_minor,
       min(at_us) AS at_us, max(at_us) AS last_us,
       bool_or(source = 'provider') AS by_provider, bool_or(source = 'game') AS by_game,
       bool_or(source = 'topic') AS by_topic, bool_or(told = 'silent') AS is_silent,
       bool_or(told IN ('captured', 'executed')) AS captured, bool_or(told = 'undone') AS undone,
       bool_or(told = 'charged_back') AS charged_back,
       -- The last word counts where a game says more than one: a bet that was acknowledged, then voided.
       arg_max(told, (at_us, told)) FILTER (source = 'game') AS game_told,
       list_sort(list(DISTINCT place)) AS sources
FROM claims SEMI JOIN (SELECT op FROM handled_ops WHERE handled IS NULL) USING (op)
GROUP BY op;

-- Money that the provider took back and that no ledger ever posted: by the deposit it was taken from.
CREATE TABLE open_reversals AS
SELECT chain AS deposit, bool_or(charged_back) AS charged_back
FROM grouped WHERE what = 'deposit_reversed' AND NOT by_topic AND NOT undone AND op NOT IN (FROM ops_there)
GROUP BY chain;

-- Whose it is, by what anybody says of the same withdrawal, deposit or account.
CREATE TABLE chain_players AS
SELECT kind, chain, max(player) AS player FROM (
    SELECT 'withdrawal' AS kind, w.withdrawal AS chain, pa.player
    FROM ledger_withdrawals w JOIN ledger_player_accounts pa ON pa.account = w.account
    UNION ALL
    SELECT 'withdrawal', chain, player FROM events WHERE starts_with(what, 'withdrawal_')
    UNION ALL
    SELECT 'deposit', p.reference, pa.player
    FROM ledger_payments p JOIN ledger_player_accounts pa ON pa.account = p.account WHERE p.direction = 'in'
    UNION ALL
    SELECT 'deposit', reference, player FROM events WHERE what = 'deposit'
) WHERE chain IS NOT NULL AND player IS NOT NULL GROUP BY kind, chain;

CREATE TABLE people AS
SELECT g.op, coalesce(g.player, a.player, c.player) AS player
FROM grouped g
LEFT JOIN ledger_player_accounts a ON a.account = g.account
LEFT JOIN chain_players c ON c.kind = CASE WHEN g.what LIKE 'withdrawal_%' THEN 'withdrawal' ELSE 'deposit' END
    AND c.chain = CASE g.what WHEN 'deposit' THEN g.reference ELSE g.chain END;

-- The step before each: on this list (`needs`), or in the restored ledger.
CREATE TABLE steps AS
SELECT g.op, CASE g.what
           WHEN 'win' THEN bet.op
           WHEN 'deposit_reversed' THEN deposit.op
           WHEN 'withdrawal_approved' THEN requested.op
           WHEN 'withdrawal_paid' THEN approved.op
           WHEN 'withdrawal_rejected' THEN coalesce(approved.op, requested.op)
           WHEN 'withdrawal_cancelled' THEN coalesce(approved.op, requested.op) END AS needs,
       w.state AS withdrawal_state,
       CASE g.what
           WHEN 'win' THEN g.chain IN (SELECT idempotency_key FROM ledger_keys)
           WHEN 'deposit_reversed' THEN g.chain IN (SELECT reference FROM ledger_payments WHERE direction = 'in')
           WHEN 'withdrawal_approved' THEN w.state = 'requested'
           WHEN 'withdrawal_paid' THEN w.state = 'approved'
           WHEN 'withdrawal_rejected' THEN w.state IN ('requested', 'approved')
           WHEN 'withdrawal_cancelled' THEN w.state IN ('requested', 'approved')
           ELSE true END AS step_in_ledger,
       paid.op IS NOT NULL AS payout_executed
FROM grouped g
LEFT JOIN ledger_withdrawals w ON w.withdrawal = g.chain AND g.what LIKE 'withdrawal_%'
LEFT JOIN (SELECT op FROM grouped WHERE what = 'bet') bet ON bet.op = 'bet|' || g.chain
LEFT JOIN (SELECT op FROM grouped WHERE what = 'deposit') deposit ON deposit.op = 'deposit|' || g.chain
LEFT JOIN (SELECT chain, min(op) AS op FROM grouped WHERE what = 'withdrawal_requested' GROUP BY chain) requested
    ON requested.chain = g.chain AND g.what LIKE 'withdrawal_%'
LEFT JOIN (SELECT chain, min(op) AS op FROM grouped WHERE what = 'withdrawal_approved' GROUP BY chain) approved
    ON approved.chain = g.chain AND g.what LIKE 'withdrawal_%'
LEFT JOIN (SELECT op FROM grouped WHERE what = 'withdrawal_paid' AND captured AND NOT undone) paid
    ON paid.op = 'withdrawal_paid|' || g.chain AND g.what LIKE 'withdrawal_%';

CREATE TABLE cases AS
SELECT g.op, g.what, g.reference, g.chain, g.currency, g.at_us, g.last_us, g.sources, g.by_provider, g.by_game,
       g.by_topic, g.is_silent, g.captured, g.undone, g.charged_back, g.game_told, g.provider_times,
       p.player, coalesce(g.account, cash.account) AS account,
       coalesce(g.topic_key, g.game_key, 'work-list/' || g.what || '/' || coalesce(g.reference, g.op)) AS idempotency_key,
       coalesce(g.topic_minor, g.game_minor, g.provider_minor, g.undone_minor)::HUGEINT AS amount_minor,
       g.provider_minor, g.game_minor, g.topic_minor,
       g.source_differs OR coalesce(g.provider_minor <> g.topic_minor, false)
           OR coalesce(g.game_minor <> g.topic_minor, false) AS amounts_differ,
       g.currencies_differ, g.currency IN (SELECT currency FROM ledger_accounts) AS currency_known,
       -- What a replay does to the account that the player plays from.
       coalesce(g.topic_cash_minor, CASE g.what
           WHEN 'deposit' THEN g.provider_minor WHEN 'win' THEN g.game_minor WHEN 'bet' THEN -g.game_minor
           ELSE 0 END, 0)::HUGEINT AS cash_minor,
       cash.account AS cash_account,
       coalesce(lp.erased, false) AS player_erased, coalesce(lp.closed, false) AS player_closed,
       r.deposit IS NOT NULL AS taken_back, coalesce(r.charged_back, false) AS taken_by_chargeback,
       coalesce(p.player IN (
           SELECT player FROM chain_players c JOIN open_reversals o ON o.deposit = c.chain
           WHERE c.kind = 'deposit' AND o.charged_back), false) AS player_charged_back,
       s.withdrawal_state, coalesce(s.withdrawal_state IN ('paid', 'rejected', 'cancelled'), false) AS withdrawal_ended,
       s.needs, coalesce(s.step_in_ledger, false) OR s.needs IS NOT NULL AS step_before_known, s.payout_executed,
       g.op IN (FROM ops_there) AS in_ledger,
       w.game_given,
       coalesce(g.at_us <= w.provider_until_us, false) AS provider_covers,
       coalesce(g.at_us <= w.game_until_us, false) AS game_covers
FROM grouped g
JOIN people p ON p.op = g.op
JOIN steps s ON s.op = g.op
CROSS JOIN settings w
LEFT JOIN ledger_player_accounts cash ON cash.player = p.player AND cash.currency = g.currency
LEFT JOIN ledger_players lp ON lp.player = p.player
LEFT JOIN open_reversals r ON g.what = 'deposit' AND r.deposit = g.reference;
