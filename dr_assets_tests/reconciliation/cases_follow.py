"""Planted breaks in what follows the ledger: outbox, topics, read models, the CRM."""

# ruff: noqa: ISC004, S608 - statements are put together from names of this file

from typing import Final

from dr_assets_tests.reconciliation.case import Broken, Case

# A published event, old enough, and its record.
_EVENT: Final = """
    SELECT o.transfer_id AS transfer, o.idempotency_key AS reference, o.topic, r.partition, r.record_offset,
           o.message_key
    FROM outbox o JOIN records r USING (topic, idempotency_key)
    WHERE o.published AND old(o.created_us) AND o.topic = 'ledger.bet' ORDER BY o.position LIMIT 1
"""
_RECORD: Final = "WHERE idempotency_key = $reference"

OUTBOX: Final = (
    Case(
        "missing", "a published event is in no topic", _EVENT,
        (f"DELETE FROM records {_RECORD}",),
        Broken("outbox/published", "record_missing", reference="reference", transfer="transfer"),
    ),
    Case(
        "late", "an event was never published", _EVENT,
        (f"UPDATE outbox SET published = false {_RECORD}", f"DELETE FROM records {_RECORD}"),
        Broken("outbox/published", "not_published", reference="reference", transfer="transfer"),
    ),
    Case(
        "duplicate", "an event was published twice", _EVENT,
        (f"INSERT INTO records SELECT * REPLACE (record_offset + 1000000 AS record_offset) FROM records {_RECORD}",),
        Broken("outbox/once", "record_repeated", reference="reference", transfer="transfer"),
    ),
    Case(
        "altered", "a record says something else than its outbox row", _EVENT,
        (f"UPDATE records SET payload_sha256 = sha256('forged') {_RECORD}",),
        Broken("outbox/same", "payload_differs", reference="reference", transfer="transfer"),
    ),
    Case(
        "missing", "a record's value is gone, its key is there", _EVENT,
        (f"UPDATE records SET payload_sha256 = NULL {_RECORD}",),
        Broken("outbox/same", "payload_missing", reference="reference", transfer="transfer"),
    ),
    Case(
        "swapped accounts", "a record lies under another player's key", _EVENT,
        (f"UPDATE records SET message_key = '-1' {_RECORD}",),
        Broken("outbox/same", "message_key_differs", reference="reference", transfer="transfer"),
    ),
    Case(
        "wrong place", "a record is in another topic", _EVENT,
        (f"UPDATE records SET topic = 'ledger.win', record_offset = record_offset + 1000000 {_RECORD}",),
        Broken("outbox/same", "topic_differs", reference="reference", transfer="transfer"),
        (Broken("outbox/published", "record_missing", reference="reference"),),
    ),
    Case(
        "out of order", "two events of one player's account lie in their topic the wrong way round",
        """SELECT x.idempotency_key AS first, y.idempotency_key AS second, y.transfer_id AS transfer,
                  r.record_offset AS first_offset, s.record_offset AS second_offset
           FROM outbox x
           JOIN outbox y ON y.topic = x.topic AND y.message_key = x.message_key AND y.position > x.position
           JOIN records r ON r.idempotency_key = x.idempotency_key
           JOIN records s ON s.idempotency_key = y.idempotency_key
           JOIN postings p ON p.transfer_id = x.transfer_id JOIN postings q ON q.transfer_id = y.transfer_id
                AND q.account_id = p.account_id AND q.sequence > p.sequence
           JOIN accounts a ON a.account_id = p.account_id AND NOT a.may_go_negative
           WHERE x.topic = 'ledger.bet' AND NOT EXISTS (SELECT 1 FROM outbox z WHERE z.topic = x.topic
                 AND z.message_key = x.message_key AND z.position > x.position AND z.position < y.position)
           ORDER BY x.position LIMIT 1""",
        (
            "UPDATE records SET record_offset = CASE idempotency_key WHEN $first THEN $second_offset"
            " ELSE $first_offset END WHERE idempotency_key IN ($first, $second)",
        ),
        Broken("outbox/in_order", "order_violated", reference="first"),
    ),
    Case(
        "missing", "an event's outbox row, its record is there", _EVENT,
        (f"DELETE FROM outbox {_RECORD}",),
        Broken("outbox/rows", "outbox_row_missing", reference="reference", transfer="transfer"),
    ),
)  # fmt: skip

