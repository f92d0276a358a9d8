import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dr_assets.casino import schema
from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import PolicyError

pytestmark = pytest.mark.integration

_OPENING_MINOR = 500_000


@dataclass
class Ledger:
    """A fresh casino of ten players, and short ways to use it."""

    connection: psycopg.Connection[tuple[Any, ...]]
    dsn: str

    def one(self, statement: str, *parameters: object) -> Any:
        """The one row of a statement; its value when it has one column."""
        row = self.connection.execute(statement.encode(), parameters).fetchone()
        assert row is not None
        return row[0] if len(row) == 1 else row

    def account(self, player: int, kind: str = "player_cash") -> int:
        """A player's account in the home currency."""
        return int(
            self.one(
                "SELECT account_id FROM casino.accounts WHERE player_id = %s AND kind = %s ORDER BY 1 LIMIT 1",
                player,
                kind,
            )
        )

    def currency(self, player: int) -> str:
        """The player's home currency."""
        return str(self.one("SELECT currency FROM casino.accounts WHERE account_id = %s", self.account(player)))

    def balance(self, player: int, kind: str = "player_cash") -> int:
        """What the ledger says the player has, minor units."""
        return int(
            self.one("SELECT balance_minor FROM casino.accounts WHERE account_id = %s", self.account(player, kind))
        )

    def bet(self, key: str, player: int, stake: int = 100) -> tuple[int, int]:
        """Place a bet; the transfer and the round."""
        transfer, round_id = self.one(
            "SELECT transfer_id, round_id FROM casino.bet(%s, %s, %s, 'slots', %s)",
            key,
            player,
            self.currency(player),
            stake,
        )
        return transfer, round_id

    def withdraw(self, key: str, player: int, amount: int = 1000) -> int:
        """Request a withdrawal; its id."""
        return int(
            self.one(
                "SELECT withdrawal_id FROM casino.request_withdrawal(%s, %s, %s, %s)",
                key,
                player,
                self.currency(player),
                amount,
            )
        )

    def step(self, key: str, withdrawal: int, state: str) -> int:
        """Take a withdrawal one step; the transfer."""
        return int(self.one("SELECT casino.step_withdrawal(%s, %s, %s)", key, withdrawal, state))


@pytest.fixture(scope="module", params=[15, 17, 18])
def template(
    request: pytest.FixtureRequest, session_postgres: Callable[[int], PostgresServer]
) -> Iterator[tuple[PostgresServer, str]]:
    """A casino on every supported version, made by a role that owns the database and may do nothing more."""
    server, name = session_postgres(request.param), "casino_plain"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD {}").format(
                sql.Identifier(name), sql.Literal(server.password)
            )
        )
        admin.execute("CREATE DATABASE casino_plain OWNER casino_plain")
        try:
            schema.create(server.dsn(name, name), players=10)
            yield server, name
        finally:
            admin.execute("DROP DATABASE casino_plain WITH (FORCE)")
            admin.execute("DROP ROLE casino_plain")


@pytest.fixture
def ledger(template: tuple[PostgresServer, str]) -> Iterator[Ledger]:
    """A copy of that casino for one test, used by the same role."""
    server, role = template
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE casino_copy TEMPLATE casino_plain OWNER casino_plain STRATEGY file_copy")
        try:
            dsn = server.dsn("casino_copy", role)
            with psycopg.connect(dsn, autocommit=True) as connection:
                yield Ledger(connection, dsn)
        finally:
            admin.execute("DROP DATABASE casino_copy WITH (FORCE)")


def test_a_casino_is_created_once(ledger: Ledger) -> None:
    """A second creation is refused in one clear word and changes nothing."""
    assert ledger.one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    with pytest.raises(PolicyError) as caught:
        schema.create(ledger.dsn)
    assert caught.value.code == "casino.exists"
    assert ledger.one("SELECT count(*) FROM casino.players") == 10


def test_a_transfer_that_does_not_balance_cannot_be_committed(ledger: Ledger) -> None:
    """Not through the one door, not by hand, not by adding a posting to an older transfer."""
    first, second = ledger.account(1), ledger.account(2)
    with pytest.raises(psycopg.errors.CheckViolation, match="out of balance"):
        ledger.connection.execute(
            "SELECT casino.post('adjustment', 'k', 'p', ARRAY[%s, %s]::bigint[], ARRAY[-5, 6]::bigint[], 'r')",
            (first, second),
        )
    with pytest.raises(psycopg.errors.CheckViolation, match="out of balance"):
        ledger.connection.execute(
            "INSERT INTO casino.postings (transfer_id, account_id, amount_minor) VALUES (1, %s, 5)", (first,)
        )
    with pytest.raises(psycopg.errors.CheckViolation, match="moves nothing"):
        ledger.connection.execute(
            "INSERT INTO casino.transfers (kind, idempotency_key, payload_hash) VALUES ('bet', 'k', sha256(''))"
        )
    assert ledger.balance(1) == ledger.balance(2) == _OPENING_MINOR


