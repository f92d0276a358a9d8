"""Whoever was erased stays erased, whatever backup a ledger is restored from; and the books still balance."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.drills.drill import run_drill
from dr_assets.estate.errors import PolicyError
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.erasures import REPLAYED, record_replayed
from dr_assets.proving.restore_test import run_restore_test
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.run import Reconciliation, reconcile
from dr_assets.stores.postgres.erase import EraseRules, Erasures
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.subjects.deletion import delete
from dr_assets.vault.subjects.erased import read_list
from dr_assets.vault.subjects.history import record
from dr_assets.vault.subjects.ids import SubjectIds
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.shelf import MemoryShelf
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_subject_ring import Agreed

if TYPE_CHECKING:
    from conftest import LivedCasino, Source

pytestmark = pytest.mark.integration

IDS = SubjectIds(b"\7" * 32)
FORGOTTEN = ("1", "4", "7")
RULES = load_contract("casino_ledger").erase
Open = Callable[..., AbstractContextManager[Restored]]


@pytest.fixture
def source(lived_casino: "LivedCasino") -> "Source":
    """The casino's vault in a copy of its own, in which three players were erased after the last backup."""
    source = lived_casino.source.clone()
    forget(source, *FORGOTTEN)
    return source


def forget(source: "Source", *personal_ids: str) -> None:
    """Decide that these people are erased, as `erasure execute` does."""
    shelves = (MemoryShelf("primary"), MemoryShelf("standby"))
    ring = SubjectRing((source.vault,), shelves, (MemoryKeyProvider(),), ErasurePolicy(most_at_once=1000))
    people = [IDS.of(who) for who in personal_ids]
    delete(ring, people, Agreed(), keyless=people)


def erasures(source: "Source", rules: EraseRules | None = RULES) -> Erasures:
    """What the vault knows now, with the casino's rules."""
    return Erasures(read_list(source.vault), IDS, rules)


@pytest.fixture
def opened(engine_dir: Path) -> Open:
    """`opened(source, erasures)`: a restore under way."""

    def run(source: "Source", asked: Erasures | None, target: str = "latest", **options: object) -> object:
        plan = plan_restore(source.vault, source.dataset.name, Target.parse(target))
        return restore(plan, source.vault, engine_dir / "restored", erasures=asked, **options)  # type: ignore[arg-type]

    return run  # type: ignore[return-value]


def rows(restored: Restored, query: str) -> list[tuple[object, ...]]:
    """What a reader finds."""
    with psycopg.connect(restored.reader_dsn()) as session:
        return session.execute(query.encode()).fetchall()


PEOPLE = "SELECT player_id::text FROM casino.crm_contacts WHERE player_id IN (1, 2, 4, 7) ORDER BY 1"
COUNTRIES = "SELECT player_id::text FROM casino.players WHERE country = 'ZZ' ORDER BY player_id"


