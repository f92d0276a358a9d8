"""Both sides of the comparison, made by arithmetic from a row's number, and what is planted between them.

What belongs here: the statements that make them. What stays out: running them (rig.py).

Posting i is a leg of transfer i/2: a payment in on even numbers, the same amount out again on odd ones, each with a
reference of its own. A second lies between two postings. The file has them in another order, which is random to a join.
"""

from dataclasses import dataclass
from typing import Final

BASE_US: Final = 1_700_000_000_000_000
STRIDE: Final = 6_700_417  # a prime: multiplying by it walks through all numbers in an order of no meaning
_EVERY: Final = 10_007
YOUNG: Final = 20_000  # the newest postings, which the file doesn't have yet
_ACCOUNTS: Final = 100_000

_REFERENCE: Final = "'ch_' || substr(md5(CAST({i} AS VARCHAR)), 1, 24)"
_SIZE: Final = "100 + ({i} // 2) * 7919 % 100000"
_CURRENCY: Final = "(['EUR', 'USD', 'GBP', 'JPY'])[CAST(1 + ({i} // 2) % 4 AS INTEGER)]"


@dataclass(frozen=True)
class Books:
    """`rows` postings and about as many lines."""

    rows: int

    @property
    def as_of_us(self) -> int:
        """The moment that the books are judged at: that of the newest posting."""
        return BASE_US + self.rows * 1_000_000

    @property
    def planted(self) -> dict[str, int]:
        """How many breaks of each reason lie between the two sides."""
        last = self.rows - 400_000
        each = {name: len(range(at, max(at, last), _EVERY)) for name, at in _AT.items()}
        strangers = range(_AT["strangers"], max(_AT["strangers"], last), _EVERY)
        even = sum(1 for number in strangers if number % 2 == 0)
        return {
            "amount_differs": each["amount"],
            "missing_at_provider": each["missing"],
            "settled_twice": each["twice"],
            "currency_differs": each["currency"],
            "payment_not_posted": even,
            "refund_not_posted": len(strangers) - even,
        }

    def postgres(self) -> list[str]:
        """Statements that fill a Postgres database."""
        return [
            "CREATE SCHEMA bench",
            "CREATE UNLOGGED TABLE bench.accounts (account_id bigint, currency text)",
            """CREATE UNLOGGED TABLE bench.postings (posting_id bigint, transfer_id bigint, account_id bigint,
                   sequence bigint, currency text, amount_minor bigint, balance_after_minor bigint, reference text,
                   created_us bigint)""",
            f"""INSERT INTO bench.accounts SELECT n, (ARRAY['EUR', 'USD', 'GBP', 'JPY'])[1 + n % 4]
                FROM generate_series(0, {min(_ACCOUNTS, self.rows // 2) - 1}) AS n""",  # noqa: S608 - numbers of ours
            f"""INSERT INTO bench.postings
                SELECT i, i / 2, i / 2 % {_ACCOUNTS}, i / 2 / {_ACCOUNTS} * 2 + 1 + i % 2,
                       (ARRAY['EUR', 'USD', 'GBP', 'JPY'])[1 + i / 2 % 4], (1 - i % 2 * 2) * size, (1 - i % 2) * size,
                       'ch_' || substr(md5(i::text), 1, 24), {BASE_US} + i * 1000000
                FROM generate_series(0::bigint, {self.rows - 1}) AS i,
                     LATERAL (SELECT 100 + i / 2 * 7919 % 100000 AS size) AS sized""",  # noqa: S608 - numbers of ours
            "ANALYZE bench.postings",
        ]

    def payments(self) -> str:
        """The ledger's side as DuckDB makes it, for books that no Postgres holds."""
        return f"""SELECT i AS payment_id, {_REFERENCE.format(i="i")} AS reference,
                          CASE WHEN i % 2 = 0 THEN 'in' ELSE 'out' END AS direction,
                          {_CURRENCY.format(i="i")} AS currency,
                          {_SIZE.format(i="i")} AS amount_minor, {BASE_US} + i * 1000000 AS created_us,
                          i // 2 AS transfer_id, i // 2 % {_ACCOUNTS} AS account_id, 'posted' AS state
                   FROM range({self.rows}) AS t(i)"""  # noqa: S608 - numbers of ours

    def lines(self) -> str:
        """The provider's side in DuckDB, with every planted break."""
        number = f"(j * {STRIDE}) % {self.rows}"
        inside = f"i < {self.rows - 400_000} AND i % {_EVERY}"
        return f"""
            SELECT CASE WHEN {inside} = {_AT["strangers"]} AND copy = 1 THEN 'st_' || i
                        ELSE {_REFERENCE.format(i="i")} END AS reference,
                   CASE WHEN i % 2 = 0 THEN 'payment' ELSE 'refund' END AS kind,
                   CASE WHEN {inside} = {_AT["currency"]} THEN 'CHF' ELSE {_CURRENCY.format(i="i")} END AS currency,
                   (CASE WHEN i % 2 = 0 THEN 1 ELSE -1 END) * ({_SIZE.format(i="i")})
                   + CASE WHEN {inside} = {_AT["amount"]} THEN 1 ELSE 0 END AS gross_minor,
                   {BASE_US} + i * 1000000 + 2000000 AS booked_us
            FROM (SELECT {number} AS i FROM range({self.rows}) AS t(j)) AS numbered,
                 (VALUES (0), (1)) AS copies(copy)
            WHERE i < {self.rows - YOUNG} AND NOT ({inside} = {_AT["missing"]})
              AND (copy = 0 OR ({inside} IN ({_AT["twice"]}, {_AT["strangers"]})))"""  # noqa: S608 - numbers of ours

    def file(self) -> str:
        """The provider's side as Stripe's report has it."""
        return f"""
            SELECT 'txn_' || reference AS balance_transaction_id,
                   strftime(make_timestamp(booked_us), '%Y-%m-%d %H:%M:%S') AS created_utc, lower(currency) AS currency,
                   {_text("gross_minor")} AS gross, {_text("fee_minor")} AS fee, {_text("net_minor")} AS net,
                   CASE kind WHEN 'payment' THEN 'charge' ELSE 'refund' END AS reporting_category,
                   reference AS source_id
            FROM (SELECT *, 30 AS fee_minor, gross_minor - 30 AS net_minor FROM ({self.lines()}))"""  # noqa: S608 - ours

    def relation(self) -> str:
        """The provider's side as the relation `provider_lines`."""
        return f"""
            SELECT 'stripe' AS provider, 'bench' AS file, CAST(0 AS BIGINT) AS line, reference, kind,
                   CAST(NULL AS VARCHAR) AS batch, currency, gross_minor, CAST(30 AS BIGINT) AS fee_minor,
                   gross_minor - 30 AS net_minor, booked_us, CAST(NULL AS BIGINT) AS settled_us,
                   CAST(NULL AS VARCHAR) AS original_reference
            FROM ({self.lines()})"""  # noqa: S608 - ours


_AT: Final = {"amount": 5, "missing": 17, "twice": 29, "currency": 41, "strangers": 53}


def _text(minor: str) -> str:
    """Decimal text of minor units: no float, as everywhere."""
    whole = f"abs({minor}) // 100 || '.' || lpad(CAST(abs({minor}) % 100 AS VARCHAR), 2, '0')"
    return (
        f"CASE WHEN {minor} < 0 THEN '-' ELSE '' END ||"
        f" CASE currency WHEN 'JPY' THEN CAST(abs({minor}) AS VARCHAR) ELSE {whole} END"
    )
