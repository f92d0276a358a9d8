"""The main job as a user runs it: the command, its report, what it leaves behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from dr_assets.demo.report import DemoReport

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

DEMO = [sys.executable, "-m", "dr_assets.cli", "demo", "--rate", "200", "--load-s", "4", "--home"]
INTERRUPTED = 130


def processes_naming(text: str) -> list[str]:
    """Command lines of every process that names `text`; a guard or an engine of a run names its folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if text in line:
            found.append(line)
    return found


def wait_until_gone(text: str, timeout_s: float = 180.0) -> list[str]:
    """What is left of the processes that name `text` once they had time to end."""
    deadline = time.monotonic() + timeout_s
    while (left := processes_naming(text)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def test_the_money_comes_back_and_the_same_home_serves_again_until_an_interrupt(engines_dir: Path) -> None:
    """The demo exits 0 and its report keeps every promise; a second run on the same home works as well.

    Ctrl-C in the middle of that exits 130. Neither leaves a process.
    """
    home = engines_dir / "demo"
    ran = subprocess.run([*DEMO, str(home)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    written = json.loads((home / "report.json").read_text())
    jsonschema.validate(written, DemoReport.model_json_schema())
    assert (written["ok"], written["broken_promises"]) == (True, [])
    assert written["commits_acknowledged"] > 1000
    assert "password" not in ran.stdout + ran.stderr
    assert wait_until_gone(str(home)) == []

    with subprocess.Popen([*DEMO, str(home)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("[3/"):
                break
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
        assert demo.wait(180) == INTERRUPTED, rest
    assert "Traceback" not in rest
    assert wait_until_gone(str(home)) == []
