"""The relations that the checks read: their columns and what each must be.

What belongs here: names and types, nothing that runs. What stays out: where they come from (a contract says) and what
is demanded of them (checks/ says).
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["id", "text", "minor", "flag", "bytes"]


@dataclass(frozen=True)
class Column:
    """One column a contract must give. `minor` and sequences are whole numbers of 64 bits: never a float or a numeric.

    `only_with` names the optional part of a contract that makes the column required.
    """

    name: str
    kind: Kind
    only_with: str | None = None


# An id may be a whole number or a text, but the same in every relation.
RELATIONS: Final[dict[str, tuple[Column, ...]]] = {
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
