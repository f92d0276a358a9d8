"""Takes the pictures in docs/images/ from a real run: asset graph, restored books, recovery point, and a red RPO.

Wants chromium (scripts/install_test_engines.sh --screenshots). Starts the embedded estate under .demo-screenshots/,
makes every asset once, takes the graph and two assets' pages, kills the ledger's capture, waits until its check `rpo`
is red, takes that.
"""

import base64
import json
import shutil
import sys
import time
import urllib.request
from contextlib import ExitStack

from playwright.sync_api import Browser, FloatRect, Page, ViewportSize, sync_playwright
from rich.console import Console

from dr_assets.demo.children import ROOT, Children
from dr_assets.demo.documents_story import DocumentsStory
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
RED_TIMEOUT_S = 300
GREEN_TIMEOUT_S = 600
PAGE_TIMEOUT_MS = 300_000
WIDE: ViewportSize = {"width": 1680, "height": 1250}
TALL: ViewportSize = {"width": 1700, "height": 4600}  # the UI draws only what is in sight: all groups, unfolded
# Everything but the two copies, in runs that a busy machine finds time for.
ROUNDS = (
    "key:ledger/restore_test or key:ledger/reconciliation",
    "key:game_events/restore_test",
    "key:kyc/restore_test or key:kyc/erasures",
    "key:ledger/roll_up or group:vault",
    "key:estate/drill",
    "key:estate/coverage or key:estate/recovery_point",
)
# What the UI keeps in the browser: groups unfolded, and of each asset only what one can read from afar.
GROUPS = ("ledger", "kyc", "game_events", "vault", "estate")
KEPT = {
    "asset-graph-open-graph-nodes-global-__GLOBAL__": json.dumps(
        {"expanded": ",".join(f"global@global:{group}" for group in sorted(GROUPS))}
    ),
    "communityNux": json.dumps("1"),  # the greeting was dismissed: its veil would lie over the picture
    "asset-node-facets": json.dumps(["checks", "status", "kind-tag"]),
}
BOXES_SCRIPT = """() => Object.fromEntries([...document.querySelectorAll('foreignObject')].map(e => {
    const box = e.getBoundingClientRect();
    return [e.textContent, {x: box.x, y: box.y, width: box.width, height: box.height}];
}))"""
LEFT, RIGHT = GROUPS[:3], GROUPS[3:]


def main() -> int:
    """Everything in order; returns the exit code."""
    steps = Steps(Console(), 7)
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
        capture = stack.enter_context(children.capture("ledger", metrics_port=0))
        stack.enter_context(children.capture("game_events", metrics_port=0))
        DocumentsStory(estate).put()
    with steps.step("copy ledger and documents"):
        children.materialize("key:ledger/snapshot or key:kyc/bucket_copy")
    with steps.step("make every other asset once"):
        for selection in ROUNDS:
            children.materialize(selection, minds_people="kyc/erasures" in selection)
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
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    with steps.step("picture of the asset graph"):
        dismiss_greeting(page, address)
        shoot_graph(browser, address, "asset-graph.png")
    with steps.step("pictures of the restored books and of the recovery point"):
        shoot(page, f"{address}/assets/ledger/reconciliation", "reconciliation.png", "rows_examined")
        shoot(page, f"{address}/assets/estate/recovery_point", "recovery-point.png", "held_back_by")
    with steps.step("kill the capture, wait until the RPO is red, picture of it"):
        capture.kill()
        wait_for(address, "rpo", "FAILED", RED_TIMEOUT_S)
        shoot(page, f"{address}/assets/ledger/wal_chain?view=checks&checkDetail=rpo", "rpo-red.png", "rpo_s")


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


def open_page(page: Page, url: str, awaited: str) -> None:
    """Goes there and waits until the page shows `awaited` and has come to rest."""
    page.goto(url)
    page.get_by_text(awaited).first.wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(5000)


def shoot_graph(browser: Browser, address: str, name: str) -> None:
    """The groups of the global asset graph, unfolded, in two columns: drawn by Dagster they lie far from each other."""
    # Waiting for a condition evaluates a text, which the UI's content security policy forbids.
    page = browser.new_page(viewport=TALL, device_scale_factor=1.25, bypass_csp=True)
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    page.add_init_script(f"for (const [key, kept] of Object.entries({json.dumps(KEPT)})) localStorage[key] = kept")
    open_page(page, f"{address}/asset-groups", "recovery_point")
    page.wait_for_function("!document.body.textContent.includes('Loading...')")
    boxes: dict[str, FloatRect] = page.evaluate(BOXES_SCRIPT)
    columns = "".join(
        f"<div>{''.join(_picture(page, boxes[group]) for group in column)}</div>" for column in (LEFT, RIGHT)
    )
    page.set_content(f"<body style='margin:12px'><main style='display:inline-flex;gap:20px'>{columns}</main>")
    page.locator("main").screenshot(path=IMAGES / name)
    page.close()


def _picture(page: Page, box: FloatRect) -> str:
    """A part of the page as an image of its size."""
    png = base64.b64encode(page.screenshot(clip=box)).decode()
    return f"<img style='display:block;margin-bottom:20px' width={box['width']} src='data:image/png;base64,{png}'>"


def shoot(page: Page, url: str, name: str, awaited: str) -> None:
    """One picture, when the page shows `awaited`."""
    open_page(page, url, awaited)
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    sys.exit(main())
