-- Money in and out: deposits, and withdrawals as a state machine whose every step moves the reserved money once.
--   requested ─▶ approved ─▶ paid            player_cash → player_held → payable → provider
--       └────────────┴─────▶ rejected | cancelled          … and back to player_cash

CREATE TABLE casino.deposits (
    transfer_id        bigint PRIMARY KEY REFERENCES casino.transfers,
    provider_reference text NOT NULL UNIQUE,
    player_id          bigint NOT NULL REFERENCES casino.players,
    currency           text NOT NULL REFERENCES casino.currencies,
    amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
    bonus_minor        bigint NOT NULL CHECK (bonus_minor >= 0)
);
CREATE TRIGGER deposits_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON casino.deposits
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();

CREATE FUNCTION casino.deposit(p_key text, p_player_id bigint, p_currency text, p_amount_minor bigint,
                               p_bonus_minor bigint, p_provider_reference text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_posted record;
BEGIN
    SELECT * INTO v_posted FROM casino.post('deposit', p_key,
        concat_ws('|', 'deposit', p_player_id, p_currency, p_amount_minor, p_bonus_minor, p_provider_reference),
        ARRAY[casino.player_account(p_player_id, p_currency, 'player_cash'),
              casino.house_account('provider', p_currency), casino.house_account('bonus', p_currency)],
        ARRAY[p_amount_minor + p_bonus_minor, -p_amount_minor, -p_bonus_minor], NULL,
        jsonb_build_object('reference', p_provider_reference));
    IF NOT v_posted.replayed THEN
        INSERT INTO casino.deposits
        VALUES (v_posted.transfer_id, p_provider_reference, p_player_id, p_currency, p_amount_minor, p_bonus_minor);
    END IF;
    RETURN v_posted.transfer_id;
END $$;

-- Money that the provider took back from a deposit: asked for (refund) or disputed (chargeback). All of it, once.
CREATE TABLE casino.deposit_reversals (
    transfer_id         bigint PRIMARY KEY REFERENCES casino.transfers,
    provider_reference  text NOT NULL UNIQUE, -- the refund's or chargeback's own
    deposit_transfer_id bigint NOT NULL UNIQUE REFERENCES casino.deposits,
    kind                text NOT NULL CHECK (kind IN ('refund', 'chargeback'))
);
CREATE TRIGGER deposit_reversals_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON casino.deposit_reversals
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();

-- The player pays it back; what was played away already is the house's loss, the whole amount then.
CREATE FUNCTION casino.reverse_deposit(p_key text, p_deposit_reference text, p_kind text, p_reversal_reference text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_deposit casino.deposits;
    v_posted record;
    v_payload text := concat_ws('|', 'reverse_deposit', p_deposit_reference, p_kind, p_reversal_reference);
    v_about jsonb := jsonb_build_object('reference', p_reversal_reference, 'deposit', p_deposit_reference);
BEGIN
    SELECT * INTO v_deposit FROM casino.deposits d WHERE d.provider_reference = p_deposit_reference;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'casino: no deposit %', p_deposit_reference USING ERRCODE = 'DR001';
    END IF;
    BEGIN
        SELECT * INTO v_posted FROM casino.post('deposit_reversed', p_key, v_payload,
            ARRAY[casino.player_account(v_deposit.player_id, v_deposit.currency, 'player_cash'),
                  casino.house_account('provider', v_deposit.currency)],
            ARRAY[-v_deposit.amount_minor, v_deposit.amount_minor], NULL, v_about);
    EXCEPTION WHEN check_violation THEN
        SELECT * INTO v_posted FROM casino.post('deposit_reversed', p_key, v_payload,
            ARRAY[casino.house_account('house', v_deposit.currency), casino.house_account('provider', v_deposit.currency)],
            ARRAY[-v_deposit.amount_minor, v_deposit.amount_minor], NULL, v_about);
    END;
    IF NOT v_posted.replayed THEN
        INSERT INTO casino.deposit_reversals
        VALUES (v_posted.transfer_id, p_reversal_reference, v_deposit.transfer_id, p_kind);
    END IF;
    RETURN v_posted.transfer_id;
END $$;

CREATE TABLE casino.withdrawals (
    withdrawal_id      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    player_id          bigint NOT NULL REFERENCES casino.players,
    currency           text NOT NULL REFERENCES casino.currencies,
    amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
    state              text NOT NULL CHECK (state IN ('requested', 'approved', 'paid', 'rejected', 'cancelled')),
    holding_account_id bigint REFERENCES casino.accounts, -- where the money waits; NULL once the hold is released
    last_transfer_id   bigint NOT NULL UNIQUE REFERENCES casino.transfers,
    payout_reference   text UNIQUE, -- the approval's key: what the payment provider is told to pay under
    CONSTRAINT withdrawals_payout_is_approved CHECK (state NOT IN ('approved', 'paid') OR payout_reference IS NOT NULL),
    CONSTRAINT withdrawals_hold_while_open
        CHECK ((state IN ('requested', 'approved')) = (holding_account_id IS NOT NULL))
);
CREATE INDEX withdrawals_open ON casino.withdrawals (holding_account_id) WHERE holding_account_id IS NOT NULL;

-- One row per state a withdrawal has been in, with the transfer that took it there.
CREATE TABLE casino.withdrawal_steps (
    withdrawal_id bigint NOT NULL REFERENCES casino.withdrawals,
    state         text NOT NULL,
    transfer_id   bigint NOT NULL UNIQUE REFERENCES casino.transfers,
    stepped_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (withdrawal_id, state)
);
CREATE UNIQUE INDEX withdrawal_released_once ON casino.withdrawal_steps (withdrawal_id)
    WHERE state IN ('paid', 'rejected', 'cancelled');
CREATE TRIGGER withdrawal_steps_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON casino.withdrawal_steps
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();
CREATE TRIGGER withdrawals_stay BEFORE DELETE OR TRUNCATE ON casino.withdrawals
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();

-- The kind of account that has the money in each state, and the states that may come next.
CREATE FUNCTION casino.check_withdrawal_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_before text := CASE TG_OP WHEN 'UPDATE' THEN OLD.state ELSE '' END;
    v_kind text := CASE NEW.state WHEN 'requested' THEN 'player_held' WHEN 'approved' THEN 'payable'
                                  WHEN 'paid' THEN 'provider' ELSE 'player_cash' END;
BEGIN
    IF (v_before || '>' || NEW.state) NOT IN ('>requested', 'requested>approved', 'requested>rejected',
            'requested>cancelled', 'approved>paid', 'approved>rejected', 'approved>cancelled') THEN
        RAISE EXCEPTION 'casino: a withdrawal cannot go from % to %', coalesce(nullif(v_before, ''), 'nothing'), NEW.state
            USING ERRCODE = 'DR003';
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.withdrawal_id, NEW.player_id, NEW.currency, NEW.amount_minor)
            IS DISTINCT FROM (OLD.withdrawal_id, OLD.player_id, OLD.currency, OLD.amount_minor) THEN
        RAISE EXCEPTION 'casino: withdrawal % keeps its player and amount', OLD.withdrawal_id USING ERRCODE = 'DR003';
    END IF;
    -- The step is only a step if its transfer took exactly this money from where it was to where it belongs now.
    IF NOT EXISTS (SELECT FROM casino.postings p JOIN casino.accounts a USING (account_id)
            WHERE p.transfer_id = NEW.last_transfer_id AND p.amount_minor = NEW.amount_minor AND a.kind = v_kind
              AND (a.player_id IS NULL OR a.player_id = NEW.player_id) AND a.currency = NEW.currency
              AND (NEW.holding_account_id IS NULL OR NEW.holding_account_id = a.account_id))
       OR (TG_OP = 'UPDATE' AND NOT EXISTS (SELECT FROM casino.postings p
            WHERE p.transfer_id = NEW.last_transfer_id AND p.amount_minor = -NEW.amount_minor
              AND p.account_id = OLD.holding_account_id)) THEN
        RAISE EXCEPTION 'casino: transfer % does not take withdrawal % to %', NEW.last_transfer_id, NEW.withdrawal_id,
            NEW.state USING ERRCODE = 'DR003';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_withdrawal_step BEFORE INSERT OR UPDATE ON casino.withdrawals
    FOR EACH ROW EXECUTE FUNCTION casino.check_withdrawal_step();

CREATE FUNCTION casino.record_withdrawal_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO casino.withdrawal_steps (withdrawal_id, state, transfer_id)
    VALUES (NEW.withdrawal_id, NEW.state, NEW.last_transfer_id);
    RETURN NULL;
END $$;

CREATE TRIGGER record_withdrawal_step AFTER INSERT OR UPDATE ON casino.withdrawals
    FOR EACH ROW EXECUTE FUNCTION casino.record_withdrawal_step();

CREATE FUNCTION casino.request_withdrawal(p_key text, p_player_id bigint, p_currency text, p_amount_minor bigint,
                                          OUT transfer_id bigint, OUT withdrawal_id bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_held bigint := casino.player_account(p_player_id, p_currency, 'player_held');
    v_withdrawal bigint := nextval(pg_get_serial_sequence('casino.withdrawals', 'withdrawal_id'));
    v_replayed boolean;
BEGIN
    SELECT p.transfer_id, p.replayed INTO transfer_id, v_replayed
    FROM casino.post('withdrawal_requested', p_key,
        concat_ws('|', 'request_withdrawal', p_player_id, p_currency, p_amount_minor),
        ARRAY[casino.player_account(p_player_id, p_currency, 'player_cash'), v_held],
        ARRAY[-p_amount_minor, p_amount_minor], NULL, jsonb_build_object('withdrawal', v_withdrawal)) p;
    IF v_replayed THEN
        SELECT s.withdrawal_id INTO withdrawal_id FROM casino.withdrawal_steps s
        WHERE s.transfer_id = request_withdrawal.transfer_id;
    ELSE
        INSERT INTO casino.withdrawals (withdrawal_id, player_id, currency, amount_minor, state, holding_account_id,
                                        last_transfer_id)
        OVERRIDING SYSTEM VALUE
        VALUES (v_withdrawal, p_player_id, p_currency, p_amount_minor, 'requested', v_held,
                request_withdrawal.transfer_id);
        withdrawal_id := v_withdrawal;
    END IF;
END $$;

-- Takes a withdrawal one step: p_state is approved, paid, rejected or cancelled.
CREATE FUNCTION casino.step_withdrawal(p_key text, p_withdrawal_id bigint, p_state text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_withdrawal casino.withdrawals;
    v_payload text := concat_ws('|', 'step_withdrawal', p_withdrawal_id, p_state);
    v_transfer bigint;
    v_destination bigint;
BEGIN
    SELECT * INTO v_withdrawal FROM casino.withdrawals w WHERE w.withdrawal_id = p_withdrawal_id FOR UPDATE;
    v_transfer := casino.known_transfer(p_key, v_payload);
    IF v_transfer IS NOT NULL THEN
        RETURN v_transfer;
    END IF;
    IF v_withdrawal.holding_account_id IS NULL THEN
        RAISE EXCEPTION 'casino: withdrawal % is not open (%)', p_withdrawal_id, coalesce(v_withdrawal.state, 'unknown')
            USING ERRCODE = 'DR003';
    END IF;
    v_destination := CASE p_state
        WHEN 'approved' THEN casino.house_account('payable', v_withdrawal.currency)
        WHEN 'paid' THEN casino.house_account('provider', v_withdrawal.currency)
        ELSE casino.player_account(v_withdrawal.player_id, v_withdrawal.currency, 'player_cash') END;
    v_transfer := (casino.post('withdrawal_' || p_state, p_key, v_payload,
        ARRAY[v_withdrawal.holding_account_id, v_destination],
        ARRAY[-v_withdrawal.amount_minor, v_withdrawal.amount_minor], NULL,
        jsonb_build_object('withdrawal', p_withdrawal_id, 'reference',
            CASE p_state WHEN 'approved' THEN p_key ELSE v_withdrawal.payout_reference END))).transfer_id;
    UPDATE casino.withdrawals
    SET state = p_state, last_transfer_id = v_transfer,
        holding_account_id = CASE p_state WHEN 'approved' THEN v_destination END,
        payout_reference = CASE p_state WHEN 'approved' THEN p_key ELSE payout_reference END
    WHERE withdrawal_id = p_withdrawal_id;
    RETURN v_transfer;
END $$;
