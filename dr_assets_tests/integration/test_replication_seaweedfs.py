"""Replication between real stores: proven where they copy by themselves, done by ourselves where they don't."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.cli import main
from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import FilerSync, Identity, SeaweedRegion
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import ROLES
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.facts import record_fact
from dr_assets.vault.replication import standing
from dr_assets.vault.roles.documents import documents
from dr_assets.vault.storage import Lock
from dr_assets_tests.integration.test_expire_seaweedfs import COUNT, put_pieces

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Run = Callable[..., tuple[int, Any]]
REFUSED = 2


@pytest.fixture(scope="module")
def regions(engines_dir: Path, weed_programs: Programs) -> Iterator[tuple[SeaweedRegion, SeaweedRegion]]:
    """Two of them, each with the roles of a declared vault; nothing copies between them yet."""
    estate, now = load_estate(default_defs_dir()).only("ledger"), datetime.now(UTC)
    made = []
    with ExitStack() as stack:
        for name in ("primary", "standby"):
            policies = documents(estate, name, "seaweedfs", now=now)
            identities = [Identity.throwaway(role, policies[role]) for role in ROLES]
            region = SeaweedRegion(engines_dir / f"sync-{name}", name, weed_programs, identities=identities)
            made.append(stack.enter_context(region))
            region.start()
        yield made[0], made[1]


@pytest.fixture
def place(regions: tuple[SeaweedRegion, SeaweedRegion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The packaged estate's declarations over these regions, with keys; the commands get the roles' pairs alone."""
    folder, keys = tmp_path / "defs", tmp_path / "keys"
    shutil.copytree(default_defs_dir(), folder, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    files = {"DR_KEYS_DIR": str(keys), "DR_TRUST_FILE": str(keys / "trust.json")}
    files["DR_SIGNING_KEY"] = str(keys / "signing.pem")
    roles, admin = dict(files), dict(files)
    for name, region in zip(("PRIMARY", "STANDBY"), regions, strict=True):
        for env in (roles, admin):
            env[f"DR_VAULT_{name}_ENDPOINT"] = region.endpoint
        admin |= {
            f"DR_VAULT_{name}_ACCESS_KEY": region.access_key,
            f"DR_VAULT_{name}_SECRET_KEY": region.secret_key,
        }
        for identity in region.identities:
            roles |= {
                f"DR_VAULT_{name}_{identity.name.upper()}_KEY": identity.access_key,
                f"DR_VAULT_{name}_{identity.name.upper()}_SECRET": identity.secret_key,
            }
    for name, value in roles.items():
        monkeypatch.setenv(name, value)
    estate = load_estate(folder)
    for name in estate.vaults:
        init_vault(estate, name, admin)
    primary, standby = (open_vault(estate, name, admin) for name in ("primary", "standby"))
    return SimpleNamespace(defs=folder, primary=primary, standby=standby, admin=admin)


@pytest.fixture
def run(place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("replicate")`: exit code and what it printed, as JSON where it is."""

    def command(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["dr-assets", *arguments, "--defs", str(place.defs)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        text = capsys.readouterr().out
        return int(ended.value.code or 0), json.loads(text) if text.startswith(("[", "{")) else text

    return command


def test_what_the_stores_copy_is_proven_and_what_they_do_not_we_bring(
    place: Any,
    run: Run,
    regions: tuple[SeaweedRegion, SeaweedRegion],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`filer.sync` away: red, named. At work: the same versions there, proven. Our own after it: copied, proven.

    A lock that was extended follows; and what the second region holds leaves as a bundle that verifies. To bring one
    in is no role's right.
    """
    soon = datetime.now(UTC) + timedelta(days=15)
    put_pieces(place.primary, lambda _: soon)
    code, (told,) = run("replicate", "--json")
    while told["datasets"]["ledger"]["unproven"] <= COUNT:  # what came within the last two seconds is not judged yet
        code, (told,) = run("replicate", "--json")
    assert code == 1
    assert told["copied"] == 0
    assert {each["why"] for each in told["unproven"]} == {"missing"}

    with FilerSync(*regions):
        wait_until(lambda: run("replicate", "--json")[0] == 0, timeout_s=180, what="the stores' copy", every_s=1)
    for obj in place.primary.objects("ledger", "wal"):
        assert place.standby.find(obj.key).version_id == obj.version_id

    declared = place.defs / "estate" / "defs.yaml"
    declared.write_text(declared.read_text().replace("replication: store", "replication: own"))
    first = next(place.primary.objects("ledger", "wal"))
    longer = Lock("COMPLIANCE", soon.replace(microsecond=0) + timedelta(days=9))
    place.primary.store.extend(str(first.key), first.version_id, longer)
    place.primary.store.set_hold(str(first.key), first.version_id, held=True)
    record_fact(place.primary, "ledger", "legal_hold", {"event": "placed"})
    wait_until(lambda: run("replicate", "--json")[1][0]["extended"] == 1, timeout_s=180, what="the lock", every_s=1.1)
    here = place.primary.store.head(str(first.key), first.version_id)
    there = place.standby.store.head(str(first.key), place.standby.find(first.key).version_id)
    assert (there.lock, there.held) == (here.lock, True)
    found = standing(place.primary, "standby")
    assert found is not None
    assert (found.unproven_count, found.is_own) == (0, True)

    # SeaweedFS dates an object anew when its lock changes, and what is of the last second is in no bundle.
    settled_at = there.modified_at + timedelta(seconds=2)
    wait_until(lambda: place.standby.store.now() >= settled_at, timeout_s=180, what="a second that is over")
    folder = str(tmp_path / "bundle")
    assert run("vault", "export", folder, "--vault", "standby", "--volume-size", "1MiB")[0] == 0
    code, told = run("vault", "verify", "--from-bundle", folder, "--json")
    assert (code, told["ok"]) == (0, True)
    assert run("vault", "import", folder, "--vault", "primary")[0] == REFUSED
    for name in ("ACCESS", "SECRET"):
        monkeypatch.setenv(f"DR_VAULT_PRIMARY_{name}_KEY", place.admin[f"DR_VAULT_PRIMARY_{name}_KEY"])
    code, told = run("vault", "import", folder, "--vault", "primary")
    assert (code, "0 of them copied" in told) == (0, True)
