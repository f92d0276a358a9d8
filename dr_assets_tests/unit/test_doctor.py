import json
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.cli import main
from dr_assets.cli.doctor import command, keys, settings
from dr_assets.cli.doctor.bounded import Probe, examine
from dr_assets.cli.doctor.line import EXIT_CODES, Line, Verdict, worst
from dr_assets.cli.doctor.patient import Patient, secrets_of, without_secrets
from dr_assets.engines.ports import LOOPBACK
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate, Spool
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.signing import Signer, Trust

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def estate() -> Estate:
    """The packaged estate."""
    return load_estate(default_defs_dir()).only("ledger")


@pytest.fixture
def run(estate: Estate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls `dr-assets doctor` in this process with exactly these variables of the estate's."""
    for name in (*estate.env_names(), "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)

    def call(*args: str, env: dict[str, str] | None = None) -> SimpleNamespace:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["dr-assets", "doctor", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=said.out, err=said.err)

    return call


@pytest.fixture
def key_files(tmp_path: Path, estate: Estate) -> dict[str, str]:
    """A host's keys: one key-encryption key, one signer, a trust file that lists it."""
    folder = tmp_path / "keys"
    FileKeyProvider.create(folder)
    signer = Signer.generate()
    signer.save(folder / "signing.pem")
    Trust.of(signer).save(folder / "trust.json", name="writer")
    return {
        estate.keys_dir_env: str(folder),
        estate.signing_key_env: str(folder / "signing.pem"),
        estate.trust_file_env: str(folder / "trust.json"),
    }


@pytest.fixture
def shut_port() -> Iterator[int]:
    """Where nobody answers, and nobody else can begin to: it is taken, and not listened on."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        yield taken.getsockname()[1]


def look(*lines: Line, then: Callable[[], object] = lambda: None) -> Callable[[], Iterator[Line]]:
    """A probe's look that tells these lines and then does something."""

    def probe() -> Iterator[Line]:
        yield from lines
        then()

    return probe


def test_a_probe_that_hangs_costs_one_line_and_hides_nothing() -> None:
    """What it had found is told, then that it gave no answer; every probe behind it is told as well."""
    never = threading.Event()
    hung = [Probe("ledger", f"hung {n}", look(Line("a", "ok", f"found {n}"), then=never.wait)) for n in range(8)]
    told, bugs = examine([*hung, Probe("ledger", "well", look(Line("b", "ok", "fine")))], within_s=1.5)
    never.set()
    assert not bugs
    assert [(line.verdict, line.found) for _, line in told] == [
        *(pair for n in range(8) for pair in (("ok", f"found {n}"), ("bad", "no answer within 1.5 s"))),
        ("ok", "fine"),
    ]


def test_a_probe_that_fails_is_one_bad_line_with_its_hint() -> None:
    """An error a person must act on ends its own probe only; its code, what was found and the hint are kept."""

    def away() -> object:
        raise VaultError("vault.unreachable", "the store does not answer", "start it")

    probes = [Probe("ledger", "vault", look(then=away)), Probe("ledger", "source", look(Line("source", "ok", "fine")))]
    told, bugs = examine(probes, within_s=60)
    assert not bugs
    assert [line for _, line in told] == [
        Line("vault", "bad", "vault.unreachable: the store does not answer", "start it"),
        Line("source", "ok", "fine"),
    ]


def test_our_own_bug_is_raised_after_everything_else_was_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash in one probe is a traceback, as everywhere, and the table stands above it."""

    def bug() -> object:
        raise ZeroDivisionError

    probes = [Probe("ledger", "odd", look(then=bug)), Probe("ledger", "even", look(Line("even", "ok", "told")))]
    monkeypatch.setattr(command, "probes_of", lambda *_, **__: probes)
    monkeypatch.setattr(sys, "argv", ["dr-assets", "doctor"])
    with pytest.raises(ZeroDivisionError):
        main()
    assert "told" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verdicts", "code"), [(["ok", "ok"], 0), (["ok", "warn"], 1), (["bad", "warn", "ok"], 2), ([], 0)]
)
def test_the_exit_code_is_the_worst_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, verdicts: list[Verdict], code: int
) -> None:
    """0 is ok, 1 a warning, 2 something bad: what a supervisor or a pager goes by."""
    lines = [Line("x", verdict, f"found {n}", "do this") for n, verdict in enumerate(verdicts)]
    monkeypatch.setattr(command, "probes_of", lambda *_, **__: [Probe("ledger", "x", look(*lines))])
    said = run("--json")
    assert said.code == code == EXIT_CODES[worst(verdicts)]
    assert [row["verdict"] for row in json.loads(said.out)["checks"]] == ["ok", *verdicts]


def test_what_is_not_ok_says_what_to_do() -> None:
    """A finding without a next step is refused where it is made."""
    with pytest.raises(ValueError, match="what to do"):
        Line("slot", "bad", "lost")


def test_nothing_set_is_told_by_name_and_no_probe_crashes(run: Run, estate: Estate) -> None:
    """On a host where nothing is configured yet, every lacking variable is named, each cause in full once."""
    said = run("--json", "--within", "3m")
    rows = json.loads(said.out)["checks"]
    assert said.code == 2
    lacking = "\n".join(row["found"] for row in rows if row["check"] == "environment")
    names = ("LEDGER_DSN", "GAME_EVENTS_BOOTSTRAP", "KYC_SECRET_KEY", estate.keys_dir_env)
    assert all(name in lacking for name in (*names, "DR_VAULT_PRIMARY_READER_SECRET"))
    assert {"cluster", "bucket", "gaps"} <= {row["check"] for row in rows}
    assert {"source", "vault", "replica standby", "recovery point", "base backup"} <= {row["check"] for row in rows}
    told = [row["found"] for row in rows if row["found"].startswith("vault.setting_missing: DR_VAULT_PRIMARY")]
    assert len(told) == 1


def test_no_secret_is_ever_shown(run: Run, estate: Estate, key_files: dict[str, str], shut_port: int) -> None:
    """Passwords, keys and webhooks appear in neither form of the output, whatever fails and whoever quotes them."""
    port = shut_port
    secret = "hunter2-do-not-print"
    env = {name: f"{secret}-{name}" for name in estate.env_names()}
    env |= key_files | {
        "LEDGER_DSN": f"host=127.0.0.1 port={port} user=u dbname=d password='{secret} quoted'",
        "DR_VAULT_PRIMARY_ENDPOINT": f"http://127.0.0.1:{port}",
        "DR_VAULT_STANDBY_ENDPOINT": f"http://127.0.0.1:{port}",
        "GAME_EVENTS_BOOTSTRAP": f"127.0.0.1:{port}",
        "KYC_ENDPOINT": f"http://127.0.0.1:{port}",
        "KYC_ACCESS_KEY": f"{secret}-key",
        "KYC_SECRET_KEY": f"{secret}-secret",
    }
    for options in (("--within", "3m"), ("--within", "3m", "--json")):
        said = run(*options, env=env)
        assert said.code == 2
        assert "source.unreachable" in said.out
        assert secret not in said.out + said.err
    said = run("ledger", "--within", "3m", env={"LEDGER_DSN": f"postgres://u:{secret}@/d?bad=%zz"})
    assert secret not in said.out + said.err


def test_what_quotes_a_secret_all_the_same_is_blacked_out(estate: Estate) -> None:
    """The second lock: a server's own words may hold what it was given."""
    env = {"LEDGER_DSN": "host=db user=u password=hunter2x", "DR_VAULT_PRIMARY_SECRET_KEY": "s3cr3t/key"}
    text = without_secrets("password hunter2x of s3cr3t/key is wrong", secrets_of(estate, env))
    assert text == "password ******** of ******** is wrong"


def test_refused_declarations_are_told_and_nothing_else_is_tried(run: Run, tmp_path: Path) -> None:
    """Without a sound policy there is nothing to compare with: each finding with file and line, exit 2."""
    folder = tmp_path / "defs"
    shutil.copytree(default_defs_dir(), folder, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    declared = folder / "ledger" / "defs.yaml"
    declared.write_text(declared.read_text().replace("rpo: 30s", "rpo: 45s"))
    said = run("--json", "--defs", str(folder))
    (row,) = json.loads(said.out)["checks"]
    assert said.code == 2
    assert f"{declared}:7: rpo 45s" in row["found"]


def test_an_unknown_dataset_is_refused(run: Run) -> None:
    """A typo is an error, not a clean bill of health."""
    said = run("legder")
    assert said.code == 2
    assert "cli.unknown_dataset" in said.err


def patient_of(estate: Estate, env: dict[str, str], **changed: Any) -> Patient:
    """The ledger with these variables and changes."""
    return Patient(estate, replace(estate.datasets["ledger"], **changed), env)


def test_keys_that_others_may_read_or_that_nobody_trusts_are_bad(
    estate: Estate, key_files: dict[str, str], tmp_path: Path
) -> None:
    """A private key open to others, a signer that the trust file lacks, a trust file that others may extend."""
    patient = patient_of(estate, key_files)
    assert [line.verdict for line in keys.keys(patient)] == ["warn", "ok", "ok"]
    trust = Path(key_files[estate.trust_file_env])
    trust.chmod(0o666)
    assert [line.verdict for line in keys.keys(patient)][-1] == "bad"
    stranger = tmp_path / "stranger.json"
    Trust.of(Signer.generate()).save(stranger, name="stranger")
    lines = list(keys.keys(patient_of(estate, key_files | {estate.trust_file_env: str(stranger)})))
    assert "does not list signer" in lines[-1].found
    Path(key_files[estate.signing_key_env]).chmod(0o644)
    told, _ = examine([Probe("ledger", "keys", lambda: keys.keys(patient))], within_s=60)
    assert "keys.readable_by_others" in told[-1][1].found


def test_a_spool_is_judged_by_folder_mode_room_and_what_lies_in_it(estate: Estate, tmp_path: Path) -> None:
    """No folder, one open to others, one larger than its disk, one that is not empty: each is told apart."""
    env = {"SPOOL": str(tmp_path / "spool")}
    patient = patient_of(estate, env, spool=Spool("SPOOL", 1 << 20))
    assert not list(settings.spool(patient_of(estate, env)))
    assert [line.found for line in settings.spool(patient)] == ["SPOOL names no folder"]
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    assert [line.verdict for line in settings.spool(patient)] == ["ok"]
    (folder / "piece").write_bytes(b"x")
    assert "did not take everything" in next(settings.spool(patient)).hint
    (folder / "piece").unlink()
    folder.chmod(0o755)
    assert "mode 755" in next(settings.spool(patient)).found
    folder.chmod(0o700)
    huge = patient_of(estate, env, spool=Spool("SPOOL", 1 << 60))
    assert "before the spool is" in next(settings.spool(huge)).hint


def test_a_disk_too_small_for_a_restore_is_bad(estate: Estate, tmp_path: Path) -> None:
    """Told before the night in which it matters, with the variable that moves the work elsewhere."""
    patient = patient_of(estate, {"DR_ASSETS_WORK_DIR": str(tmp_path)})
    assert settings.room_for(patient, 1 << 20).verdict == "ok"
    line = settings.room_for(patient, 1 << 60)
    assert (line.verdict, "DR_ASSETS_WORK_DIR" in line.hint) == ("bad", True)


def test_programs_of_another_major_version_do_not_count(estate: Estate) -> None:
    """A restore needs programs of exactly the source's major version."""
    told, _ = examine(
        [Probe("ledger", "programs", lambda: iter([settings.programs_for(patient_of(estate, {}), 9, "the source")]))],
        within_s=60,
    )
    assert "engine.no_programs" in told[0][1].found