def test_an_older_backup_brings_back_everybody_but_the_erased(source: "Source", engine_dir: Path) -> None:
    """Contacts gone, countries blank, everybody else as they were; the money adds up; on record; verify is green."""
    seen: dict[str, list[tuple[object, ...]]] = {}

    def look(restored: Restored, _: Reconciliation) -> None:
        seen["people"], seen["countries"] = rows(restored, PEOPLE), rows(restored, COUNTRIES)
        seen["accounts"] = rows(restored, "SELECT count(*) > 0 FROM casino.accounts WHERE player_id = 1")
        seen["ours"] = rows(restored, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'dr\\_assets\\_eraser%'")

    env = {WORK_DIR_ENV: str(engine_dir)}
    result = run_restore_test(
        source.vault, source.dataset, Target("latest"), env=env, inspect=look, erasures=erasures(source)
    )
    assert result.ok
    assert seen == {
        "people": [("2",)],
        "countries": [(who,) for who in FORGOTTEN],
        "accounts": [(True,)],
        "ours": [],
    }
    fact = replayed(source)
    assert fact is not None
    assert (fact.body["erasures"], fact.body["found"], fact.body["known_after"]) == (3, 3, 0)
    assert fact.body["done"] == ["DELETE 3", "UPDATE 3"]
    assert fact.body["newest"] == read_list(source.vault).newest
    assert fact.body["tables"] == ["casino.crm_contacts", "casino.players"]
    assert verify(source.vault).findings == ()


def replayed(source: "Source") -> Fact | None:
    """The newest replay on record."""
    return latest_fact(source.vault, "ledger", REPLAYED)


def test_nothing_comes_out_of_a_vault_that_knows_erasures_without_applying_them(source: "Source", opened: Open) -> None:
    """No list, an older one, no rules, no key of subject ids: refused before anything is fetched."""
    older = erasures(source)
    forget(source, "9")
    whole = erasures(source)
    for asked, code in (
        (None, "erasure.not_replayed"),
        (older, "erasure.list_stale"),
        (replace(whole, rules=None), "erasure.no_rules"),
        (replace(whole, ids=None), "erasure.no_id_key"),
    ):
        with pytest.raises(PolicyError) as caught, opened(source, asked, keep_cluster=True):
            pytest.fail("a restore that brings people back")
        assert caught.value.code == code
    with pytest.raises(PolicyError, match=r"erasure\.not_replayed"):
        run_drill(source.vault, source.dataset)


def test_rules_that_fail_or_leave_something_leave_no_restore(source: "Source", opened: Open, engine_dir: Path) -> None:
    """A statement that fails and a proof that finds somebody end it; no value is repeated, nothing stays on disk."""
    assert RULES is not None
    email = "SELECT email::int FROM casino.crm_contacts JOIN pg_temp.erased_people ON player_id = personal_id::bigint"
    for rules, code in (
        (replace(RULES, statements=email), "erasure.failed"),
        (replace(RULES, statements="UPDATE casino.players SET country = 'ZZ' WHERE false"), "erasure.incomplete"),
        (replace(RULES, people="SELECT player_id FROM casino.players"), "erasure.bad_rules"),
    ):
        with pytest.raises(PolicyError) as caught, opened(source, erasures(source, rules)):
            pytest.fail("a restore in which somebody is left")
        assert caught.value.code == code
        assert "@example.test" not in str(caught.value)
        assert not (engine_dir / "restored").exists() or not list((engine_dir / "restored").iterdir())


def test_the_contracts_statements_have_no_superusers_rights(source: "Source", opened: Open) -> None:
    """What a row's change sets off in a database that somebody else made runs with the rights to rows alone."""
    assert RULES is not None
    rules = replace(RULES, statements=f"{RULES.statements.rstrip()};\nCOPY (SELECT 1) TO PROGRAM 'true'")
    with pytest.raises(PolicyError, match="SQLSTATE 42501"), opened(source, erasures(source, rules)):
        pytest.fail("it ran")


def test_who_is_erased_while_a_restore_is_under_way_is_erased_from_it(source: "Source", opened: Open) -> None:
    """The list is read once more before the cluster is handed over; the books still balance then."""
    with opened(source, erasures(source), keep_cluster=True) as restored:
        assert reconcile(restored.reader_dsn()).ok
        assert restored.erased is not None
        assert restored.erased.found == 3
        forget(source, "2")
    assert restored.erased.found == 1 + 3
    assert record_replayed(source.vault, restored, purpose="restore") is not None
    fact = replayed(source)
    assert fact is not None
    assert fact.body["newest"] == read_list(source.vault).newest


def test_somebody_whom_the_source_still_knows_is_counted(source: "Source", engine_dir: Path) -> None:
    """Data younger than the erasure that still has the person: the source was never told, and the fact says so."""
    asked = erasures(source)
    early = {
        who: replace(one, deleted_at=datetime.now(UTC) - timedelta(days=1)) for who, one in asked.listed.people.items()
    }
    told = replace(asked, listed=replace(asked.listed, people=early))
    env = {WORK_DIR_ENV: str(engine_dir)}
    assert run_restore_test(source.vault, source.dataset, Target("latest"), level="quick", env=env, erasures=told).ok
    fact = replayed(source)
    assert fact is not None
    assert fact.body["known_after"] == 3


def test_a_deletion_that_was_taken_back_is_not_replayed(source: "Source", opened: Open) -> None:
    """Within the grace somebody may be restored; then nothing is missing of them."""
    record(source.vault, "restored", [IDS.of(who) for who in FORGOTTEN], reason="the wrong ones")
    with opened(source, erasures(source)) as restored:
        assert len(rows(restored, PEOPLE)) == 4
        assert restored.erased is not None
        assert restored.erased.erasures == 0
