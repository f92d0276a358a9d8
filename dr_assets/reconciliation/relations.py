"""The relations that the checks read: their columns and what each must be.

What belongs here: names and types, nothing that runs. What stays out: where they come from (a contract says, or the
caller brings them) and what is demanded of them (checks/ says).
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["id", "text", "minor", "flag", "bytes"]


@dataclass(frozen=True)
class Column:
    """One column a relation must give. `minor` and sequences are whole numbers of 64 bits: never a float or a numeric.

    Moments are `minor` too, `*_us`: microseconds since the epoch. `only_with` names the optional part of a contract
    that makes the column required. A column that is not `nullable` and NULL all the same is a break (`value_missing`).
    """

    name: str
    kind: Kind
    only_with: str | None = None
    nullable: bool = False


def _columns(kinds: str) -> tuple[Column, ...]:
    """Columns written as `name kind, name kind null`."""
    words = [column.split() for column in kinds.split(",")]
    return tuple(Column(name, kind, nullable="null" in rest) for name, kind, *rest in words)  # type: ignore[arg-type]


# What every contract gives. An id may be a whole number or a text, but the same in every relation.
LEDGER: Final[dict[str, tuple[Column, ...]]] = {
    # one row per account; holds_money: its balance is exactly what open holds reserve
    "accounts": (
        Column("account_id", "id"),
        Column("currency", "text"),
        Column("may_go_negative", "flag"),
        Column("holds_money", "flag"),
    ),
    # one row per transfer
    "transfers": (
        Column("transfer_id", "id"),
        Column("idempotency_key", "text"),
        Column("digest", "bytes", only_with="transfer_digest"),
        Column("payload_hash", "bytes", only_with="payload_hash"),
    ),
    # one row per posting; positive raises the balance; sequence counts 1, 2, 3 … within the account
    "postings": (
        Column("account_id", "id"),
        Column("sequence", "minor"),
        Column("transfer_id", "id"),
        Column("currency", "text"),
        Column("amount_minor", "minor"),
        Column("balance_after_minor", "minor"),
        Column("hash", "bytes", only_with="chain"),
    ),
    # one row per account: the balance as stored, and the newest posting it claims to include (0 and empty for none)
    "balances": (
        Column("account_id", "id"),
        Column("balance_minor", "minor"),
        Column("last_sequence", "minor"),
        Column("last_hash", "bytes", only_with="chain"),
    ),
    # one row per open hold: money reserved in an account that holds money
    "holds": (
        Column("hold_id", "id"),
        Column("account_id", "id"),
        Column("currency", "text"),
        Column("amount_minor", "minor"),
    ),
}

# What a contract may give beside: without one, the checks that read it are skipped.
OPTIONAL: Final[dict[str, tuple[Column, ...]]] = {
    # one row per two-phase transfer and time that it was resolved (none: one row of NULLs): what was set aside, and how
    # much of it was posted or voided
    "pendings": _columns(
        "pending_id id, account_id id, currency text, amount_minor minor, resolution text null,"
        " resolved_minor minor null, transfer_id id null, created_us minor"
    ),
    # one row per account and statement period: what it opened and closed with
    "periods": _columns(
        "account_id id, currency text, period minor, opening_minor minor, entries_minor minor, closing_minor minor"
    ),
    # one row per payment that went through a provider: direction in|out, state pending|posted|reversed
    "payments": _columns(
        "payment_id id, reference text, direction text, currency text, amount_minor minor, created_us minor,"
        " transfer_id id null, account_id id, state text"
    ),
    # one row per withdrawal: state requested|approved|paid|rejected|cancelled
    "withdrawals": _columns(
        "withdrawal_id id, account_id id, currency text, amount_minor minor, state text, payout_reference text null,"
        " requested_us minor, state_us minor"
    ),
    # one row per event that is to be published, in the order of `position`
    "outbox": _columns(
        "transfer_id id, position minor, topic text, idempotency_key text, message_key text null, payload text,"
        " created_us minor, published flag"
    ),
    # one row per account of a read model (`model`): what it shows, and the newest posting it has seen
    # (a row of NULLs where the model has none for an account that it ought to show)
    "read_models": _columns(
        "model text, account_id id, balance_minor minor null, sequence minor, projected_us minor null"
    ),
    # one row per player
    "players": _columns(
        "player_id id, created_us minor, closed_us minor null, erased flag, email_consent flag, sms_consent flag,"
        " consent_changed_us minor"
    ),
    # one row per account that a player plays from: read by no check, it says whose a payment or a bet was
    "player_accounts": _columns("account_id id, player_id id, currency text"),
    # one row per contact of the CRM, where it lies in the same database
    "contacts": _columns("player_id id, email_consent flag, sms_consent flag, synced_us minor"),
}

# What outsiders know: brought by the caller, never read from the ledger.
EXTERNAL: Final[dict[str, tuple[Column, ...]]] = {
    # one row per line of a provider's settlement file. gross_minor and net_minor are signed from our account's view:
    # money in is positive; fee_minor is a cost and not negative.
    "provider_lines": _columns(
        "provider text, file text, line minor, reference text, kind text, batch text null, currency text,"
        " gross_minor minor, fee_minor minor, net_minor minor, booked_us minor, settled_us minor null,"
        " original_reference text null"
    ),
    # one row per entry of a bank's statement, signed
    "bank_lines": _columns(
        "account text, statement text, line minor, reference text, currency text, amount_minor minor, booked_us minor,"
        " value_us minor, reversal flag"
    ),
    # one row per record that topics hold
    "records": _columns(
        "topic text, partition minor, record_offset minor, idempotency_key text null, timestamp_us minor,"
        " message_key text null, dead_letter flag, payload_sha256 text null"
    ),
    # one row per partition that was read: its ends, and since when (by the records' own time) all of them are there
    "partitions": _columns("topic text, partition minor, begin_offset minor, end_offset minor, complete_from_us minor"),
    # one row per group, topic and partition
    "group_offsets": _columns(
        "group_name text, topic text, partition minor, committed minor, begin_offset minor, end_offset minor"
    ),
    "contacts": OPTIONAL["contacts"],
}

# One row: the tolerances of the contract and the moment that the books are judged as of (tolerances.py).
SETTINGS: Final[tuple[Column, ...]] = _columns(
    "as_of_us minor, amount_tolerance_minor minor, in_flight_us minor, aged_after_us minor, date_window_us minor,"
    " payout_within_us minor, projection_lag_us minor, crm_lag_us minor, lag_max minor"
)

RELATIONS: Final[dict[str, tuple[Column, ...]]] = LEDGER | OPTIONAL | EXTERNAL

# Texts by which relations of many rows are joined: an engine gives a relation one more column, `<text>_hash`, a whole
# number of 64 bits, NULL for NULL. What a source may have under that name is not taken (decision 0185).
HASHED: Final[dict[str, str]] = {"payments": "reference", "provider_lines": "reference"}
