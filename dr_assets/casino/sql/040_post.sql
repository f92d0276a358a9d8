-- The one door through which money moves. Everything the casino sells (050, 060) is a call of casino.post.

-- The transfer that already used this key, or NULL; the same key for something else is refused.
CREATE FUNCTION casino.known_transfer(p_key text, p_payload text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_transfer bigint;
    v_hash bytea;
BEGIN
    SELECT t.transfer_id, t.payload_hash INTO v_transfer, v_hash FROM casino.transfers t WHERE t.idempotency_key = p_key;
    IF v_hash <> sha256(convert_to(p_payload, 'UTF8')) THEN
        RAISE EXCEPTION 'casino: idempotency key % was used for another request', p_key USING ERRCODE = 'DR002';
    END IF;
    RETURN v_transfer;
END $$;

-- Posts one transfer and its outbox row. p_payload is the request in words: what the key stands for, and what it has to
-- say again where it is repeated, so the event tells it; p_about names what the transfer belongs to (reference,
-- withdrawal, round).
-- A key seen before posts nothing and gives the first transfer (replayed = true).
CREATE FUNCTION casino.post(p_kind text, p_key text, p_payload text, p_accounts bigint[], p_amounts bigint[],
                            p_reason text, p_about jsonb DEFAULT '{}',
                            OUT transfer_id bigint, OUT replayed boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_transfer bigint;
BEGIN
    INSERT INTO casino.transfers (kind, idempotency_key, payload_hash, reason)
    VALUES (p_kind, p_key, sha256(convert_to(p_payload, 'UTF8')), p_reason)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING transfers.transfer_id INTO v_transfer;
    replayed := NOT FOUND;
    IF replayed THEN
        transfer_id := casino.known_transfer(p_key, p_payload);
        RETURN;
    END IF;
    -- In account order: two transfers over the same accounts queue up instead of deadlocking.
    INSERT INTO casino.postings (transfer_id, account_id, amount_minor)
    SELECT v_transfer, leg.account_id, leg.amount_minor
    FROM unnest(p_accounts, p_amounts) AS leg (account_id, amount_minor)
    WHERE leg.amount_minor IS DISTINCT FROM 0 ORDER BY leg.account_id;
    INSERT INTO casino.outbox (transfer_id, topic, message_key, payload)
    VALUES (v_transfer, 'ledger.' || p_kind,
            (SELECT min(a.player_id)::text FROM casino.accounts a WHERE a.account_id = ANY (p_accounts)),
            p_about || jsonb_build_object('key', p_key, 'request', p_payload, 'accounts', p_accounts,
                                          'amounts_minor', p_amounts));
    transfer_id := v_transfer;
END $$;

-- A manual correction by the back office, with a written reason.
CREATE FUNCTION casino.adjust(p_key text, p_from bigint, p_to bigint, p_amount_minor bigint, p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount_minor <= 0 THEN
        RAISE EXCEPTION 'casino: an adjustment of % minor units', p_amount_minor USING ERRCODE = 'check_violation';
    END IF;
    RETURN (casino.post('adjustment', p_key, concat_ws('|', 'adjust', p_from, p_to, p_amount_minor, p_reason),
                        ARRAY[p_from, p_to], ARRAY[-p_amount_minor, p_amount_minor], p_reason)).transfer_id;
END $$;
