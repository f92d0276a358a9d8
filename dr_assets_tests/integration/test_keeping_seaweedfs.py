"""Holds, locks, samples and the policy's record through the command line, against a real S3 with Object Lock."""

import json
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from dr_assets.cli.app import app
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.facts import record_fact
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.s3 import S3Store
from dr_assets.vault.vault import Receipt, Vault

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

Cli = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The packaged declarations with buckets of the test's own."""
    defs = tmp_path / "defs"
    shutil.copytree(default_defs_dir(), defs, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    declared = defs / "estate" / "defs.yaml"
    text = declared.read_text()
    for name in ("primary", "standby"):
        text = text.replace("dr-assets-vault", f"keeping-{name}-{secrets.token_hex(4)}", 1)
    declared.write_text(text)
    return defs


@pytest.fixture
def vault(folder: Path, region: SeaweedRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """The estate's first vault, with six facts in it."""
    keys = tmp_path / "keys"
    env = {"DR_KEYS_DIR": str(keys), "DR_TRUST_FILE": str(keys / "trust.json"), "DR_SIGNING_KEY": str(keys / "s.pem")}
    for name in ("PRIMARY", "STANDBY"):
        env |= {
            f"DR_VAULT_{name}_ENDPOINT": region.endpoint,
            f"DR_VAULT_{name}_ACCESS_KEY": region.access_key,
            f"DR_VAULT_{name}_SECRET_KEY": region.secret_key,
        }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    estate = load_estate(folder)
    for name in estate.vaults:
        init_vault(estate, name, env)
    opened = open_vault(estate, "primary", env)
    for number in range(6):
        record_fact(opened, "ledger", "heartbeat", {"n": number})
    return opened


@pytest.fixture
def cli(folder: Path) -> Cli:
    """`cli("vault", "locks", "ledger")`: what it printed; `exits` is what it ends with."""

    def run(*words: str, exits: int = 0) -> str:
        done = CliRunner().invoke(app, [*words, "--defs", str(folder)])
        assert done.exit_code == exits, done.output
        return done.output

    return run


def heads(vault: Vault) -> dict[str, Any]:
    """What the store says of every object of the dataset, keys included."""
    found = {}
    for name in vault.names("casino/ledger/"):
        found[name.text] = vault.store.head(name.text, name.versions[0].version_id)
    return found


def recorded_with_a_brief_lock(vault: Vault) -> tuple[Receipt, Lock]:
    """A fact whose lock is soon over, yet not before the store hears of it, which on a busy machine takes a while."""
    for span_s in (4, 20, 90):
        soon = Lock("GOVERNANCE", datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=span_s))
        with suppress(VaultError):
            return record_fact(vault, "other", "heartbeat", {"n": span_s}, lock=soon), soon
    pytest.fail("a minute was too short")


def test_a_hold_outlasts_a_lock_that_is_over(vault: Vault, cli: Cli) -> None:
    """The flag is on every object; one whose lock is over doesn't go, not by an administrator's hand."""
    vault.keys.for_writing("other")
    brief, soon = recorded_with_a_brief_lock(vault)
    told = cli("vault", "hold", "place", "ledger", "--reason", "case 17", "--by", "ann", "--vault", "primary")
    assert "objects are flagged" in told
    assert all(head.held for name, head in heads(vault).items() if "legal_hold" not in name)
    vault.store.set_hold(str(brief.key), brief.version_id, held=True)
    while vault.store.now() <= soon.retain_until:
        time.sleep(0.3)
    assert isinstance(vault.store, S3Store)
    with pytest.raises(ClientError):
        vault.store.client.delete_object(
            Bucket=vault.store.bucket, Key=str(brief.key), VersionId=brief.version_id, BypassGovernanceRetention=True
        )
    with pytest.raises(VaultError, match="legal hold"):
        vault.store.delete_version(str(brief.key), brief.version_id)
    (row,) = json.loads(cli("vault", "hold", "list", "ledger", "--json"))
    assert (row["reason"], row["by"], row["in_force"]) == ("case 17", "ann", True)
    assert "legal hold" in cli("expire", "ledger")
    cli("vault", "hold", "release", "ledger", row["hold"], "--reason", "closed", "--vault", "primary")
    assert not any(head.held for head in heads(vault).values())
    vault.store.set_hold(str(brief.key), brief.version_id, held=False)
    vault.store.delete_version(str(brief.key), brief.version_id)


def test_locks_are_asked_for_judged_and_lengthened(vault: Vault, cli: Cli) -> None:
    """Green as written; red for an object without a lock; a dry run lengthens nothing, --yes every one."""
    assert "0 are not as they should be" in cli("vault", "locks", "ledger")
    until = (datetime.now(UTC) + timedelta(days=900)).replace(microsecond=0)
    assert "would be extended" in cli("vault", "extend", "ledger", "--until", until.isoformat())
    assert all(head.lock.retain_until < until for name, head in heads(vault).items() if "heartbeat" in name)
    assert "were extended" in cli("vault", "extend", "ledger", "--until", until.isoformat(), "--yes")
    kept = {name: head for name, head in heads(vault).items() if "lock_extension" not in name}
    assert len(kept) >= 7
    assert all(head.lock.retain_until >= until and head.lock.mode == "COMPLIANCE" for head in kept.values())
    weak = Lock("GOVERNANCE", datetime.now(UTC).replace(microsecond=0) + timedelta(days=900))
    receipt = record_fact(vault, "ledger", "heartbeat", {"n": 7}, lock=weak)
    assert str(receipt.key) in cli("vault", "locks", "ledger", exits=1)


@pytest.mark.usefixtures("vault")
def test_a_sample_reads_the_bytes_back(cli: Cli) -> None:
    """Each round a share, on record; in the same round nothing new is due but what was sealed since."""
    told = json.loads(cli("vault", "sample", "ledger", "--json"))
    assert (told["rounds"], told["errors_total"]) == (30, 0)
    assert told["listed"] >= 7
    assert "would be read" in cli("vault", "sample", "ledger", "--dry-run")


@pytest.mark.usefixtures("vault")
def test_a_weaker_policy_is_on_record_until_somebody_stands_for_it(folder: Path, cli: Cli) -> None:
    """The first record has no changes; the next says what, from, to and the commit that it was told."""
    assert "0 changes" in cli("estate", "record-policy", "--commit", "c0")
    ledger = folder / "ledger" / "defs.yaml"
    ledger.write_text(ledger.read_text().replace("rto: 15m", "rto: 1h\n  exception: the board agreed"))
    told = cli("estate", "record-policy", "--commit", "c1")
    assert "WEAKER ledger.rto_ms: from 900000 to 3600000" in told
    assert "as it was recorded last" in cli("estate", "record-policy")
    (_, row) = json.loads(cli("estate", "policy", "--json"))
    assert (row["commit"], row["acknowledged"]) == ("c1", False)
    assert "2 weakenings" in cli("estate", "acknowledge-policy", "--reason", "agreed", "--by", "ann")
    assert [one["acknowledged"] for one in json.loads(cli("estate", "policy", "--json"))] == [True, True]