_PLACE: Final = """
    SELECT group_name AS reference, topic, partition, end_offset, begin_offset FROM group_offsets
    WHERE end_offset > 10 ORDER BY topic, partition LIMIT 1
"""
_AT: Final = "WHERE group_name = $reference AND topic = $topic AND partition = $partition"

QUEUES: Final = (
    Case(
        "missing", "a record of a transfer that the ledger does not have", _EVENT,
        ("INSERT INTO records SELECT * REPLACE ('of nobody' AS idempotency_key, record_offset + 1000000 AS"
         f" record_offset) FROM records {_RECORD}",),
        Broken("queues/entries", "record_without_entry"),
    ),
    Case(
        "missing", "a transfer with neither outbox row nor record", _EVENT,
        (f"DELETE FROM outbox {_RECORD}", f"DELETE FROM records {_RECORD}"),
        Broken("queues/entries", "entry_without_event", reference="reference", transfer="transfer"),
    ),
    Case(
        "altered", "a record without an idempotency key", _EVENT,
        ("INSERT INTO records SELECT * REPLACE (NULL AS idempotency_key, record_offset + 1000000 AS record_offset)"
         f" FROM records {_RECORD}",),
        Broken("queues/entries", "record_without_key"),
    ),
    Case(
        "out of range", "a group's place lies beyond the end of its partition", _PLACE,
        (f"UPDATE group_offsets SET committed = end_offset + 5 {_AT}",),
        Broken("queues/positions", "committed_beyond_end", reference="reference"),
    ),
    Case(
        "out of range", "a group's place lies before the beginning of its partition", _PLACE,
        (f"UPDATE group_offsets SET begin_offset = 7, committed = 3 {_AT}",),
        Broken("queues/positions", "committed_below_begin", reference="reference"),
    ),
    Case(
        "late", "a group is too far behind", _PLACE,
        (f"UPDATE group_offsets SET end_offset = end_offset + 5000 {_AT}",),
        Broken("queues/positions", "lag", reference="reference"),
    ),
    Case(
        "given up", "a consumer put a record aside", _EVENT,
        ("INSERT INTO records SELECT * REPLACE ('ledger.bet.dlq' AS topic, true AS dead_letter)"
         f" FROM records {_RECORD}",),
        Broken("queues/dead_letters", "dead_letters"),
    ),
)  # fmt: skip

# A wallet, an old posting of its account that is not the newest, and somebody else's wallet.
_WALLET: Final = """
    SELECT m.account_id AS account, a.currency, m.balance_minor AS balance, -2 * m.balance_minor AS turned, 1 AS cent,
           p.sequence AS earlier, p.balance_after_minor AS earlier_balance, m.balance_minor AS amount,
           n.account_id AS other, n.balance_minor AS other_balance
    FROM read_models m JOIN accounts a USING (account_id)
    JOIN postings p ON p.account_id = m.account_id AND p.sequence < m.sequence
    JOIN postings q ON q.account_id = m.account_id AND q.sequence = p.sequence + 1
    JOIN outbox o ON o.transfer_id = q.transfer_id AND old(o.created_us)
    JOIN read_models n ON n.account_id > m.account_id AND n.balance_minor <> m.balance_minor
    WHERE m.balance_minor > 0 ORDER BY 1, p.sequence, n.account_id LIMIT 1
"""
_SHOWN: Final = "WHERE account_id = $account"

