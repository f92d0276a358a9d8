"""What a person sees who asks for what can't be: one clear line, a hint, the documented exit code, no traceback."""

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dr_assets.cli import main
from dr_assets.engines.ports import free_port
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.header import MAGIC, VERSION

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls `dr-assets` in this process, without any of the estate's variables unless they are given."""
    for name in load_estate(default_defs_dir()).env_names():
        monkeypatch.delenv(name, raising=False)

    def call(*args: str, env: dict[str, str] | None = None) -> SimpleNamespace:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["dr-assets", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return SimpleNamespace(code=ended.value.code or 0, out=said.out, err=said.err)

    return call


@pytest.fixture
def defs(tmp_path: Path) -> Path:
    """The packaged declarations with a bucket of their own."""
    folder = tmp_path / "defs"
    shutil.copytree(default_defs_dir(), folder, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    declared = folder / "estate" / "defs.yaml"
    declared.write_text(declared.read_text().replace("dr-assets-vault", f"cli-{secrets.token_hex(6)}"))
    return folder


@pytest.fixture
def vault_env(region: SeaweedRegion, tmp_path: Path) -> dict[str, str]:
    """The variables of a vault in the session's region, with keys below a folder of the test's own."""
    keys = tmp_path / "keys"
    # Both of the estate's vaults lie in the one bucket here: no test of this file is about copies.
    s3 = {"ENDPOINT": region.endpoint, "ACCESS_KEY": region.access_key, "SECRET_KEY": region.secret_key}
    return {
        **{f"DR_VAULT_{name}_{part}": value for name in ("PRIMARY", "STANDBY") for part, value in s3.items()},
        "DR_KEYS_DIR": str(keys),
        "DR_TRUST_FILE": str(keys / "trust.json"),
        "DR_SIGNING_KEY": str(keys / "signing.pem"),
    }


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("snapshot", "legder"), "cli.unknown_dataset"),
        (("snapshot", "ledger"), "cli.dsn_missing"),
        (("status",), "vault.setting_missing"),
        (("restore", "ledger", "--to", "yesterday", "--dry-run"), "target.unreadable"),
        (("restore", "ledger", "--to", "2026-11-21T10:00:00", "--dry-run"), "target.unreadable"),
        (("restore", "ledger"), "cli.into_missing"),
        (("restore", "ledger", "--dry-run", "--as-of", "noon"), "cli.bad_time"),
        (("restore", "ledger", "--dry-run", "--vault", "attic"), "cli.unknown_vault"),
        (("vault", "verify", "--as-of", "2026-11-21T10:00:00"), "cli.bad_time"),
    ],
)
def test_the_operators_mistakes_exit_2_with_code_and_hint(
    run: Run, vault_env: dict[str, str], args: tuple[str, ...], code: str
) -> None:
    """A mistake of the operator's exits 2, names its stable code first and says in a HINT what to do."""
    env = vault_env if code == "cli.bad_time" else {}
    if env:
        run("vault", "init", env=env)
    said = run(*args, env=env)
    first, *rest = said.err.strip().splitlines()
    assert (said.code, first.startswith(f"dr-assets: {code}: ")) == (2, True), said.err
    assert rest[-1].startswith("HINT: ")


def test_an_unreachable_source_exits_3_and_keeps_its_password(run: Run, vault_env: dict[str, str], defs: Path) -> None:
    """A source that does not answer exits 3; the password of its connection string is not printed."""
    run("vault", "init", "--defs", str(defs), env=vault_env)
    dsn = f"host=127.0.0.1 port={free_port()} dbname=ledger user=someone password=do-not-print"
    said = run("snapshot", "ledger", "--defs", str(defs), env={"LEDGER_DSN": dsn})
    assert said.code == 3, said.err
    assert "HINT: " in said.err
    assert "do-not-print" not in said.err + said.out


