"""Real statistics of a real restore, held to those before: an encrypted column is named, an ordinary day is not."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.components.drift import judge_drift
from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import PolicyError
from dr_assets.observability.anomalies.judge import Observed, Past, Suspicion, observe
from dr_assets.observability.anomalies.record import (
    STATISTICS,
    accept_suspicions,
    look,
    newest_look,
    record_unseen,
)
from dr_assets.observability.anomalies.series import series_of
from dr_assets.proving.drift import look_for_drift
from dr_assets.stores.postgres.restore import Restored
from dr_assets.stores.postgres.statistics import Statistics, gather_statistics
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.verify import verify

if TYPE_CHECKING:
    from conftest import Source

pytestmark = pytest.mark.integration

DAYS = 12
TABLE = "public.contacts"
SCHEMA = """
CREATE TABLE contacts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL, note text,
    balance_minor bigint NOT NULL, agreed boolean NOT NULL);
"""
FILL = """
INSERT INTO contacts (email, note, balance_minor, agreed)
SELECT 'player' || n || '@example.test', CASE WHEN n % 3 = 0 THEN 'called about a bonus ' || n END,
       (n * 7919) % 100003, n % 2 = 0 FROM generate_series(1, {rows}) n
"""
# As a column looks that a key encrypts: base64 of random bytes, a little longer.
ENCRYPT = "UPDATE contacts SET email = encode(sha256(('k' || id)::bytea) || sha256(('l' || id)::bytea), 'base64')"


def days_of(server: PostgresServer, dbname: str) -> list[Statistics]:
    """Two weeks of real statistics of a database that grows a little each day, a day apart."""
    gathered: list[Statistics] = []
    begin = datetime.now(UTC) - timedelta(days=DAYS)
    with psycopg.connect(server.dsn(dbname), autocommit=True) as session:
        for day in range(DAYS):
            session.execute(FILL.format(rows=100 + day % 3).encode())
            session.execute("CHECKPOINT")
            before = gathered[-1] if gathered else None
            gathered.append(gather_statistics(server.dsn(dbname), begin + timedelta(days=day), server.data_dir, before))
    return gathered


def past_of(gathered: list[Statistics]) -> Past:
    """Those as a past in which nothing was strange."""
    past = Past()
    for one in gathered:
        before = past.observed[-1].statistics if past.observed else None
        past.add(Observed(one, series_of(one, before)))
    return past


@pytest.fixture
def lived(make_source: Callable[..., "Source"]) -> tuple["Source", list[Statistics]]:
    """A source with two weeks of statistics, protected: a base backup lies in its vault."""
    source = make_source()
    source.sql(SCHEMA)
    source.sql(FILL.format(rows=5000))
    source.beat()  # the heartbeat's table is there from the first statistics on
    gathered = days_of(source.server, "postgres")
    source.snapshot()
    return source, gathered


def on_record(source: "Source", gathered: list[Statistics]) -> None:
    """The same as facts of the vault, as restore tests left them."""
    for one in gathered:
        body = {**one.to_json(), "outcome": "quiet", "backups_before": 0, "suspicions": []}
        record_fact(source.vault, source.dataset.name, STATISTICS, body)


def ended(source: "Source") -> None:
    """All of it is in the vault, a heartbeat last."""
    source.beat()
    source.feed()


def test_an_encrypted_column_of_a_restored_database_is_named(
    lived: tuple["Source", list[Statistics]], recover: Callable[..., Restored]
) -> None:
    """An ordinary restore is quiet; the next one names the column, amber and on record, until somebody accepts it."""
    source, gathered = lived
    on_record(source, gathered)
    source.sql(FILL.format(rows=101))  # a day like any other
    ended(source)
    first = look_for_drift(source.vault, recover(source))
    assert first["outcome"] == "quiet", first
    assert judge_drift(source.vault, source.dataset).passed
    source.sql(ENCRYPT)
    ended(source)
    told = look_for_drift(source.vault, recover(source))
    assert told["outcome"] == "suspicious"
    judged = judge_drift(source.vault, source.dataset)
    assert (judged.passed, judged.is_warning) == (False, True)
    newest = newest_look(source.vault, "ledger")
    assert newest is not None
    named = {one.series for one in newest.suspicions}
    assert f"{TABLE}.email entropy" in named
    assert all(name.startswith(TABLE) for name in named), named
    # Not the balances, the notes or the consents: they are as they were.
    assert not any(name.startswith((f"{TABLE}.balance_minor", f"{TABLE}.note", f"{TABLE}.agreed")) for name in named)
    assert "player1" not in str([fact.body for fact in facts(source.vault, "ledger", STATISTICS)])
    accept_suspicions(source.vault, "ledger", [], by="eve", note="release 12 encrypts addresses")
    assert judge_drift(source.vault, source.dataset).passed
    source.sql("INSERT INTO contacts (email, balance_minor, agreed) VALUES ('x', 1, true)")
    ended(source)
    assert look_for_drift(source.vault, recover(source))["outcome"] == "quiet"
    assert verify(source.vault).findings == ()


@pytest.fixture(scope="module")
def template(postgres_17: PostgresServer) -> tuple[str, list[Statistics]]:
    """A database with two weeks behind it, to be copied."""
    name = f"drift_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_17.dsn(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(postgres_17.dsn(name), autocommit=True) as session:
        session.execute(SCHEMA.encode())
        session.execute(FILL.format(rows=5000).encode())
    return name, days_of(postgres_17, name)


@pytest.fixture
def judged(postgres_17: PostgresServer, template: tuple[str, list[Statistics]]) -> Callable[[str], list[Suspicion]]:
    """`judged(sql)`: what is strange the day after `sql` was run on a database with two weeks of past."""
    name, gathered = template

    def run(statement: str) -> list[Suspicion]:
        copy = f"drift_{secrets.token_hex(4)}"
        with psycopg.connect(postgres_17.dsn(), autocommit=True) as session:
            session.execute(f"CREATE DATABASE {copy} TEMPLATE {name} STRATEGY file_copy".encode())
        with psycopg.connect(postgres_17.dsn(copy), autocommit=True) as session:
            session.execute(FILL.format(rows=101).encode())
            session.execute(statement.encode())
            session.execute("CHECKPOINT")
        at = gathered[-1].at + timedelta(days=1)
        found = gather_statistics(postgres_17.dsn(copy), at, postgres_17.data_dir, gathered[-1])
        return observe(found, past_of(gathered))[1]

    return run


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("SELECT 1", None),
        ("DELETE FROM contacts WHERE id % 20 = 0", f"{TABLE} lost_share"),
        ("TRUNCATE contacts", f"{TABLE} emptied"),
        ("DROP TABLE contacts", f"{TABLE} gone"),
        ("ALTER TABLE contacts ADD COLUMN more int", f"{TABLE} schema"),
        ("UPDATE contacts SET note = NULL WHERE id % 9 = 0", f"{TABLE}.note null_share"),
        ("UPDATE contacts SET balance_minor = 1::bigint << 40 WHERE id % 40 = 0", f"{TABLE}.balance_minor q99"),
        (
            "UPDATE contacts SET email = translate(email, 'aeplr', 'äëþłř') WHERE id % 12 = 0",
            f"{TABLE}.email odd_share",
        ),
    ],
)
def test_damage_in_a_real_database_is_named_the_next_time(
    judged: Callable[[str], list[Suspicion]], statement: str, named: str | None
) -> None:
    """By the relation or column that it hit; a day like any other is quiet."""
    found = {one.series for one in judged(statement)}
    assert (named in found) if named else (found == set())


def test_a_look_that_fails_is_amber_and_stops_nothing(
    lived: tuple["Source", list[Statistics]], recover: Callable[..., Restored]
) -> None:
    """The restore test goes on; the check says that nobody looked, until somebody did."""
    source, _ = lived
    ended(source)
    restored = recover(source)
    broken = replace(restored, reader="nobody_of_that_name")
    assert look_for_drift(source.vault, broken)["outcome"] == "failed"
    judged = judge_drift(source.vault, source.dataset)
    assert (judged.passed, judged.is_warning) == (False, True)
    assert look_for_drift(source.vault, restored)["outcome"] == "quiet"
    assert judge_drift(source.vault, source.dataset).passed


def test_nothing_is_accepted_without_a_name_or_a_suspicion(make_source: Callable[..., "Source"]) -> None:
    """Who looked and why is on record, or nothing is."""
    source = make_source()
    empty = Statistics(datetime.now(UTC), 1000)
    look(source.vault, "ledger", empty)
    with pytest.raises(PolicyError, match=r"drift\.nothing_open"):
        accept_suspicions(source.vault, "ledger", [], by="eve", note="nothing")
    with pytest.raises(PolicyError, match=r"drift\.no_reason"):
        accept_suspicions(source.vault, "ledger", [], by="", note="nothing")
    record_unseen(source.vault, "ledger", "SQLSTATE 57014")
    assert "57014" in judge_drift(source.vault, source.dataset).reason