READ_MODELS: Final = (
    Case(
        "off by one cent", "a wallet", _WALLET,
        (f"UPDATE read_models SET balance_minor = balance_minor + 1 {_SHOWN}",),
        Broken("read_models/rebuilt", "value_differs", "cent", account="account", currency="currency"),
    ),
    Case(
        "sign error", "a wallet", _WALLET,
        (f"UPDATE read_models SET balance_minor = -balance_minor {_SHOWN}",),
        Broken("read_models/rebuilt", "value_differs", "turned", account="account"),
    ),
    Case(
        "swapped accounts", "two wallets show each other's balance", _WALLET,
        (
            f"UPDATE read_models SET balance_minor = $other_balance {_SHOWN}",
            "UPDATE read_models SET balance_minor = $balance WHERE account_id = $other",
        ),
        Broken("read_models/rebuilt", "value_differs", count=2),
    ),
    Case(
        "missing", "a wallet has no row", _WALLET,
        (f"UPDATE read_models SET balance_minor = NULL, sequence = 0, projected_us = NULL {_SHOWN}",),
        Broken("read_models/up_to_date", "missing_row", account="account"),
    ),
    Case(
        "wrong account", "a wallet of an account that the ledger lacks", _WALLET,
        (f"INSERT INTO read_models SELECT * REPLACE (-1 AS account_id) FROM read_models {_SHOWN}",),
        Broken("read_models/rebuilt", "extra_row", "amount"),
    ),
    Case(
        "duplicate", "a wallet is shown twice", _WALLET,
        (f"INSERT INTO read_models SELECT * FROM read_models {_SHOWN}",),
        Broken("read_models/rebuilt", "row_repeated", account="account"),
    ),
    Case(
        "late", "a wallet has missed the newest posting", _WALLET,
        (f"UPDATE read_models SET balance_minor = $earlier_balance, sequence = $earlier {_SHOWN}",),
        Broken("read_models/up_to_date", "behind", account="account"),
    ),
    Case(
        "out of range", "a wallet claims postings that the ledger has not", _WALLET,
        (f"UPDATE read_models SET sequence = sequence + 100 {_SHOWN}",),
        Broken("read_models/rebuilt", "position_beyond_ledger", account="account"),
    ),
)  # fmt: skip

_PERSON: Final = """
    SELECT p.player_id AS player, p.player_id::VARCHAR AS reference, c.synced_us + 1 AS left_us,
           q.player_id AS other, q.player_id::VARCHAR AS other_reference
    FROM players p JOIN contacts c USING (player_id), players q JOIN contacts d ON d.player_id = q.player_id
    WHERE old(p.consent_changed_us) AND old(q.consent_changed_us) AND {} ORDER BY 1, 3 LIMIT 1
"""
_SAID_NO: Final = _PERSON.format("NOT p.email_consent AND q.email_consent AND p.sms_consent = q.sms_consent")
_SAID_YES: Final = _PERSON.format("p.email_consent AND q.player_id <> p.player_id")
_WHO: Final = "WHERE player_id = $player"

CRM: Final = (
    Case(
        "altered", "the CRM writes to somebody who said no", _SAID_NO,
        (f"UPDATE contacts SET email_consent = true {_WHO}",),
        Broken("crm/consents", "consent_withdrawn", reference="reference"),
    ),
    Case(
        "late", "the CRM has not heard of a consent", _SAID_YES,
        (f"UPDATE contacts SET email_consent = false {_WHO}",),
        Broken("crm/consents", "consent_missing", reference="reference"),
    ),
    Case(
        "swapped accounts", "two contacts bear each other's consents", _SAID_NO,
        (
            f"UPDATE contacts SET email_consent = true {_WHO}",
            "UPDATE contacts SET email_consent = false WHERE player_id = $other",
        ),
        Broken("crm/consents", "consent_withdrawn", reference="reference"),
        (Broken("crm/consents", "consent_missing", reference="other_reference"),),
    ),
    Case(
        "missing", "a player has no contact", _SAID_YES,
        (f"DELETE FROM contacts {_WHO}",),
        Broken("crm/contacts", "contact_missing", reference="reference"),
    ),
    Case(
        "wrong account", "a contact of nobody", _SAID_YES,
        (f"INSERT INTO contacts SELECT * REPLACE (-1 AS player_id) FROM contacts {_WHO}",),
        Broken("crm/contacts", "contact_of_nobody"),
    ),
    Case(
        "duplicate", "two contacts of one player", _SAID_YES,
        (f"INSERT INTO contacts SELECT * FROM contacts {_WHO}",),
        Broken("crm/contacts", "contact_repeated", reference="reference"),
    ),
    Case(
        "erased", "a person who was erased is back in the CRM", _SAID_YES,
        (f"UPDATE players SET erased = true, email_consent = false, sms_consent = false {_WHO}",),
        Broken("crm/contacts", "erased_person_present", reference="reference"),
    ),
    Case(
        "late", "the CRM does not know that a player has left", _SAID_YES,
        (f"UPDATE players SET closed_us = $left_us {_WHO}",),
        Broken("crm/contacts", "closing_unknown", reference="reference"),
    ),
)  # fmt: skip
