"""The verbs over the packaged estate's bucket: copied, seen, restored, one person, forgotten nowhere."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dr_assets.cli import bucket as verbs
from dr_assets.cli import context
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import Estate
from dr_assets.vault.connect import init_vault
from dr_assets.vault.subjects.connect import init_ring

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(region: SeaweedRegion, bucket: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("copy", "kyc", …)`: a verb's JSON, over this test's own buckets."""
    source, vault = bucket(), bucket()
    env = {
        "DR_KEYS_DIR": str(tmp_path / "keys"),
        "DR_TRUST_FILE": str(tmp_path / "trust.json"),
        "DR_SIGNING_KEY": str(tmp_path / "signing.pem"),
        "DR_SUBJECT_ID_KEY": str(tmp_path / "subject-ids.hex"),
        "DR_ASSETS_WORK_DIR": str(tmp_path / "work"),
        "KYC_ENDPOINT": region.endpoint,
        "KYC_ACCESS_KEY": region.access_key,
        "KYC_SECRET_KEY": region.secret_key,
    }
    for name in ("PRIMARY", "STANDBY"):
        env[f"DR_VAULT_{name}_ENDPOINT"] = region.endpoint
        env[f"DR_VAULT_{name}_ACCESS_KEY"] = region.access_key
        env[f"DR_VAULT_{name}_SECRET_KEY"] = region.secret_key
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    whole = load_estate(default_defs_dir())
    places = {
        name: replace(place, bucket=vault if name == "primary" else bucket()) for name, place in whole.vaults.items()
    }
    kyc = replace(whole.buckets()["kyc"], bucket=source, replicas=())
    subjects = whole.subjects
    assert subjects is not None
    estate = replace(whole, vaults=places, datasets={"kyc": kyc}, subjects=replace(subjects, bucket=f"{vault}-keys"))
    for name in places:
        init_vault(estate, name, env)
    init_ring(estate, env)

    def given(_: Path | None) -> Estate:
        return estate

    monkeypatch.setattr(context, "estate_of", given)
    monkeypatch.setattr(verbs, "estate_of", given)
    client = region.client(request_checksum_calculation="when_required")
    for player in (7, 8):
        client.put_object(Bucket=source, Key=f"players/{player}/passport.pdf", Body=str(player).encode())

    def asked(*words: str, stdin: str = "", code: int = 0) -> dict[str, Any]:
        done = CliRunner().invoke(verbs.app, [*words, "--json"], input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return dict(json.loads(done.stdout[done.stdout.index("{") :]))

    return asked


def test_the_verbs_from_a_copy_to_one_persons_documents(
    run: Run, region: SeaweedRegion, bucket: Callable[..., str]
) -> None:
    """Each prints what machines need; nothing is beyond the RPO, and a person is named by standard input only."""
    assert run("status", "kyc", code=1)["recovery_point_at"] is None
    assert run("copy", "kyc")["kind"] == "full"
    assert run("copy", "kyc")["kind"] == "unchanged"
    status = run("status", "kyc")
    assert (status["within_rpo"], status["held"]["versions"]) == (True, 2)
    verified = run("verify", "kyc", "--documents", "--source")
    assert (verified["sound"]["versions"], verified["missing"], verified["troubles"]) == (2, 0, [])
    assert run("restore", "kyc", "--dry-run")["picked"]["versions"] == 2
    into = bucket()
    back = run("restore", "kyc", "--into", into, "--person", "--limit", "50MiB", stdin="7\n")
    assert back["restored"]["versions"] == 1
    listed = region.client().list_objects_v2(Bucket=into)["Contents"]
    assert [one["Key"] for one in listed] == ["players/7/passport.pdf"]
