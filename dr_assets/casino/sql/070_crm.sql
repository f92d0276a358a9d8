-- What marketing knows of a player. Personal data: the fields the erasure of a person must reach.

CREATE TABLE casino.crm_contacts (
    player_id          bigint PRIMARY KEY REFERENCES casino.players,
    full_name          text NOT NULL,
    email              text NOT NULL UNIQUE,
    phone              text,
    email_consent      boolean NOT NULL DEFAULT false,
    sms_consent        boolean NOT NULL DEFAULT false,
    consent_changed_at timestamptz NOT NULL DEFAULT now(),
    CHECK (phone IS NOT NULL OR NOT sms_consent)
);