def test_a_transfer_must_balance_in_each_currency_alone(ledger: Ledger) -> None:
    """Euros do not make up for dollars."""
    assert ledger.currency(1) != ledger.currency(2)
    with pytest.raises(psycopg.errors.CheckViolation, match="out of balance"):
        ledger.one("SELECT casino.adjust('k', %s, %s, 5, 'r')", ledger.account(1), ledger.account(2))


def test_players_cannot_be_overdrawn_and_the_house_can(ledger: Ledger) -> None:
    """A stake over the balance is refused whole; the payment provider's clearing account is below zero already."""
    with pytest.raises(psycopg.errors.CheckViolation, match="accounts_no_overdraft"):
        ledger.bet("k", 1, _OPENING_MINOR + 1)
    assert ledger.bet("k", 1, _OPENING_MINOR)
    assert ledger.balance(1) == 0
    assert ledger.one("SELECT min(balance_minor) FROM casino.accounts WHERE kind = 'provider'") < 0


_CHANGES = (
    "UPDATE casino.postings SET amount_minor = 1",
    "DELETE FROM casino.postings",
    "TRUNCATE casino.postings",
    "UPDATE casino.transfers SET reason = 'x'",
    "DELETE FROM casino.transfers",
    "UPDATE casino.accounts SET balance_minor = 1",
    "UPDATE casino.accounts SET last_sequence = 0",
    "DELETE FROM casino.accounts",
    "INSERT INTO casino.accounts (kind, currency, shard, balance_minor) VALUES ('house', 'EUR', 99, 1)",
    "UPDATE casino.deposits SET amount_minor = 1",
    "DELETE FROM casino.rounds",
    "DELETE FROM casino.withdrawals",
    "UPDATE casino.withdrawal_steps SET state = 'paid'",
    "TRUNCATE casino.withdrawal_steps, casino.withdrawals",
)


def test_what_is_written_stays(ledger: Ledger) -> None:
    """Even the schema's owner changes no posting, no transfer and no balance by hand."""
    ledger.withdraw("w", 1)
    for statement in _CHANGES:
        with pytest.raises(psycopg.DatabaseError) as caught:
            ledger.connection.execute(statement.encode())
        assert caught.value.sqlstate == "DR004", statement


def test_an_accounts_postings_are_numbered_and_chained(ledger: Ledger) -> None:
    """Recomputed outside of the database: 1, 2, 3 …, each balance noted, each hash over the one before."""
    for number in range(4):
        ledger.bet(f"k{number}", 1, 10 + number)
    account = ledger.account(1)
    previous, balance = b"", 0
    rows = ledger.connection.execute(
        "SELECT sequence, transfer_id, currency, amount_minor, balance_after_minor, hash FROM casino.postings"
        " WHERE account_id = %s ORDER BY sequence",
        (account,),
    ).fetchall()
    assert len(rows) == 5
    for expected, (sequence, transfer, currency, amount, after, found) in enumerate(rows, start=1):
        balance += amount
        assert (sequence, after) == (expected, balance)
        text = f"{account}|{sequence}|{transfer}|{currency}|{amount}|{after}"
        previous = hashlib.sha256(previous + text.encode()).digest()
        assert found == previous
    assert ledger.one(
        "SELECT last_sequence, balance_minor, last_hash FROM casino.accounts WHERE account_id = %s", account
    ) == (5, balance, previous)


def test_one_key_is_one_payment(ledger: Ledger) -> None:
    """A repeated request gets the first one's answer and moves nothing; another request under the key is refused."""
    first = ledger.bet("k", 1, 100)
    assert ledger.bet("k", 1, 100) == first
    assert ledger.balance(1) == _OPENING_MINOR - 100
    with pytest.raises(psycopg.DatabaseError, match="another request") as caught:
        ledger.bet("k", 1, 101)
    assert caught.value.sqlstate == "DR002"
    withdrawal = ledger.withdraw("w", 2)
    assert ledger.withdraw("w", 2) == withdrawal
    approved = ledger.step("a", withdrawal, "approved")
    assert ledger.step("a", withdrawal, "approved") == approved
    win = "SELECT casino.win('v', %s, 55)"
    assert ledger.one(win, first[1]) == ledger.one(win, first[1])


def test_a_key_sent_by_many_at_once_counts_once(ledger: Ledger) -> None:
    """Eight clients retry the same bet together: one transfer, the same answer to all."""

    def bet(_: int) -> Any:
        with psycopg.connect(ledger.dsn, autocommit=True) as connection:
            return connection.execute(
                "SELECT transfer_id, round_id FROM casino.bet('same', 1, %s, 'slots', 100)", (ledger.currency(1),)
            ).fetchone()

    ledger.currency(1)
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(bet, range(8)))
    assert len(answers) == 1
    assert ledger.balance(1) == _OPENING_MINOR - 100


