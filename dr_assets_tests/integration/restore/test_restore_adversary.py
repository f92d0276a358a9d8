"""A real restore after every kind of attack on a real store: the money is what it was before."""

import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import record_fact
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import Depth, verify
from dr_assets_tests.faults.vault.adversary import ATTACKS, Thief

if TYPE_CHECKING:
    from conftest import History

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = sql.SQL("SELECT count(*), md5(string_agg(x::text, ',' ORDER BY x::text)) FROM {} x")
TABLES = ("t", "noise", "in_one", "in_two")
# What changes the whole bucket, and is taken back after the restore, comes last.
ROUNDS = (
    ("delete_markers", "newer_versions", "junk_keys", "look_alikes", "suspended_versioning"),
    ("rolled_clock", "copied_objects", "replayed_facts", "removals", "bucket_settings"),
)


@dataclass(frozen=True)
class Attacked:
    """A vault on a real store, the moment before any attack, and what a restore brought back then."""

    vault: Vault
    admin: Any
    sealed: dict[str, bytes]
    moment: datetime
    before: dict[str, str]


@pytest.fixture(scope="module")
def attacked(
    history: "History", engines_dir: Path, weed_programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """The history's vault, put object by object into a bucket under compliance locks."""
    memory, dataset = history.source.vault, history.source.dataset
    with SeaweedRegion(engines_dir / "restore-adversary", "restore-adversary", weed_programs) as region:
        region.start()
        store = S3Store(make_client(region.endpoint, region.access_key, region.secret_key), "attacked")
        store.create_bucket("COMPLIANCE", 14)
        for name in memory.names(f"{memory.estate}/"):
            blob = memory.store.get(name.text)
            store.put(name.text, blob.data, hashlib.sha256(blob.data).hexdigest(), memory.locks.lock(
                dataset.name, "key" if "/keys/" in name.text else "part", memory.clock()))  # fmt: skip
        vault = throwaway_vault(
            store=store, estate=memory.estate, provider=memory.keys.providers.every[0], signer=memory.signer,
            trust=memory.trust, rules={dataset.name: (dataset.retention, dataset.snapshot.every)},
        )  # fmt: skip
        _seal_facts(vault, history)
        time.sleep(1.1)
        moment = store.now()
        time.sleep(2.1)
        sealed = {name.text: store.get(name.text).data for name in vault.names(f"{vault.estate}/")}
        before = restored(vault, moment, tmp_path_factory.mktemp("before") / "into")
        assert before["t"].startswith("106 ")
        yield Attacked(vault, region.client(), sealed, moment, before)


def _seal_facts(vault: Vault, history: "History") -> None:
    """What a capture leaves, so that there is something to replay."""
    first = next(vault.objects(history.source.dataset.name, "wal")).key
    for number in range(2):
        anchor = Anchor(first.system_id, first.timeline, first.first, history.end, None, None, 1, None)
        record_capture(vault, history.source.dataset.name, "position", anchor)
        record_fact(vault, history.source.dataset.name, "drill", {"number": number})
    record_inventory(vault, history.source.dataset.name)


def restored(vault: Vault, moment: datetime, into: Path) -> dict[str, str]:
    """Row counts and digests of every table, brought back as of the moment; which objects it was planned from."""
    plan = plan_restore(vault, "ledger", Target("latest"), as_of=moment)
    found = {"plan": hashlib.sha256("".join(str(obj.key) for obj in plan.pieces).encode()).hexdigest()}
    with restore(plan, vault, into) as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as session:
        for table in TABLES:
            row = session.execute(ROWS.format(sql.Identifier(table))).fetchone()
            assert row is not None
            found[table] = f"{row[0]} {row[1]}"
    return found


@pytest.mark.parametrize("attacks", ROUNDS)
def test_a_restore_after_every_kind_of_attack_is_the_one_before(
    attacked: Attacked, attacks: Sequence[str], tmp_path: Path
) -> None:
    """With an administrator's keys, all attacks before it still in place; rows, digests and the plan are the same.

    Each attack by itself, with all that it leaves, is faults/vault/test_vault_adversary.py's.
    """
    thief = Thief(attacked.admin, "attacked", attacked.vault.estate, attacked.sealed, random.Random(attacks[0]))
    musts = [must for attack in attacks for must in ATTACKS[attack](thief)]
    try:
        assert restored(attacked.vault.anew(), attacked.moment, tmp_path / "into") == attacked.before
        report = verify(attacked.vault, as_of=attacked.moment, depth=Depth("index"))
        assert {must.key for must in musts} <= {finding.key for finding in report.findings}
    finally:
        for back in thief.undo:
            back(attacked.admin)


def test_no_kind_of_attack_is_left_out() -> None:
    """Who adds an attack says when a restore meets it."""
    assert sorted(attack for attacks in ROUNDS for attack in attacks) == sorted(ATTACKS)
