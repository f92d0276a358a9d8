import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psycopg
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from psycopg import sql
from typer.testing import CliRunner

from dr_assets.casino import schema
from dr_assets.casino.incident import DAMAGES, has_transfer, plant_bad_transaction, plant_damage
from dr_assets.casino.workload import Workload
from dr_assets.cli.app import app
from dr_assets.drills import controls
from dr_assets.drills.planted import Controls
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs
from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.externals import external_schema
from dr_assets.reconciliation.run import check_contract, reconcile

if TYPE_CHECKING:
    from dr_assets.stores.postgres.restore import Restored

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("reconciled")]


@pytest.fixture(scope="module")
def sandbox(
    engines_dir: Path, postgres_programs: Callable[[int], Programs], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """A server marked as a sandbox, with a casino named `lived` that has seen every kind of transfer."""
    settings = {"fsync": False}
    with PostgresServer(
        engines_dir / "reconciled", postgres_programs(17), settings=settings, name="dr_assets-sandbox-tests"
    ) as server:
        server.init()
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE lived")
        schema.create(server.dsn("lived"), players=40)
        workload = Workload(server.dsn("lived"), tmp_path_factory.mktemp("acks"), rate_per_s=500, workers=4)
        workload.start()
        while workload.stats().acknowledged < 1000:
            threading.Event().wait(0.1)
        workload.stop()
        yield server


@pytest.fixture
def lived(sandbox: PostgresServer) -> Iterator[str]:
    """The DSN of a copy of that casino for one test."""
    name = sql.Identifier(f"copy_{secrets.token_hex(4)}")
    with psycopg.connect(sandbox.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE lived STRATEGY file_copy").format(name))
        yield sandbox.dsn(name.as_string().strip('"'))
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_a_lived_in_casino_adds_up(lived: str) -> None:
    """Every kind of transfer happened and no check breaks; what was read is said, and it is JSON."""
    with psycopg.connect(lived) as connection:
        kinds = connection.execute("SELECT count(DISTINCT kind) FROM casino.transfers").fetchone()
        (postings,) = connection.execute("SELECT count(*) FROM casino.postings").fetchall()
    assert kinds is not None
    assert kinds[0] >= 6
    result = reconcile(lived)
    assert result.ok
    assert (result.breaks_total, result.breaks.num_rows, result.severity) == (0, 0, "none")
    assert result.rows["postings"] == postings[0]
    assert result.rows["holds"] > 0
    why = {one.why for one in result.not_run if one.name.startswith(("ledger/", "balances/"))}
    assert why == {"nobody gives periods"}
    summary = json.loads(json.dumps(result.summary()))
    assert summary["rows_examined"] == sum(result.rows.values()) == result.rows_examined
    assert set(summary["checks"]) == {check.name for check in result.checks}


# What each damage must be called. A damaged row breaks several rules; these, and no other.
_CALLED = {
    "altered_wallet": {"value_differs"},
    "returned_contact": {"erased_person_present"},
    "stray_contact": {"contact_of_nobody"},
    "altered_balance": {"balance_differs_from_postings", "balance_differs_from_newest_posting"},
    "altered_posting": {
        "transfer_out_of_balance",
        "currency_out_of_balance",
        "hash_differs",
        "running_balance_differs",
        "balance_differs_from_postings",
    },
    "altered_balance_after": {"hash_differs", "running_balance_differs"},
    "deleted_posting": {
        "transfer_out_of_balance",
        "currency_out_of_balance",
        "sequence_gap",
        "balance_differs_from_postings",
    },
    "deleted_newest_posting": {
        "transfer_out_of_balance",
        "currency_out_of_balance",
        "newest_posting_missing",
        "balance_differs_from_postings",
    },
    "swapped_hash": {"hash_differs"},
    "altered_last_hash": {"newest_hash_differs"},
    "orphaned_postings": {"orphan_posting"},
    "empty_transfer": {"transfer_without_postings"},
    "altered_transfer": {"transfer_altered"},
    "unbalanced_transfer": {"transfer_out_of_balance", "currency_out_of_balance"},
    "duplicated_idempotency_key": {"idempotency_key_repeated"},
    "negative_balance": {"forbidden_negative"},
    "hold_released_without_money": {"balance_differs_from_holds"},
}
# What follows the ledger is wrong, the ledger is not: what areas beside its own have to find.
_FOLLOWS = {
    "altered_wallet": {"value_differs"},
    "returned_contact": {"erased_person_present"},
    "stray_contact": {"contact_of_nobody"},
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_is_found_and_called_by_its_name(lived: str, kind: str) -> None:
    """One forgery: exactly the breaks that stand for it, naming the account and the transfer that were touched."""
    damage = plant_damage(lived, kind, seed=7)
    result = reconcile(lived, areas=("read_models", "crm") if kind in _FOLLOWS else ("ledger", "balances"))
    assert not result.ok
    assert result.severity == "critical"
    breaks = result.breaks.to_pylist()
    reasons = {found["reason"] for found in breaks}
    if _resolves_a_withdrawal(lived, damage.transfer_id):  # the seed picks a row of a casino that lived as it liked
        reasons = {reason for reason in reasons if not reason.startswith("pending_")}
    assert reasons == (_CALLED | _FOLLOWS)[kind]
    if damage.account_id is not None:
        assert str(damage.account_id) in {found["account"] for found in breaks}
    if damage.transfer_id is not None and kind not in {"deleted_newest_posting", "hold_released_without_money"}:
        assert str(damage.transfer_id) in {found["transfer"] for found in breaks}


def _resolves_a_withdrawal(dsn: str, transfer_id: int | None) -> bool:
    """Whether rules on money that is set aside ask for this transfer, too."""
    with psycopg.connect(dsn) as connection:
        asked = connection.execute("SELECT FROM casino.withdrawal_steps WHERE transfer_id = %s", (transfer_id,))
        return asked.fetchone() is not None


def test_every_damage_has_a_name() -> None:
    """A new kind of damage without its expected breaks fails here."""
    assert set(DAMAGES) == set(_CALLED | _FOLLOWS)


def test_damage_on_top_of_damage_is_caught_and_harmless_damage_is_missed(
    lived: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drill plants kind after kind, in a small ledger in the same row: what breaks no more rules is caught too."""
    where = "FROM casino.postings WHERE sequence = 2 ORDER BY account_id LIMIT 1"
    planted = {
        "altered": f"""UPDATE casino.postings SET amount_minor = amount_minor * 2
                       WHERE (account_id, sequence) IN (SELECT account_id, sequence {where})""",  # noqa: S608 - ours
        "altered, then deleted": f"""DELETE FROM casino.postings
                                     WHERE (account_id, sequence) IN (SELECT account_id, sequence {where})""",  # noqa: S608
        "harmless": "SELECT 1",
    }

    def plant(dsn: str, kind: str, _: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("SET session_replication_role = replica")
            admin.execute(planted[kind].encode())

    class Sandbox:
        """What a drill knows of a restored server."""

        def dsn(self) -> str:
            """The superuser's."""
            return lived

        reader_dsn = dsn

    monkeypatch.setattr(controls, "DAMAGES", tuple(planted))
    monkeypatch.setattr(controls, "plant_damage", plant)
    found = controls.plant_and_catch(cast("Restored", Sandbox()), "casino_ledger")
    assert found == Controls(3, 2, ("harmless",))


def test_damage_is_refused_where_it_could_do_harm(fresh_database: Callable[..., str]) -> None:
    """A server that is not marked as a sandbox is left alone, even a superuser's and even an empty one."""
    dsn = fresh_database()
    schema.create(dsn, players=2)
    with pytest.raises(PolicyError) as caught:
        plant_damage(dsn, "altered_balance", seed=1)
    assert caught.value.code == "casino.not_a_sandbox"
    assert reconcile(dsn).ok


def test_damage_needs_a_superuser_and_a_known_kind(sandbox: PostgresServer, lived: str) -> None:
    """Each refusal says why; nothing is changed."""
    with psycopg.connect(sandbox.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE clerk LOGIN PASSWORD {}").format(sql.Literal(sandbox.password)))
    clerk = sandbox.dsn("lived", "clerk")
    with pytest.raises(PolicyError) as caught:
        plant_damage(clerk, "altered_balance", seed=1)
    assert caught.value.code == "casino.not_superuser"
    with pytest.raises(PolicyError, match="altered_balance") as caught:
        plant_damage(lived, "earthquake", seed=1)
    assert caught.value.code == "casino.damage_kind"


def test_a_bad_but_balanced_transaction_passes_every_check(lived: str) -> None:
    """Fraud by the book: the ledger still adds up, only a restore to `good_at` helps; the good commit lies before."""
    planted = plant_bad_transaction(lived)
    assert reconcile(lived).ok
    assert has_transfer(lived, planted.transfer_id)
    assert has_transfer(lived, planted.good_transfer_id)
    assert planted.good_at < planted.committed_at
    with psycopg.connect(lived) as connection:
        times: dict[int, datetime] = dict(
            connection.execute(
                "SELECT transfer_id, created_at FROM casino.transfers WHERE transfer_id = ANY(%s)",
                ([planted.good_transfer_id, planted.transfer_id],),
            ).fetchall()
        )
        assert times[planted.good_transfer_id] < planted.good_at < times[planted.transfer_id]
        row = connection.execute(
            "SELECT %s::pg_lsn < %s::pg_lsn, (SELECT xmin::text::bigint FROM casino.transfers WHERE transfer_id = %s)",
            (planted.lsn_before, planted.lsn_after, planted.transfer_id),
        ).fetchone()
    assert row == (True, planted.xid)


def test_a_ledger_under_load_is_read_as_of_one_instant(lived: str, tmp_path: Path) -> None:
    """Transfers go on while it is read: no half of one is seen, and nothing is locked."""
    workers = 4
    workload = Workload(lived, tmp_path, rate_per_s=300, workers=workers)
    workload.start()
    results = []
    try:
        for _ in range(3):
            before, deadline_s = workload.stats().acknowledged, time.monotonic() + 180
            results.append(reconcile(lived))
            while workload.stats().acknowledged <= before + workers:  # of each one commit may have been told late
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
    finally:
        workload.stop()
    assert [result.breaks_total for result in results] == [0, 0, 0]
    assert results[0].rows["postings"] < results[2].rows["postings"]


def test_an_emptied_ledger_is_not_green(fresh_database: Callable[..., str]) -> None:
    """A restore that came back without its rows has no break either; it does not pass."""
    dsn = fresh_database()
    schema.create(dsn, players=0)
    result = reconcile(dsn)
    assert result.breaks_total == 0
    assert not result.ok


def _with(tmp_path: Path, relation: str, query: str) -> str:
    """The casino's contract with one relation's query replaced."""
    packaged = files("dr_assets.reconciliation") / "contracts" / "casino_ledger"
    for file in packaged.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / f"{relation}.sql").write_text(query)
    return f"{tmp_path}/"


_BALANCES = "SELECT account_id, balance_minor::{}, last_sequence, last_hash FROM casino.accounts"
_HOLDS = "SELECT withdrawal_id AS hold_id, 'x'::text AS account_id, currency, amount_minor FROM casino.withdrawals"


@pytest.mark.parametrize(
    ("relation", "query", "said"),
    [
        ("transfers", "SELECT * FROM casino.transfer", 'relation "casino.transfer" does not exist'),
        ("transfers", "SELECT transfer_id, key FROM casino.transfers", 'column "key" does not exist'),
        ("transfers", "SELECT transfer_id, digest FROM casino.transfers", "no column idempotency_key"),
        ("postings", "SELEC 1", "syntax error"),
        ("balances", _BALANCES.format("numeric"), "cast"),
        ("balances", _BALANCES.format("float8"), "double"),
        ("holds", _HOLDS, "another type"),
    ],
)
def test_a_contract_that_the_database_does_not_fulfil_is_refused_early(
    lived: str, tmp_path: Path, relation: str, query: str, said: str
) -> None:
    """Named: the contract, the relation, and what is missing or of a type that could lose a minor unit."""
    contract = _with(tmp_path, relation, query)
    for attempt in (check_contract, reconcile):
        with pytest.raises(PolicyError, match=f"relation {relation}: .*{said}") as caught:
            attempt(lived, contract)
        assert caught.value.code == "reconciliation.contract_unmet"


def test_a_fulfilled_contract_is_quietly_accepted(lived: str) -> None:
    """The early check reads no rows and says nothing."""
    check_contract(lived, "casino_ledger")


def test_another_schema_needs_only_another_contract(fresh_database: Callable[..., str], tmp_path: Path) -> None:
    """Text ids, other names, neither hashes nor holds: such a ledger is reconciled, and its break is found."""
    dsn = fresh_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE entry (txn uuid, ref text, acct text, ccy text, n int, amt numeric(9, 2), bal numeric(9, 2));"
            "INSERT INTO entry SELECT t, t::text, a, 'EUR', 1, m, m FROM (SELECT gen_random_uuid() AS t) AS x,"
            " (VALUES ('cash', 12.34), ('house', -12.34)) AS legs (a, m)"
        )
    queries = {
        "accounts": "SELECT DISTINCT acct AS account_id, ccy AS currency, acct = 'house' AS may_go_negative,"
        " false AS holds_money FROM entry",
        "transfers": "SELECT DISTINCT txn::text AS transfer_id, ref AS idempotency_key FROM entry",
        "postings": "SELECT acct AS account_id, n AS sequence, txn::text AS transfer_id, ccy AS currency,"
        " (amt * 100)::bigint AS amount_minor, (bal * 100)::bigint AS balance_after_minor FROM entry",
        "balances": "SELECT acct AS account_id, (sum(amt) * 100)::bigint AS balance_minor, max(n) AS last_sequence"
        " FROM entry GROUP BY acct",
        "holds": "SELECT '' AS hold_id, '' AS account_id, '' AS currency, 0::bigint AS amount_minor WHERE false",
    }
    for relation, query in queries.items():
        (tmp_path / f"{relation}.sql").write_text(query)
    document = {"contract": "mine", "relations": {relation: f"{relation}.sql" for relation in queries}}
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(document))
    contract = load_contract(f"{tmp_path}/")
    assert contract.name == "mine"
    result = reconcile(dsn, f"{tmp_path}/")
    assert result.ok
    assert {"balances/newest_hash", "ledger/hash_chain", "ledger/transfer_digests"} <= set(result.skipped)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE entry SET amt = 12.35 WHERE acct = 'cash'")
    reasons = {found["reason"]: found["amount_minor"] for found in reconcile(dsn, f"{tmp_path}/").breaks.to_pylist()}
    assert reasons["transfer_out_of_balance"] == 1


def test_what_was_asked_for_is_looked_at_or_refused(lived: str) -> None:
    """An area that no check can judge is no green one, nor are files that no check reads."""
    with pytest.raises(PolicyError, match="provider_lines") as caught:
        reconcile(lived, areas=["payments"])
    assert caught.value.code == "reconciliation.not_checked"
    bank = {"bank_lines": external_schema("bank_lines").empty_table()}
    with pytest.raises(PolicyError, match="bank_lines is brought") as caught:
        reconcile(lived, externals=bank)
    assert caught.value.code == "reconciliation.not_checked"


def test_a_date_that_is_none_does_not_move_the_moment_of_judgement(lived: str) -> None:
    """A damaged row may say a year that no calendar has: the books are judged as of the snapshot then."""
    with psycopg.connect(lived, autocommit=True) as connection:
        connection.execute("UPDATE casino.crm_contacts SET synced_at = '200000-01-01Z'")
    result = reconcile(lived, areas=["crm"])
    assert result.as_of == result.snapshot.at


def test_postings_that_no_check_reads_are_counted_and_do_not_travel(lived: str) -> None:
    """How long the ledger is belongs to every verdict, where only the CRM is judged too; no posting is extracted."""
    result = reconcile(lived, areas=["crm"])
    with psycopg.connect(lived) as connection:
        row = connection.execute("SELECT count(*) FROM casino.postings").fetchone()
    assert row is not None
    assert result.rows["postings"] == row[0] > 0
    assert "postings" not in result.extract_s


def test_an_unreachable_ledger_is_the_sources_error_without_its_password() -> None:
    """The server's name is said, the secret is not."""
    with pytest.raises(SourceError) as caught:
        reconcile("postgresql://u:s3cr3t@127.0.0.1:1/ledger")
    assert caught.value.code == "reconciliation.source"
    assert "127.0.0.1:1/ledger" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_memory_is_bounded_and_too_little_is_said(lived: str, tmp_path: Path) -> None:
    """With too small a limit there is one clear error, and no spilled file stays behind."""
    with pytest.raises(PolicyError) as caught:
        reconcile(lived, memory_limit="2MB", workdir=tmp_path)
    assert caught.value.code == "reconciliation.memory"
    assert list(tmp_path.iterdir()) == []


def _run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_a_contract_check_says_all_that_is_missing(lived: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first thing only: a missing table, a column, a wrong type and an expression's column are each told."""
    monkeypatch.setenv("ANY_LEDGER", lived)
    done = _run("contract", "check", "casino_ledger", "--dsn-env", "ANY_LEDGER", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["fulfilled"], told["missing"]) == (True, [])
    assert told["checks"]["ledger"] >= 9
    assert told["not_run"]["payments/settled_agree"] == "nobody gives provider_lines"
    contract = _with(tmp_path, "transfers", "SELECT * FROM casino.transfer")
    (tmp_path / "balances.sql").write_text(_BALANCES.format("numeric"))
    (tmp_path / "holds.sql").write_text("SELECT withdrawal_id AS hold_id FROM casino.withdrawals")
    done = _run("contract", "check", contract, "--dsn-env", "ANY_LEDGER", "--json")
    assert done.exit_code == 1
    missing = [(one["relation"], one["found"]) for one in json.loads(done.stdout)["missing"]]
    assert [relation for relation, _ in missing] == ["transfers", "balances", "holds", "holds", "holds"]
    assert "does not exist" in missing[0][1]
    assert "cast" in missing[1][1]
    assert [found.split(" (")[0] for _, found in missing[2:]] == [
        f"it gives no column {name}" for name in ("account_id", "currency", "amount_minor")
    ]
    assert "not fulfilled" in _run("contract", "check", contract, "--dsn-env", "ANY_LEDGER").stdout


def test_an_expression_over_a_missing_column_is_told_before_any_row_is_read(
    lived: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain's text is tried over relations without a row."""
    contract = _with(tmp_path, "accounts", "SELECT * FROM casino.accounts, (SELECT false AS holds_money) AS h")
    text = (tmp_path / "contract.yaml").read_text().replace("concat_ws('|', account_id", "concat_ws('|', no_such")
    (tmp_path / "contract.yaml").write_text(text)
    monkeypatch.setenv("ANY_LEDGER", lived)
    done = _run("contract", "check", contract, "--dsn-env", "ANY_LEDGER", "--json")
    assert done.exit_code == 1
    assert "no_such" in json.loads(done.stdout)["missing"][0]["found"]


def test_the_command_writes_the_breaks_and_exits_with_the_verdict(
    lived: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Green exits 0; a forged balance exits 1, in a table, in JSON and as a Parquet file with the exact row."""
    monkeypatch.setenv("ANY_LEDGER", lived)
    words = ("reconcile", "--dsn-env", "ANY_LEDGER", "--contract", "casino_ledger", "--area", "balances")
    done = _run(*words)
    assert done.exit_code == 0, done.output
    assert "the money adds up" in done.stdout
    damage = plant_damage(lived, "altered_balance", seed=3)
    out = tmp_path / "breaks.parquet"
    done = _run(*words, "--out", str(out), "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == told["breaks_total"] > 0
    assert {row["account"] for row in rows} == {str(damage.account_id)}
    assert {one["account"] for one in told["worst_accounts"]} == {str(damage.account_id)}
    assert "worst accounts" in _run(*words).stdout
