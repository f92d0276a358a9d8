-- What marketing knows of a player, in a system of its own in the real world: it follows what players say (010).
-- Personal data: the fields the erasure of a person must reach.

CREATE TABLE casino.crm_contacts (
    player_id     bigint PRIMARY KEY REFERENCES casino.players,
    full_name     text NOT NULL,
    email         text NOT NULL UNIQUE,
    phone         text,
    email_consent boolean NOT NULL DEFAULT false,
    sms_consent   boolean NOT NULL DEFAULT false,
    synced_at     timestamptz NOT NULL DEFAULT now(), -- what the player had said by then is in here
    CHECK (phone IS NOT NULL OR NOT sms_consent)
);

-- A player changes their mind; false where nobody is left to do so. Consent to text messages needs a number.
CREATE FUNCTION casino.change_consent(p_player_id bigint, p_email boolean, p_sms boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE casino.players p
    SET email_consent = p_email, sms_consent = p_sms AND c.phone IS NOT NULL, consent_changed_at = clock_timestamp()
    FROM casino.crm_contacts c
    WHERE p.player_id = p_player_id AND c.player_id = p.player_id AND NOT p.erased;
    RETURN FOUND;
END $$;

-- One step of the sync: contacts whose player said something since; returns how many it brought up to date.
CREATE FUNCTION casino.sync_contacts(p_limit bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_synced bigint;
BEGIN
    WITH behind AS (
        SELECT p.player_id, p.email_consent, p.sms_consent, p.consent_changed_at
        FROM casino.players p JOIN casino.crm_contacts c USING (player_id)
        WHERE p.consent_changed_at > c.synced_at ORDER BY p.player_id LIMIT p_limit
    )
    UPDATE casino.crm_contacts c
    SET email_consent = b.email_consent, sms_consent = b.sms_consent, synced_at = b.consent_changed_at
    FROM behind b WHERE c.player_id = b.player_id;
    GET DIAGNOSTICS v_synced = ROW_COUNT;
    RETURN v_synced;
END $$;
