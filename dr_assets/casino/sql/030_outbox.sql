-- What leaves the ledger: the transactional outbox (one row per transfer, in its transaction) and the wallet read model
-- that is projected from it and says up to which posting it is true.

CREATE TABLE casino.outbox (
    transfer_id  bigint PRIMARY KEY REFERENCES casino.transfers,
    topic        text NOT NULL,
    payload      jsonb NOT NULL,
    published_at timestamptz
);
CREATE INDEX outbox_unpublished ON casino.outbox (transfer_id) WHERE published_at IS NULL;

CREATE TABLE casino.wallets (
    account_id    bigint PRIMARY KEY REFERENCES casino.accounts,
    balance_minor bigint NOT NULL,
    sequence      bigint NOT NULL, -- position: the balance after the account's posting with this number
    projected_at  timestamptz NOT NULL DEFAULT now()
);

-- One relay step: publish up to p_limit rows and bring the wallets they touch forward. Returns how many were published.
-- Several relays may run: they skip each other's rows, and a wallet never goes back to an older posting.
-- Planned anew with the limit known: a plan for any limit expects a tenth of the table and reads all postings each time.
CREATE FUNCTION casino.publish_outbox(p_limit bigint) RETURNS bigint
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_published bigint;
BEGIN
    WITH batch AS (
        SELECT o.transfer_id FROM casino.outbox o WHERE o.published_at IS NULL
        ORDER BY o.transfer_id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), published AS (
        UPDATE casino.outbox o SET published_at = clock_timestamp() FROM batch b WHERE o.transfer_id = b.transfer_id
        RETURNING o.transfer_id
    ), newest AS (
        SELECT DISTINCT ON (p.account_id) p.account_id, p.sequence, p.balance_after_minor
        FROM published JOIN casino.postings p USING (transfer_id) JOIN casino.accounts a USING (account_id)
        WHERE a.player_id IS NOT NULL ORDER BY p.account_id, p.sequence DESC
    ), projected AS (
        INSERT INTO casino.wallets AS w (account_id, balance_minor, sequence)
        SELECT n.account_id, n.balance_after_minor, n.sequence FROM newest n ORDER BY n.account_id
        ON CONFLICT (account_id) DO UPDATE
        SET balance_minor = excluded.balance_minor, sequence = excluded.sequence, projected_at = now()
        WHERE w.sequence < excluded.sequence
    )
    SELECT count(*) INTO v_published FROM published;
    RETURN v_published;
END $$;
