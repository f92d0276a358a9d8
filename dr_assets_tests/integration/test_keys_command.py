"""`dr-assets keys …` as a person runs it, against a real store: rotation, a stolen key, escrow, people's keys."""

import json
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyrage import x25519

from dr_assets.cli import main
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.vault.approvals import Approvals, open_papers, sign
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage.s3 import make_client
from dr_assets.vault.subjects.connect import open_ring

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

Run = Callable[..., SimpleNamespace]
MADE = cache(make_client)


@pytest.fixture
def env(region: SeaweedRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packaged estate's variables, both vaults in the session's region, keys below a folder of the test's own."""
    for name in load_estate(default_defs_dir()).env_names():
        monkeypatch.delenv(name, raising=False)
    made = {
        "DR_KEYS_DIR": str(tmp_path / "keys"),
        "DR_TRUST_FILE": str(tmp_path / "trust.json"),
        "DR_SIGNING_KEY": str(tmp_path / "signing.pem"),
        "DR_SUBJECT_ID_KEY": str(tmp_path / "subject-ids.hex"),
    }
    for name in ("PRIMARY", "STANDBY"):
        made[f"DR_VAULT_{name}_ENDPOINT"] = region.endpoint
        made[f"DR_VAULT_{name}_ACCESS_KEY"] = region.access_key
        made[f"DR_VAULT_{name}_SECRET_KEY"] = region.secret_key
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def defs(tmp_path: Path, env: dict[str, str]) -> Path:
    """The packaged declarations with buckets of their own, people's keys and one approver of two."""
    del env
    folder, bucket = tmp_path / "defs", f"keys-{secrets.token_hex(6)}"
    shutil.copytree(default_defs_dir(), folder, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    declared = folder / "estate" / "defs.yaml"
    text = re.sub(r"(?ms)^  subjects:.*?(?=^  \w)", "", declared.read_text())
    text = text.replace("dr-assets-vault", f"{bucket}-a", 1).replace("dr-assets-vault", f"{bucket}-b", 1)
    text += f"  subjects: {{vaults: [primary, standby], bucket: {bucket}-people, id_key_env: DR_SUBJECT_ID_KEY}}\n"
    declared.write_text(text)
    return folder


@pytest.fixture
def run(defs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls `dr-assets` in this process."""
    monkeypatch.setattr(
        "dr_assets.vault.connect.make_client", MADE
    )  # most of a short command's time goes into making a client

    def call(*args: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["dr-assets", *args, "--defs", str(defs)])
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call


def test_the_life_of_keys_on_the_command_line(run: Run, defs: Path, env: dict[str, str], tmp_path: Path) -> None:
    """Listed, rotated, a stolen key retired and all under it listed, escrowed, drilled, and the drill finds a lack."""
    for name in ("primary", "standby"):
        assert run("vault", "init", "--vault", name).code == 0
    estate = load_estate(defs)
    vault = open_vault(estate, "primary", env)
    record_fact(vault, "ledger", "note", {"text": "something to open"})

    (only,) = json.loads(run("keys", "list", "--json").out)["keys"]
    stolen = only["wrappings"][0]["kek_id"]
    assert only["writing"]
    assert "due at 90" in run("keys", "rotate", "--due").out
    assert "writes now" in run("keys", "rotate", "ledger", "--reason", "a test").out

    refused = run("keys", "retire", stolen, "--reason", "a stolen laptop")
    assert (refused.code, "keys.kek_current" in refused.err) == (2, True)
    assert "wraps from now on" in run("keys", "new-kek").out
    assert "is retired" in run("keys", "retire", stolen, "--reason", "a stolen laptop").out
    listed = json.loads(run("keys", "list", "--under", stolen, "--objects", "--json").out)["keys"]
    assert [row["writing"] for row in listed] == [False, False]
    assert any("facts-note" in name for row in listed for name in row["objects"])
    key_id = vault.keys.take_up("ledger").key_id  # a process that was there before the new key-encryption key
    assert key_id not in {row["key_id"] for row in listed}

    identity = x25519.Identity.generate()
    file, secret = tmp_path / "escrow.age", tmp_path / "identity.txt"
    secret.write_text(f"# offline\n{identity}\n")
    secret.chmod(0o600)
    assert run("keys", "subjects", "init").code == 0
    assert run("keys", "export", "--recipient", str(identity.to_public()), "--out", str(file)).code == 0
    assert "exists already" in run("keys", "export", "--recipient", str(identity.to_public()), "--out", str(file)).err
    drilled = run("keys", "drill", str(file), "--identity", str(secret))
    assert (drilled.code, "ledger:" in drilled.out) == (0, True)
    run("keys", "rotate", "ledger")
    assert run("keys", "drill", str(file), "--identity", str(secret), "--no-record").code == 1
    assert run("keys", "recover", str(file), "--identity", str(secret)).code == 0
    assert run("vault", "verify").code == 0
    events = [fact.body["event"] for fact in facts(vault, "vault", "escrow")]
    assert events[:2] == ["exported", "drilled"]
    assert "recovered" in events


def test_a_person_is_forgotten_by_the_approval_of_two(
    run: Run, defs: Path, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, signed by two on their own machines, deleted, seen, taken back; nobody's name is anywhere."""
    approvers = {name: Signer.generate() for name in ("ada", "bob", "cleo")}
    listed = ", ".join(f"{{name: {name}, public_key: {signer.public_key.hex()}}}" for name, signer in approvers.items())
    declared = defs / "estate" / "defs.yaml"
    declared.write_text(declared.read_text() + f"  approvals: {{needed: 2, approvers: [{listed}]}}\n")
    for name in ("primary", "standby"):
        assert run("vault", "init", "--vault", name).code == 0
    assert run("keys", "subjects", "init").code == 0

    monkeypatch.setattr(sys, "stdin", ["anna@example.com\n"])
    subject = run("keys", "subjects", "id").out.strip()
    estate = load_estate(defs)
    ring = open_ring(estate, env)
    ring.key_for_sealing(subject)
    assert run("keys", "subjects", "backup").code == 0
    out = tmp_path / "papers.json"
    asked = run(
        "keys", "subjects", "request", subject, "--requester", "dpo", "--reason", "article 17", "--out", str(out)
    )
    assert asked.code == 0
    assert "approvals.too_few" in run("keys", "subjects", "delete", subject).err
    wanted, people = open_papers(out.read_bytes())
    assert people == [subject]
    for name in ("ada", "cleo"):
        Approvals(ring.vault, "subjects", estate.approvals).add(sign(wanted, approvers[name]))
    assert "for good after" in run("keys", "subjects", "delete", subject).out
    assert "1 wait" in run("keys", "subjects", "finish").out
    seen = run("keys", "subjects", "verify")
    assert (seen.code, f"soft: {subject}" in seen.out) == (0, True)
    assert run("keys", "subjects", "restore", subject, "--reason", "the wrong Anna").code == 0
    ring.key_of(subject)
    assert run("keys", "subjects", "recover").out.startswith("0 people")
    for shelf in ring.shelves:
        assert not [name for name in shelf.names("") if "anna" in name]
