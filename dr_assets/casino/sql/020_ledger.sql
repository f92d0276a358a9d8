-- The double-entry ledger: transfers, their postings, and what the database itself refuses.
-- Positive amounts raise an account's balance; the postings of a transfer sum to zero in each currency.

CREATE TABLE casino.transfers (
    transfer_id     bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    kind            text NOT NULL CHECK (kind IN (
                        'deposit', 'bet', 'win', 'withdrawal_requested', 'withdrawal_approved', 'withdrawal_paid',
                        'withdrawal_rejected', 'withdrawal_cancelled', 'adjustment', 'deposit_reversed')),
    idempotency_key text NOT NULL CONSTRAINT transfers_idempotency_key UNIQUE CHECK (length(idempotency_key) > 0),
    payload_hash    bytea NOT NULL CHECK (length(payload_hash) = 32), -- of what the key was first used for
    reason          text CHECK (kind <> 'adjustment' OR length(reason) > 0),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    digest          bytea NOT NULL -- SHA-256 of this row, filled in below
);

CREATE TABLE casino.postings (
    account_id          bigint NOT NULL REFERENCES casino.accounts,
    sequence            bigint NOT NULL CHECK (sequence > 0), -- 1, 2, 3 … within the account, without a gap
    transfer_id         bigint NOT NULL REFERENCES casino.transfers,
    currency            text NOT NULL,
    amount_minor        bigint NOT NULL CHECK (amount_minor <> 0),
    balance_after_minor bigint NOT NULL,
    hash                bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (account_id, sequence)
);
CREATE INDEX postings_of_transfer ON casino.postings (transfer_id);

CREATE FUNCTION casino.digest_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.digest := sha256(convert_to(concat_ws('|', NEW.transfer_id, NEW.kind, NEW.idempotency_key,
        encode(NEW.payload_hash, 'hex'), NEW.reason, (extract(epoch FROM NEW.created_at) * 1000000)::bigint), 'UTF8'));
    RETURN NEW;
END $$;

CREATE TRIGGER digest_transfer BEFORE INSERT ON casino.transfers
    FOR EACH ROW EXECUTE FUNCTION casino.digest_transfer();

-- Only the account and the amount are the caller's. Sequence, currency, balance and hash come from the account's row,
-- whose lock orders the postings of an account; the hash covers the account's whole past.
CREATE FUNCTION casino.append_posting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE casino.accounts a
    SET balance_minor = a.balance_minor + NEW.amount_minor,
        last_sequence = a.last_sequence + 1,
        last_hash = sha256(a.last_hash || convert_to(concat_ws('|', a.account_id, a.last_sequence + 1, NEW.transfer_id,
            a.currency, NEW.amount_minor, a.balance_minor + NEW.amount_minor), 'UTF8'))
    WHERE a.account_id = NEW.account_id
    RETURNING a.currency, a.last_sequence, a.balance_minor, a.last_hash
    INTO NEW.currency, NEW.sequence, NEW.balance_after_minor, NEW.hash;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'casino: no account %', NEW.account_id USING ERRCODE = 'DR001';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER append_posting BEFORE INSERT ON casino.postings
    FOR EACH ROW EXECUTE FUNCTION casino.append_posting();

-- Judged at commit, when all postings of a transfer are there; also for a posting added to an older transfer.
CREATE FUNCTION casino.require_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_currency text;
    v_sum numeric;
BEGIN
    SELECT p.currency, sum(p.amount_minor) INTO v_currency, v_sum FROM casino.postings p
    WHERE p.transfer_id = NEW.transfer_id GROUP BY p.currency HAVING sum(p.amount_minor) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'casino: transfer % is out of balance by % minor units of %', NEW.transfer_id, v_sum, v_currency
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_balanced';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transfer_balanced AFTER INSERT ON casino.postings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION casino.require_balanced();

CREATE FUNCTION casino.require_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM casino.postings p WHERE p.transfer_id = NEW.transfer_id) THEN
        RAISE EXCEPTION 'casino: transfer % moves nothing', NEW.transfer_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_has_postings';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transfer_has_postings AFTER INSERT ON casino.transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION casino.require_postings();

CREATE FUNCTION casino.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'casino: % on % refused: what is written there stays', TG_OP, TG_TABLE_NAME USING ERRCODE = 'DR004';
END $$;

CREATE TRIGGER transfers_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON casino.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();
CREATE TRIGGER postings_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON casino.postings
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();
CREATE TRIGGER accounts_stay BEFORE DELETE OR TRUNCATE ON casino.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();
-- At depth 0 the statement is somebody's own; only append_posting changes an account (from depth 1).
CREATE TRIGGER accounts_change_by_posting BEFORE UPDATE ON casino.accounts
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION casino.refuse_change();
-- A new account starts empty: money only ever arrives by a posting.
CREATE TRIGGER accounts_start_empty BEFORE INSERT ON casino.accounts
    FOR EACH ROW WHEN (NEW.balance_minor <> 0 OR NEW.last_sequence <> 0 OR length(NEW.last_hash) <> 0)
    EXECUTE FUNCTION casino.refuse_change();
