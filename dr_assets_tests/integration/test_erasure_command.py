"""`dr-assets erasure …` as people run it, over two real regions; and every surviving copy that might bring one back."""

import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyrage import x25519

from dr_assets.cli import main
from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Estate
from dr_assets.vault.approvals import open_papers, sign
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.keys.life.escrow import open_escrow
from dr_assets.vault.replication.bundle import BundleStore
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage.s3 import make_client
from dr_assets.vault.subjects.backup import back_up
from dr_assets.vault.subjects.connect import open_ring, subject_ids
from dr_assets.vault.subjects.deletion import delete, finish
from dr_assets.vault.subjects.envelope import bound_to, open_with, seal_for
from dr_assets.vault.subjects.erased import read_list
from dr_assets.vault.subjects.gather import gather
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.records import deletion_name, key_name
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.s3_shelf import S3Shelf

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

Run = Callable[..., SimpleNamespace]
MADE = cache(make_client)
ANNA, BORIS = "anna@example.com", "boris@example.com"


@pytest.fixture(scope="module")
def first(engines_dir: Path, weed_programs: Programs) -> Iterator[SeaweedRegion]:
    """The primary's region, of these tests' own: the last one kills it."""
    with SeaweedRegion(engines_dir / "erasure-first", "first", weed_programs) as server:
        server.start()
        yield server


@pytest.fixture
def approvers() -> dict[str, Signer]:
    """Two people who have to agree."""
    return {"dpo": Signer.generate(), "security": Signer.generate()}


@pytest.fixture
def identity() -> x25519.Identity:
    """What lies in a safe."""
    return x25519.Identity.generate()


