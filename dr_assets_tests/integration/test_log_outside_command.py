"""`dr-assets witness`, `log collect|key|trust|verify` as people run them: a real store, a witness that is killed."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from dr_assets.cli import main
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import record_fact
from dr_assets.vault.log.outside import collect
from dr_assets.vault.log.sequencer import Sequencer

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

PROGRAM = [sys.executable, "-m", "dr_assets.cli"]
Run = Callable[..., SimpleNamespace]


@pytest.fixture
def env(region: SeaweedRegion, tmp_path: Path) -> dict[str, str]:
    """The packaged estate's variables, keys below a folder of the test's own; every role has the same keys."""
    made = dict.fromkeys(load_estate(default_defs_dir()).env_names(), "")
    for name in made:
        if name.endswith("_ENDPOINT"):
            made[name] = region.endpoint
        elif name.endswith("_ACCESS_KEY"):
            made[name] = region.access_key
        elif name.endswith("_SECRET_KEY"):
            made[name] = region.secret_key
    made |= {
        "DR_KEYS_DIR": str(tmp_path / "keys"),
        "DR_TRUST_FILE": str(tmp_path / "trust.json"),
        "DR_SIGNING_KEY": str(tmp_path / "signing.pem"),
    }
    return {**os.environ, **made, "DR_ASSETS_DEFS": str(tmp_path / "defs")}


@pytest.fixture
def run(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("log", "key")`: `dr-assets` in this process; `code` is what it must exit with."""

    def call(*args: str, code: int = 0, **more: str) -> SimpleNamespace:
        for name, value in (env | more).items():
            monkeypatch.setenv(name, value)
        # A busy machine's witness answers late, and one that is away is refused at once.
        monkeypatch.setattr("dr_assets.cli.log_outside.collect", partial(collect, patience=timedelta(minutes=3)))
        monkeypatch.setattr(sys, "argv", ["dr-assets", *args])
        ended: object = 0
        try:
            main()
        except SystemExit as stopped:
            ended = stopped.code or 0
        said = capsys.readouterr()
        assert ended == code, said.out + said.err
        return SimpleNamespace(stdout=said.out, stderr=said.err)

    return call


@contextmanager
def _serving(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """A witness in a process of its own, killed at the end without a word."""
    args = [*PROGRAM, "witness", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(args, env=env | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            found = re.search(r"listens on 127\.0\.0\.1:(\d+)", said)
            assert found, said
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()


def _declare(tmp_path: Path, key: str) -> None:
    shutil.copytree(
        default_defs_dir(), tmp_path / "defs", ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc")
    )
    declared = tmp_path / "defs" / "estate" / "defs.yaml"
    bucket = f"log-{secrets.token_hex(6)}"
    text = (
        declared.read_text().replace("dr-assets-vault", f"{bucket}-a", 1).replace("dr-assets-vault", f"{bucket}-b", 1)
    )
    text += f'  log: {{witnesses: [{{name: w1, url_env: LOG_W1_URL, key: "{key}"}}], quorum: 1}}\n'
    declared.write_text(text)


def test_from_a_fact_to_a_copy_that_anybody_can_check(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    """Witness made, log sequenced, cosigned, exported, verified; the witness killed between; a flipped byte is seen."""
    witness, copy, trust = tmp_path / "w1", tmp_path / "copy", tmp_path / "trusted.json"
    key = run("witness", "init", str(witness), "--name", "witness.example/w1").stdout.strip()
    _declare(tmp_path, key)
    for name in ("primary", "standby"):
        run("vault", "init", "--vault", name)
    vault = open_vault(load_estate(tmp_path / "defs"), "primary", env, role="writer")
    run("witness", "add-log", str(witness), run("log", "key").stdout.strip())
    run("log", "sequence")
    for number in range(2):
        receipt = record_fact(vault, "ledger", "roll_up", {"number": number})
        # The command leaves ten seconds between batches; this test doesn't.
        Sequencer(vault, pause=timedelta()).run()
        with _serving(witness, env) as url:
            told = json.loads(run("log", "collect", "--json", LOG_W1_URL=url).stdout)
        assert [(one["who"], one["standing"]) for one in told["heard"]] == [("witness w1", "vouched")]
        assert (told["witnessed"]["size"], told["amiss"]) == (told["size"], [])
    away = run("log", "collect", LOG_W1_URL="http://127.0.0.1:9")
    assert "kept before" in away.stdout
    assert f": {told['size']} leaves" in run("witness", "show", str(witness)).stdout
    run("log", "export", str(copy))
    trust.write_text(run("log", "trust", LOG_W1_URL=url).stdout)
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    name, sha256 = str(receipt.key), receipt.sha256
    args = [*PROGRAM, "log", "verify", str(copy), "--trust", str(trust)]
    done = subprocess.run(
        [*args, "--object", name, "--sha256", sha256, "--json"], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    body = json.loads(done.stdout)
    assert (body["ok"], body["object"]["sha256"], body["damage_total"]) == (True, sha256, 0)
    assert "1 of 1 witnesses" in run("log", "verify", str(copy), "--trust", str(trust)).stdout
    (tile,) = (copy / "tile/0").glob("000.p/*")
    tile.write_bytes(b"\0" + tile.read_bytes()[1:])
    assert "DAMAGED tile/0/000.p" in run("log", "verify", str(copy), "--trust", str(trust), code=1).stdout


def test_a_persons_mistakes_are_answered_in_a_line(run: Run, tmp_path: Path) -> None:
    """No folder, no witness there, half a question: a code and a hint, no traceback."""
    assert "witness.not_set_up" in run("witness", "serve", str(tmp_path / "none"), code=2).stderr
    assert "witness.not_set_up" in run("witness", "show", str(tmp_path / "none"), code=2).stderr
    trust = tmp_path / "t.json"
    assert "log.bad_belief" in run("log", "verify", str(tmp_path), "--trust", str(trust), code=2).stderr
    half = ("log", "verify", str(tmp_path), "--trust", str(trust), "--object", "x")
    assert "cli.object_without_digest" in run(*half, code=2).stderr
    assert "log.bad_key_name" in run("witness", "init", str(tmp_path / "w"), "--name", "a b", code=2).stderr
