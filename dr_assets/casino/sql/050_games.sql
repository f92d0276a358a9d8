-- Game rounds: a bet opens one, at most one win settles it; a round without a win is lost.

CREATE TABLE casino.rounds (
    round_id        bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    player_id       bigint NOT NULL REFERENCES casino.players,
    currency        text NOT NULL REFERENCES casino.currencies,
    game            text NOT NULL,
    stake_minor     bigint NOT NULL CHECK (stake_minor > 0),
    bet_transfer_id bigint NOT NULL UNIQUE REFERENCES casino.transfers,
    win_minor       bigint CHECK (win_minor > 0),
    win_transfer_id bigint UNIQUE REFERENCES casino.transfers,
    CHECK ((win_minor IS NULL) = (win_transfer_id IS NULL))
);

-- A settled round stays as it is.
CREATE TRIGGER rounds_settle_once BEFORE UPDATE ON casino.rounds
    FOR EACH ROW WHEN (OLD.win_transfer_id IS NOT NULL) EXECUTE FUNCTION casino.refuse_change();
CREATE TRIGGER rounds_stay BEFORE DELETE OR TRUNCATE ON casino.rounds
    FOR EACH STATEMENT EXECUTE FUNCTION casino.refuse_change();

CREATE FUNCTION casino.bet(p_key text, p_player_id bigint, p_currency text, p_game text, p_stake_minor bigint,
                           OUT transfer_id bigint, OUT round_id bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_replayed boolean;
BEGIN
    SELECT p.transfer_id, p.replayed INTO transfer_id, v_replayed
    FROM casino.post('bet', p_key, concat_ws('|', 'bet', p_player_id, p_currency, p_game, p_stake_minor),
        ARRAY[casino.player_account(p_player_id, p_currency, 'player_cash'), casino.house_account('house', p_currency)],
        ARRAY[-p_stake_minor, p_stake_minor], NULL, jsonb_build_object('round', p_key)) p;
    IF v_replayed THEN
        SELECT r.round_id INTO round_id FROM casino.rounds r WHERE r.bet_transfer_id = bet.transfer_id;
    ELSE
        INSERT INTO casino.rounds (player_id, currency, game, stake_minor, bet_transfer_id)
        VALUES (p_player_id, p_currency, p_game, p_stake_minor, bet.transfer_id)
        RETURNING rounds.round_id INTO round_id;
    END IF;
END $$;

CREATE FUNCTION casino.win(p_key text, p_round_id bigint, p_win_minor bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_round casino.rounds;
    v_transfer bigint;
    v_payload text := concat_ws('|', 'win', p_round_id, p_win_minor);
BEGIN
    SELECT * INTO v_round FROM casino.rounds r WHERE r.round_id = p_round_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'casino: no round %', p_round_id USING ERRCODE = 'DR001';
    END IF;
    v_transfer := casino.known_transfer(p_key, v_payload);
    IF v_transfer IS NOT NULL THEN
        RETURN v_transfer;
    END IF;
    v_transfer := (casino.post('win', p_key, v_payload,
        ARRAY[casino.player_account(v_round.player_id, v_round.currency, 'player_cash'),
              casino.house_account('house', v_round.currency)],
        ARRAY[p_win_minor, -p_win_minor], NULL, jsonb_build_object('round',
            (SELECT t.idempotency_key FROM casino.transfers t WHERE t.transfer_id = v_round.bet_transfer_id)))).transfer_id;
    UPDATE casino.rounds SET win_minor = p_win_minor, win_transfer_id = v_transfer WHERE round_id = p_round_id;
    RETURN v_transfer;
END $$;