def test_a_round_is_won_at_most_once(ledger: Ledger) -> None:
    """A second win under another key is refused and pays nothing."""
    _, round_id = ledger.bet("k", 1, 100)
    ledger.one("SELECT casino.win('w1', %s, 300)", round_id)
    with pytest.raises(psycopg.DatabaseError) as caught:
        ledger.one("SELECT casino.win('w2', %s, 300)", round_id)
    assert caught.value.sqlstate == "DR004"
    assert ledger.balance(1) == _OPENING_MINOR + 200


@pytest.mark.parametrize(
    ("path", "back"), [(["approved", "paid"], False), (["rejected"], True), (["approved", "cancelled"], True)]
)
def test_a_withdrawals_money_waits_in_hold_and_leaves_it_once(ledger: Ledger, path: list[str], back: bool) -> None:
    """Requested: out of the player's cash into the hold. Ended: paid out or back, and never a second time."""
    withdrawal = ledger.withdraw("w", 1, 1000)
    assert (ledger.balance(1), ledger.balance(1, "player_held")) == (_OPENING_MINOR - 1000, 1000)
    for state in path:
        ledger.step(f"s-{state}", withdrawal, state)
    assert ledger.balance(1, "player_held") == 0
    assert ledger.balance(1) == (_OPENING_MINOR if back else _OPENING_MINOR - 1000)
    assert ledger.one("SELECT sum(balance_minor) FROM casino.accounts WHERE kind = 'payable'") == 0
    for state in ("approved", "paid", "rejected", "cancelled"):
        with pytest.raises(psycopg.DatabaseError) as caught:
            ledger.step(f"again-{state}", withdrawal, state)
        assert caught.value.sqlstate == "DR003"
    steps = ledger.connection.execute("SELECT state FROM casino.withdrawal_steps ORDER BY stepped_at").fetchall()
    assert [state for (state,) in steps] == ["requested", *path]


def test_no_transition_beside_the_state_machine(ledger: Ledger) -> None:
    """Not by the function (requested is not payable), and not by an UPDATE that claims a step without its money."""
    withdrawal = ledger.withdraw("w", 1, 1000)
    house = ledger.one("SELECT casino.house_account('house', %s)", ledger.currency(1))
    gift = ledger.one("SELECT casino.adjust('gift', %s, %s, 1000, 'r')", house, ledger.account(1))
    with pytest.raises(psycopg.DatabaseError, match="cannot go from requested to paid"):
        ledger.step("s", withdrawal, "paid")
    for change in (
        "state = 'cancelled', holding_account_id = NULL",
        "state = 'cancelled', holding_account_id = NULL, last_transfer_id = 1",
        f"state = 'cancelled', holding_account_id = NULL, last_transfer_id = {gift}",
        "amount_minor = 1",
        "state = 'approved'",
    ):
        with pytest.raises(psycopg.DatabaseError) as caught:
            ledger.connection.execute(f"UPDATE casino.withdrawals SET {change}".encode())  # noqa: S608 - from above
        assert caught.value.sqlstate == "DR003"
    assert ledger.balance(1, "player_held") == 1000


def test_every_transfer_has_its_outbox_row_and_the_wallets_follow(ledger: Ledger) -> None:
    """The outbox is written with the transfer; publishing brings each wallet to a stated posting, once."""
    for number in range(7):
        ledger.bet(f"k{number}", 1, 123)
    total = ledger.one("SELECT count(*) FROM casino.transfers")
    assert ledger.one("SELECT count(*) FROM casino.outbox JOIN casino.transfers USING (transfer_id)") == total
    published = [ledger.one("SELECT casino.publish_outbox(8)") for _ in range(total // 8 + 2)]
    assert sum(published) == total
    assert published[-1] == 0
    behind = ledger.one(
        "SELECT count(*) FROM casino.accounts a LEFT JOIN casino.wallets w USING (account_id)"
        " WHERE a.last_sequence > 0 AND a.player_id IS NOT NULL"
        " AND (w.balance_minor, w.sequence) IS DISTINCT FROM (a.balance_minor, a.last_sequence)"
    )
    assert behind == 0


def test_opposite_transfers_at_once_do_not_deadlock(ledger: Ledger) -> None:
    """Money going both ways between the same two accounts from eight sessions: all commit, the sum stays."""
    accounts = [ledger.account(player) for player in (1, 5)]
    assert ledger.currency(1) == ledger.currency(5)

    def shuffle(worker: int) -> None:
        giver, taker = accounts if worker % 2 else reversed(accounts)
        with psycopg.connect(ledger.dsn, autocommit=True) as connection:
            for number in range(25):
                connection.execute("SELECT casino.adjust(%s, %s, %s, 3, 'r')", (f"{worker}-{number}", giver, taker))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(shuffle, range(8)))
    assert ledger.balance(1) == ledger.balance(5) == _OPENING_MINOR


def test_consent_to_text_messages_needs_a_number(ledger: Ledger) -> None:
    """The CRM holds a contact per player and no consent that could not be used."""
    assert ledger.one("SELECT count(*) FROM casino.crm_contacts") == 10
    with pytest.raises(psycopg.errors.CheckViolation):
        ledger.connection.execute("UPDATE casino.crm_contacts SET sms_consent = true, phone = NULL")
