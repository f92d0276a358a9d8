"""The embedded estate kept running for a person: workload, capture, Dagster UI and daemon until Ctrl-C.

What belongs here: the order of starting, what is printed, watching the children. What stays out: the story.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from dr_assets.demo.children import Children
from dr_assets.demo.documents_story import DocumentsStory
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.demo.lock import run_lock
from dr_assets.demo.progress import Steps
from dr_assets.engines.ports import free_port
from dr_assets.engines.supervise import Child
from dr_assets.estate.declarations import default_defs_dir, load_estate

_STEPS = 4


def keep_running(home: Path, console: Console, *, rate_per_s: float, port: int) -> None:
    """Starts everything, prints where to look, and ends only by an interrupt, which stops every child."""
    steps = Steps(console, _STEPS)
    with run_lock(home), ExitStack() as stack:
        with steps.step("start the embedded estate") as step:
            estate = stack.enter_context(EmbeddedEstate(load_estate(default_defs_dir()), home, steps.note))
            step.says = ", ".join(f"{name} {version}" for name, version in estate.describe_engines().items())
        children = Children(estate)
        running: list[Child] = []
        metrics_ports = {"ledger": free_port(), "game_events": free_port()}
        with steps.step("start the casino's workload and the captures") as step:
            running.append(stack.enter_context(children.workload(rate_per_s=rate_per_s, reconnect=True)))
            for dataset, metrics_port in metrics_ports.items():
                running.append(stack.enter_context(children.capture(dataset, metrics_port=metrics_port)))
            step.says = f"{DocumentsStory(estate).put()} documents put"
        with steps.step("take the first copies through Dagster (ledger/snapshot, kyc/bucket_copy)") as step:
            step.says = f"{children.materialize('key:ledger/snapshot or key:kyc/bucket_copy'):.1f} s"
        with steps.step("start Dagster's daemon and UI"):
            ui_port = port or free_port()
            running.append(stack.enter_context(children.code_server()))
            running.append(stack.enter_context(children.daemon()))
            running.append(stack.enter_context(children.webserver(port=ui_port)))
        _say_where(console, estate, ui_port, metrics_ports)
        _watch(running, steps)


def _say_where(console: Console, estate: EmbeddedEstate, ui_port: int, metrics_ports: Mapping[str, int]) -> None:
    lines = {
        "Dagster UI": f"http://127.0.0.1:{ui_port}",
        **{f"metrics of {name}": f"http://127.0.0.1:{port}/metrics" for name, port in metrics_ports.items()},
        "broker": f"{estate.broker.bootstrap} ({estate.broker.describe()})",
        "documents": estate.documents.endpoint,
        "logs": str(estate.logs),
        "environment for dr-assets": f"set -a; . {estate.home / 'env'}; set +a",
    }
    console.print()
    for what, where in lines.items():
        console.print(f"  {what + ':':<27}{where}", markup=False, highlight=False, soft_wrap=True)
    console.print("\n  Ctrl-C stops everything.", highlight=False)


def _watch(running: list[Child], steps: Steps) -> None:
    """Says once of each child that it has ended, and goes on: killing one to see what turns red is what this is for."""
    dead: set[str] = set()
    while True:
        for child in running:
            if not child.alive and child.name not in dead:
                dead.add(child.name)
                steps.note(f"{child.name} ended with return code {child.poll()}; its log: {child.log_path}")
        time.sleep(0.5)