@pytest.fixture
def defs(
    first: SeaweedRegion,
    region: SeaweedRegion,
    approvers: dict[str, Signer],
    identity: x25519.Identity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The packaged declarations in two regions, with people's keys, two approvers and a duty to keep."""
    for name in load_estate(default_defs_dir()).env_names():
        monkeypatch.delenv(name, raising=False)
    for name in ("DR_KEYS_DIR", "DR_TRUST_FILE", "DR_SIGNING_KEY", "DR_SUBJECT_ID_KEY", "DR_ENDS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name, server in (("PRIMARY", first), ("STANDBY", region)):
        monkeypatch.setenv(f"DR_VAULT_{name}_ENDPOINT", server.endpoint)
        monkeypatch.setenv(f"DR_VAULT_{name}_ACCESS_KEY", server.access_key)
        monkeypatch.setenv(f"DR_VAULT_{name}_SECRET_KEY", server.secret_key)
    folder, bucket = tmp_path / "defs", f"erase-{secrets.token_hex(6)}"
    shutil.copytree(default_defs_dir(), folder, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    declared = folder / "estate" / "defs.yaml"
    keys = ", ".join(f"{{name: {name}, public_key: {one.public_key.hex()}}}" for name, one in approvers.items())
    text = re.sub(r"(?ms)^  subjects:.*?(?=^  \w)", "", declared.read_text()).replace("dr-assets-vault", bucket)
    declared.write_text(
        text + f"  subjects: {{vaults: [primary, standby], bucket: {bucket}-people, id_key_env: DR_SUBJECT_ID_KEY,"
        f" relationships_env: DR_ENDS, escrow_recipient: {identity.to_public()}}}\n"
        "  regimes: {know_your_customer: {days: 20, mode: compliance, source: the act, opposes_erasure: true}}\n"
        f"  approvals: {{needed: 2, approvers: [{keys}]}}\n"
    )
    ledger = folder / "ledger" / "defs.yaml"
    text = ledger.read_text().replace("contract: casino_ledger", "contract: ../../contract")
    ledger.write_text(text.replace("retention: {", "retention: {regimes: [know_your_customer], ", 1))
    contract = tmp_path / "contract"
    shutil.copytree(Path("dr_assets/reconciliation/contracts/casino_ledger"), contract)
    (contract / "contract.yaml").write_text(
        (contract / "contract.yaml").read_text().replace("  relationships: relationships.sql\n", "")
    )
    (tmp_path / "dr_ends").write_text(f"personal_id,ended_at\n{ANNA},2001-01-01\n{BORIS},\n")
    return folder


@pytest.fixture
def run(defs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls `dr-assets` in this process."""
    monkeypatch.setattr("dr_assets.vault.connect.make_client", MADE)

    def call(*args: str, said: str = "") -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["dr-assets", *args, "--defs", str(defs)])
        monkeypatch.setattr(sys, "stdin", StringIO(said))
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return SimpleNamespace(code=code, out=told.out, err=told.err)

    return call


@pytest.fixture
def estate(run: Run, defs: Path) -> Estate:
    """Both vaults and the ring are there; two people have a key."""
    for name in ("primary", "standby"):
        assert run("vault", "init", "--vault", name).code == 0
    assert run("keys", "subjects", "init").code == 0
    declared = load_estate(defs)
    ring, ids = open_ring(declared, os.environ), subject_ids(declared, os.environ)
    for who in (ANNA, BORIS):
        ring.key_for_sealing(ids.of(who))
    return declared


def _sign(approvers: dict[str, Signer], paper: Path, folder: Path) -> list[str]:
    asked, _ = open_papers(paper.read_bytes())
    files = []
    for name, one in approvers.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(sign(asked, one).to_json()))
        files.append(str(path))
    return files


def test_from_the_request_to_the_certificate_on_the_command_line(
    run: Run, estate: Estate, approvers: dict[str, Signer], tmp_path: Path
) -> None:
    """Read from standard input, refused by duty and hold, approved by two, executed once, certified, told by status."""
    paper = tmp_path / "request.json"
    ask = ("erasure", "request", "--ground", "art17_1_a", "--requester", "dpo", "--out", str(paper))
    assert estate.subjects is not None
    refused = run(*ask, "--reason", "case 1", said=f"{BORIS}\n")
    assert (refused.code, "retention duty know_your_customer" in refused.err, BORIS in refused.err) == (2, True, False)
    assert "erasure.names_somebody" in run(*ask, "--reason", f"for {ANNA}", said=f"{ANNA}\n").err
    placed = run("erasure", "hold", "place", "--reason", "case 4711", said=f"{ANNA}\n")
    held = placed.out.split()[1]
    assert "case 4711" in run(*ask, "--reason", "case 2", said=f"{ANNA}\n").err
    assert run("erasure", "hold", "release", held, "--reason", "closed").code == 0
    assert run(*ask, "--reason", "case 2", said=f"{ANNA}\n").code == 0

    erasure = open_papers(paper.read_bytes())[0].request_id
    assert "approvals.too_few" in run("erasure", "execute", erasure).err
    assert "enough" in run("erasure", "approve", *_sign(approvers, paper, tmp_path)).out
    certificate = tmp_path / "certificate.json"
    done = run("erasure", "execute", erasure[:12], "--certificate", str(certificate))
    assert (done.code, "still to be replayed: ledger" in done.out) == (0, True)
    said = json.loads(run("erasure", "certificate", "--verify", str(certificate)).out)
    assert (said["state"], said["approved_by"], said["estate"]) == ("soft", ["dpo", "security"], "casino")
    assert ANNA not in certificate.read_text() + paper.read_text()
    assert run("erasure", "certificate", erasure).out == certificate.read_text()

    assert "soft" in run("erasure", "list").out
    status = run("erasure", "status")
    assert (status.code, "NOT REPLAYED: ledger" in status.out) == (1, True)
    assert run("erasure", "daily").code == 0
    assert run("keys", "subjects", "verify").code == 0
    assert run("vault", "verify").code == 0
    assert run("log", "sequence").code == 0


class Agreed:
    """Approvals of whatever is asked."""

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Agree."""
        return f"{action}-{len(objects)}"


def test_no_surviving_copy_of_anything_brings_a_person_back(
    run: Run,
    estate: Estate,
    identity: x25519.Identity,
    first: SeaweedRegion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bundle, escrow, old key folder, a copy of a bucket laid back, a region away: the document stays noise."""
    ring, ids = open_ring(estate, os.environ), subject_ids(estate, os.environ)
    anna, boris = ids.of(ANNA), ids.of(BORIS)
    sealed = {}
    for who in (anna, boris):
        aad = bound_to(estate="casino", dataset="ledger", subject_id=who, document_id="passport#1")
        sealed[who] = seal_for(ring.key_for_sealing(who), b"passport", aad).hex()
    record_fact(ring.vault, "ledger", "note", dict(sealed))
    hasty = replace(ring, policy=ErasurePolicy(timedelta(seconds=20)))  # a backup has to be put before its lock is over
    back_up(hasty)
    keys_of_then = tmp_path / "keys-of-then"
    shutil.copytree(tmp_path / "dr_keys_dir", keys_of_then)
    escrow = tmp_path / "escrow.age"
    exported = run("keys", "export", "--recipient", str(identity.to_public()), "--out", str(escrow))
    assert exported.code == 0
    bundle = tmp_path / "bundle"
    assert run("vault", "export", str(bundle), "--vault", "primary").code == 0
    standby = next(shelf for shelf in ring.shelves if shelf.region == "standby")
    assert isinstance(standby, S3Shelf)
    backups = {str(obj.key): ring.vault.fetch(obj) for obj in ring.vault.objects("subjects", "ring")}
    copy = {name: standby.get(name) or b"" for name in standby.names("casino/")}

    delete(hasty, [anna], Agreed())
    _no_way_back(estate, anna, boris)
    deadline = time.monotonic() + 240
    while not finish(hasty).erased:
        assert time.monotonic() < deadline, "the grace never ended"
        time.sleep(0.5)
    _no_way_back(estate, anna, boris)

    # A copy of the bucket that somebody kept is laid back, marks and all; nobody is away.
    for name, data in copy.items():
        standby.erase(name)
        standby.put_new(name, data)
    standby.erase(deletion_name("casino", anna))
    _no_way_back(estate, anna, boris)
    assert "returned: " + anna in run("keys", "subjects", "verify").out
    assert (run("keys", "subjects", "finish").code, standby.versions(key_name("casino", anna))) == (1, [])

    _carry_no_key(bundle, escrow, identity, ring, copy[key_name("casino", anna)], boris)
    shutil.rmtree(tmp_path / "dr_keys_dir")
    shutil.copytree(keys_of_then, tmp_path / "dr_keys_dir")
    _no_way_back(estate, anna, boris)
    for name, data in backups.items():  # a backup of the ring that somebody copied before it had to go
        first.client().put_object(Bucket=estate.vaults["primary"].bucket, Key=name, Body=data)
    assert run("keys", "subjects", "recover").out.startswith("0 people")
    _no_way_back(estate, anna, boris)

    first.kill()
    _learned_from_marks(estate, bundle, anna, monkeypatch)


def _carry_no_key(
    bundle: Path, escrow: Path, identity: x25519.Identity, ring: SubjectRing, record: bytes, boris: str
) -> None:
    """Neither the bundle nor the escrow of data keys names anybody's key, live or erased."""
    whole = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file())
    assert b"person-key" not in whole
    assert record not in whole
    assert not [path for path in bundle.rglob("*") if "/ring/" in str(path)]
    opened = open_escrow(escrow.read_bytes(), str(identity))
    held = {key.key_id for keys in opened.data_keys.values() for key in keys.values()}
    assert ring.key_of(boris).key_id not in held


def _learned_from_marks(estate: Estate, bundle: Path, anna: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The primary is lost, its replica knows nothing: the marks tell it all; where nobody answers, it is refused."""
    second = open_vault(estate, "standby", os.environ, signing=False)
    assert gather(estate, second, os.environ).people.keys() == {anna}
    old = open_vault(
        estate,
        "primary",
        os.environ,
        store=BundleStore(bundle, Trust.load(Path(os.environ["DR_TRUST_FILE"]))),
        signing=False,
    )
    assert read_list(old).people == {}
    assert gather(estate, old, os.environ, is_copy=True).people.keys() == {anna}
    for name in ("PRIMARY", "STANDBY"):
        monkeypatch.setenv(f"DR_VAULT_{name}_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PolicyError, match=r"erasure\.list_unreachable"):
        gather(estate, old, os.environ, is_copy=True)
    assert gather(estate, old, os.environ, is_copy=True, accept_copy=True).people == {}


def _no_way_back(estate: Estate, anna: str, boris: str) -> None:
    """A new process with every right and every key that is left: Boris' document opens, Anna's doesn't."""
    ring = open_ring(estate, os.environ)
    fact = latest_fact(ring.vault, "ledger", "note")
    assert fact is not None
    aads = {
        who: bound_to(estate="casino", dataset="ledger", subject_id=who, document_id="passport#1")
        for who in (anna, boris)
    }
    assert open_with(ring.key_of(boris), bytes.fromhex(str(fact.body[boris])), aads[boris]) == b"passport"
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        ring.key_of(anna)
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        ring.key_for_sealing(anna)
    with pytest.raises(VaultError, match=r"vault\.wrong_key"):
        open_with(ring.key_of(boris), bytes.fromhex(str(fact.body[anna])), aads[anna])
