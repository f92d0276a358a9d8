"""Takes the pictures in docs/images/ from a real run: the asset graph while all is well, and a red RPO.

Wants chromium (scripts/install_test_engines.sh --screenshots). Starts the embedded estate under .demo-screenshots/,
waits until everything is green, takes the graph, kills the capture, waits until the `rpo` check is red, takes that.
"""

import json
import shutil
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright
from rich.console import Console

from dr_assets.demo.children import ROOT, Children
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.demo.lock import run_lock
from dr_assets.demo.progress import Steps
from dr_assets.engines.ports import free_port
from dr_assets.estate.declarations import default_defs_dir, load_estate

HOME = ROOT / ".demo-screenshots"
IMAGES = ROOT / "docs" / "images"
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CHECK_QUERY = """
query Checks($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { status } } } } } }
}
"""
RED_TIMEOUT_S = 120
GREEN_TIMEOUT_S = 300
WIDE: ViewportSize = {"width": 1680, "height": 1250}
TALL: ViewportSize = {"width": 2000, "height": 2700}  # three groups below each other, unfolded


def main() -> int:
    """Everything in order; returns the exit code."""
    steps = Steps(Console(), 6)
    IMAGES.mkdir(parents=True, exist_ok=True)
    try:
        with run_lock(HOME), ExitStack() as stack:
            take(steps, stack)
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
    return 0


def take(steps: Steps, stack: ExitStack) -> None:
    """The run behind the pictures."""
    with steps.step("start the embedded estate"):
        estate = stack.enter_context(EmbeddedEstate(load_estate(default_defs_dir()), HOME, steps.note))
        children = Children(estate)
        stack.enter_context(children.workload(rate_per_s=100, reconnect=True))
        capture = stack.enter_context(children.capture(metrics_port=0))
    with steps.step("take a base backup"):
        children.materialize("key:ledger/snapshot")
    with steps.step("restore test, reconciliation, drill, coverage, roll-up, the vault's own"):
        for selection in (
            "key:ledger/restore_test or key:ledger/reconciliation",
            "key:estate/coverage",
            "key:estate/drill",
            "key:ledger/roll_up",
            "group:vault",
        ):
            children.materialize(selection)
    with steps.step("start Dagster's daemon and UI, wait until the RPO is green"):
        port = free_port()
        stack.enter_context(children.daemon())
        stack.enter_context(children.webserver(port=port))
        address = f"http://127.0.0.1:{port}"
        wait_for(address, "rpo", "SUCCEEDED", GREEN_TIMEOUT_S)
    playwright = stack.enter_context(sync_playwright())
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
    stack.callback(browser.close)
    page = browser.new_page(viewport=WIDE)
    with steps.step("picture of the asset graph"):
        dismiss_greeting(page, address)
        page.set_viewport_size(TALL)
        shoot_graph(page, address, "asset-graph.png")
        page.set_viewport_size(WIDE)
    with steps.step("kill the capture, wait until the RPO is red, picture of it"):
        capture.kill()
        wait_for(address, "rpo", "FAILED", RED_TIMEOUT_S)
        shoot(page, f"{address}/assets/ledger/wal_chain?view=checks&checkDetail=rpo", "rpo-red.png")


def wait_for(address: str, check: str, status: str, timeout_s: float) -> None:
    """Waits until the newest execution of a check of `ledger/wal_chain` has `status`."""
    body = json.dumps({"query": CHECK_QUERY, "variables": {"key": {"path": ["ledger", "wal_chain"]}}}).encode()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http on loopback
            said = json.loads(answer.read())
        checks = said["data"]["assetNodeOrError"]["assetChecksOrError"]["checks"]
        found = {c["name"]: (c["executionForLatestMaterialization"] or {}).get("status") for c in checks}
        if found.get(check) == status:
            return
        time.sleep(1)
    raise TimeoutError(f"check {check} is {found.get(check)}, waited {timeout_s} s for {status}")


def dismiss_greeting(page: Page, address: str) -> None:
    """Closes the dialog that a new instance shows some seconds after its first page; it does not come again."""
    page.goto(f"{address}/asset-groups", wait_until="networkidle")
    button = page.get_by_role("button", name="Skip", exact=True)
    button.wait_for(timeout=60_000)
    button.click()
    button.wait_for(state="hidden")
    page.wait_for_timeout(2000)


def open_page(page: Page, url: str) -> None:
    """Goes there and waits until the page has come to rest."""
    page.goto(url, wait_until="networkidle")
    page.wait_for_timeout(5000)


def shoot_graph(page: Page, address: str, name: str) -> None:
    """The whole graph with its groups unfolded."""
    open_page(page, f"{address}/asset-groups")
    page.keyboard.press("Alt+KeyE")  # the UI's key for unfolding all groups
    page.wait_for_timeout(1000)
    open_page(page, f"{address}/asset-groups")  # the UI remembers what is unfolded, and fits the graph when it loads
    page.screenshot(path=Path(IMAGES / name))


def shoot(page: Page, url: str, name: str) -> None:
    """One picture."""
    open_page(page, url)
    page.screenshot(path=Path(IMAGES / name))


if __name__ == "__main__":
    sys.exit(main())