def test_an_unreachable_vault_exits_4(run: Run, vault_env: dict[str, str], defs: Path) -> None:
    """A store that does not answer exits 4 and is named as such, without its credentials."""
    run("vault", "init", "--defs", str(defs), env=vault_env)
    env = {**vault_env, "DR_VAULT_PRIMARY_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    said = run("vault", "verify", "--defs", str(defs), env=env)
    assert (said.code, "vault.unreachable" in said.err) == (4, True), said.err
    assert vault_env["DR_VAULT_PRIMARY_SECRET_KEY"] not in said.err


def test_refused_credentials_are_said_at_once(run: Run, vault_env: dict[str, str], defs: Path) -> None:
    """A store that refuses our key exits 4 with a word about credentials."""
    run("vault", "init", "--defs", str(defs), env=vault_env)
    said = run("vault", "verify", "--defs", str(defs), env={**vault_env, "DR_VAULT_PRIMARY_SECRET_KEY": "not-it"})
    assert (said.code, "vault.refused_credentials" in said.err) == (4, True), said.err


def test_another_estates_keys_do_not_open_the_vault(run: Run, vault_env: dict[str, str], defs: Path) -> None:
    """With another key-encryption key, what is sealed stays sealed: exit 4, and no guess at the content."""
    run("vault", "init", "--defs", str(defs), env=vault_env)
    record_fact(open_vault(load_estate(defs), "primary", os.environ), "ledger", "snapshot", {"size_bytes": 1})
    keys = Path(vault_env["DR_KEYS_DIR"])
    for kek in keys.glob("kek-*.hex"):
        kek.chmod(0o600)
        kek.write_text(secrets.token_hex(32) + "\n")
    said = run("status", "--defs", str(defs))
    assert (said.code, "vault.wrong_key" in said.err) == (4, True), said.err


def test_a_vault_of_a_newer_version_is_not_guessed_at(
    run: Run, vault_env: dict[str, str], defs: Path, region: SeaweedRegion
) -> None:
    """An object sealed by a newer program exits 4 and says that the program is too old, not that it is damaged."""
    run("vault", "init", "--defs", str(defs), env=vault_env)
    estate = load_estate(defs)
    receipt = record_fact(open_vault(estate, "primary", os.environ), "ledger", "snapshot", {"size_bytes": 1})
    client, bucket = region.client(), estate.vaults["primary"].bucket
    data = client.get_object(Bucket=bucket, Key=str(receipt.key))["Body"].read()
    assert data[len(MAGIC)] == VERSION
    newer = MAGIC + bytes([VERSION + 1]) + data[len(MAGIC) + 1 :]
    client.put_object(Bucket=bucket, Key=_renamed(str(receipt.key), newer), Body=newer)
    said = run("vault", "verify", "--defs", str(defs), "--json")
    found = {finding["kind"] for finding in json.loads(said.out)["findings"]}
    assert (said.code, "newer_version" in found) == (1, True), said.out


def _renamed(key: str, data: bytes) -> str:
    """The name that `data` would bear in the place of `key`."""
    return key.rpartition("-")[0] + "-" + hashlib.sha256(data).hexdigest()[:32]


def test_a_refused_declaration_names_file_line_and_reason(run: Run, defs: Path) -> None:
    """`estate check` exits 1 and prints file:line: reason for every refused declaration."""
    ledger = defs / "ledger" / "defs.yaml"
    ledger.write_text(ledger.read_text().replace("rpo: 30s", "rpo: 31s"))
    line = next(n for n, text in enumerate(ledger.read_text().splitlines(), 1) if "rpo: 31s" in text)
    said = run("estate", "check", "--defs", str(defs))
    assert said.code == 1
    assert f"{ledger}:{line}: " in said.err


def test_the_packaged_estate_is_sound(run: Run) -> None:
    """`estate check` accepts the declarations that ship with the package, offline and without any variable."""
    assert run("estate", "check").code == 0


def test_unknown_verbs_and_options_exit_2(run: Run) -> None:
    """A verb or option that isn't there exits 2 with usage, not with a traceback."""
    assert run("frobnicate").code == 2
    assert run("status", "--frobnicate").code == 2
