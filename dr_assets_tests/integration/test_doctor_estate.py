"""The doctor on real engines: a healthy estate is green, and each thing that breaks turns its own line."""

import json
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.cli import main
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import Estate
from dr_assets.stores.postgres.capture import Capture, CaptureOptions
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.facts import record_fact
from dr_assets_tests.integration.capture.rig import drop_slot

pytestmark = pytest.mark.integration

Rows = dict[str, list[tuple[str, str]]]


@pytest.fixture
def place(region: SeaweedRegion, postgres_server: Any, tmp_path: Path) -> SimpleNamespace:
    """A declared estate of the test's own: a source, a bucket, keys. The replica is a bucket beside it."""
    folder, keys = tmp_path / "defs", tmp_path / "keys"
    shutil.copytree(default_defs_dir(), folder, ignore=shutil.ignore_patterns("__pycache__", "game_events", "kyc"))
    declared = folder / "estate" / "defs.yaml"
    text = declared.read_text()
    for name in ("primary", "standby"):
        text = text.replace("dr-assets-vault", f"doctor-{name}-{secrets.token_hex(4)}", 1)
    declared.write_text(text)
    server = postgres_server(settings={"fsync": False, "max_slot_wal_keep_size": "1GB", "track_commit_timestamp": True})
    env = {"LEDGER_DSN": server.dsn(), "DR_KEYS_DIR": str(keys), "DR_ALERT_WEBHOOK": "https://example.com/hook"}
    env |= {"DR_TRUST_FILE": str(keys / "trust.json"), "DR_SIGNING_KEY": str(keys / "signing.pem")}
    for name in ("PRIMARY", "STANDBY"):
        env |= {
            f"DR_VAULT_{name}_ENDPOINT": region.endpoint,
            f"DR_VAULT_{name}_ACCESS_KEY": region.access_key,
            f"DR_VAULT_{name}_SECRET_KEY": region.secret_key,
        }
    estate = load_estate(folder)
    for name in estate.vaults:
        init_vault(estate, name, env)
    return SimpleNamespace(estate=estate, env=env, defs=folder, server=server)


@pytest.fixture
def doctor(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`doctor("--write-probe")`: exit code, and the verdicts with what was found, by check."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)

    def look(*options: str) -> tuple[int, Rows]:
        monkeypatch.setattr(
            sys, "argv", ["dr-assets", "doctor", "ledger", "--json", "--defs", str(place.defs), *options]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        rows: Rows = {}
        for row in json.loads(capsys.readouterr().out)["checks"]:
            rows.setdefault(row["check"], []).append((row["verdict"], row["found"]))
        return int(ended.value.code or 0), rows

    return look


@pytest.fixture
def capturing(place: SimpleNamespace) -> Iterator[Callable[[], None]]:
    """A capture beside the test, streaming with a heartbeat stored once the context is entered; call it to stop it."""
    stop, streaming = threading.Event(), threading.Event()
    dataset = place.estate.datasets["ledger"]
    capture = Capture(
        open_vault(place.estate, "primary", place.env),
        dataset,
        place.env["LEDGER_DSN"],
        listener=lambda report: streaming.set() if report.recovery_point_at else None,
        options=CaptureOptions(heartbeat_every_s=0.2, report_every_s=0.05),
    )
    thread = threading.Thread(target=capture.run, args=(stop,))
    thread.start()
    assert streaming.wait(180)

    def end() -> None:
        stop.set()
        thread.join(180)

    yield end
    end()


def seal_proofs(estate: Estate, env: dict[str, str]) -> None:
    """The facts of a restore test, a reconciliation and a drill that passed just now."""
    vault = open_vault(estate, "primary", env)
    for kind in ("restore_test", "reconciliation", "drill"):
        record_fact(vault, "ledger", kind, {"outcome": "passed"})


def bad(rows: Rows) -> set[str]:
    """The checks with a bad line."""
    return {check for check, lines in rows.items() if any(verdict == "bad" for verdict, _ in lines)}


def test_each_thing_that_breaks_turns_its_own_line(
    place: SimpleNamespace, doctor: Any, capturing: Callable[[], None], tmp_path: Path
) -> None:
    """A healthy estate has no bad line; a dead capture, a dropped slot, a lost key, a full disk are told apart."""
    dataset = place.estate.datasets["ledger"]
    vault = open_vault(place.estate, "primary", place.env)
    stop_lsn = take_snapshot(vault, dataset, place.env["LEDGER_DSN"]).stop_lsn
    seal_proofs(place.estate, place.env)
    while (point := stored_recovery_point(vault, dataset)) is None or point.lsn < stop_lsn:
        time.sleep(0.1)  # the suite's own time limit ends this
    code, rows = doctor()
    assert (code, bad(rows)) == (1, set()), rows
    assert rows["source"][0][1].startswith("PostgreSQL 17.")
    assert rows["capture"][0][0] == rows["restore plan"][0][0] == rows["room"][0][0] == "ok"
    assert rows["replica standby"][-1] == ("warn", "in the copy nothing is stored yet")

    capturing()
    code, rows = doctor()
    assert (code, bad(rows)) == (2, {"capture"}), rows["preflight"]
    drop_slot(place.env["LEDGER_DSN"], dataset.slot)
    assert bad(doctor()[1]) == {"slot"}
    place.server.stop()
    rows = doctor()[1]
    assert bad(rows) == {"source", "preflight"}
    assert "source.unreachable" in rows["source"][0][1]
    assert rows["restore plan"][0][0] == "ok"
    (Path(place.env["DR_KEYS_DIR"]) / "kek-0001.hex").rename(tmp_path / "kek")
    rows = doctor()[1]
    assert {"keys", "vault", "base backup", "recovery point"} <= bad(rows)
    assert "keys.no_kek" in rows["keys"][0][1]


def test_the_write_probe_tries_the_lock_for_real(place: SimpleNamespace, doctor: Any, region: SeaweedRegion) -> None:
    """On a bucket with Object Lock writing over and shortening are refused; one without it is told, and not trusted."""
    rows = doctor("--write-probe")[1]
    assert [rows[check][0][0] for check in ("write probe", "write once", "lock holds")] == ["ok", "ok", "ok"]
    open_bucket = f"doctor-open-{secrets.token_hex(4)}"
    region.create_bucket(open_bucket, object_lock=False)
    declared = place.defs / "estate" / "defs.yaml"
    declared.write_text(declared.read_text().replace(place.estate.vaults["primary"].bucket, open_bucket))
    rows = doctor("--write-probe")[1]
    assert "can be deleted" in rows["vault"][0][1]
    assert rows["write probe"][0][0] == "bad"
