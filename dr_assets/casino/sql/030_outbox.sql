-- What leaves the ledger: the transactional outbox (one row per transfer, in its transaction) and the wallet read model
-- that is projected from it and says up to which posting it is true.

CREATE TABLE casino.outbox (
    transfer_id  bigint PRIMARY KEY REFERENCES casino.transfers,
    -- The order to publish in. Taken while the transfer's accounts are locked, so that of two transfers over one account
    -- the earlier has the lower number; it has gaps.
    position     bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    topic        text NOT NULL,
    message_key  text, -- the player's number: one player's events stay in order
    payload      jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz
);
CREATE INDEX outbox_unpublished ON casino.outbox (position) WHERE published_at IS NULL;

CREATE TABLE casino.wallets (
    account_id    bigint PRIMARY KEY REFERENCES casino.accounts,
    balance_minor bigint NOT NULL,
    sequence      bigint NOT NULL, -- position: the balance after the account's posting with this number
    projected_at  timestamptz NOT NULL DEFAULT now()
);

-- What a relay takes in hand: the oldest rows that nobody published, held until its transaction ends, and whose they are.
-- Several relays may run: they skip each other's rows. Planned anew with the limit known: a plan for any limit expects a
-- tenth of the table.
CREATE FUNCTION casino.take_outbox(p_limit bigint)
RETURNS TABLE (transfer_id bigint, topic text, idempotency_key text, player_id bigint, payload text)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT o.transfer_id, o.topic, o.payload ->> 'key', o.message_key::bigint, o.payload::text
    FROM casino.outbox o WHERE o.published_at IS NULL
    ORDER BY o.position LIMIT p_limit FOR UPDATE SKIP LOCKED
$$;

-- They are out: marks those of them that nobody marked, brings the wallets they touch forward, returns how many it were.
-- A wallet never goes back to an older posting.
CREATE FUNCTION casino.mark_published(p_transfers bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_published bigint;
BEGIN
    WITH published AS (
        UPDATE casino.outbox o SET published_at = clock_timestamp()
        WHERE o.transfer_id = ANY (p_transfers) AND o.published_at IS NULL
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

-- One step of a relay without a broker: nobody listens, and the wallets come forward.
CREATE FUNCTION casino.publish_outbox(p_limit bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT casino.mark_published(ARRAY(SELECT transfer_id FROM casino.take_outbox(p_limit)))
$$;
