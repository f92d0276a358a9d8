"""Dagster driven for real: the daemon, the capture, the vault and the servers are all running processes."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import pytest

from dr_assets.components.drill import DUE_TAG
from dr_assets.components.evaluations import Recorded, recorded_verdicts
from dr_assets.definitions import defs
from dr_assets.demo.children import Children
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import facts

RPO_CHECK = dg.AssetCheckKey(dg.AssetKey(["ledger", "wal_chain"]), "rpo")
Found = TypeVar("Found")
STALE = {"dr_assets/because": "stale"}
RPO_SUBJECT = "check ledger/wal_chain:rpo"


@dataclass
class Sink:
    """Both webhooks: what was delivered, in order, by path."""

    delivered: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: int = 0
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, path: str, body: dict[str, Any]) -> bool:
        """Keep a delivery, whoever else delivers just now; the first of all is refused."""
        with self.one_at_a_time:
            if self.refused == 0:
                self.refused += 1
                return False
            self.delivered.append((path, body))
            return True

    def count(self, path: str, subject: str, status: str) -> int:
        """How often one channel was told this."""
        return sum(
            where == path and body.get("subject") == subject and body.get("status") == status
            for where, body in self.delivered
        )


@pytest.fixture
def sink() -> Iterator[tuple[Sink, str]]:
    """A sink on loopback, and its address. The first delivery is refused, so that trying again is part of the test."""
    kept = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if kept.takes(self.path, body) else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kept, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def estate(
    engine_dir: Path, requires: Callable[..., None], sink: tuple[Sink, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedEstate]:
    """The embedded estate with its webhooks pointed at the sink; our own process sees its environment too."""
    requires("postgres", 17)
    requires("weed")
    declared = load_estate(default_defs_dir())
    with EmbeddedEstate(declared, engine_dir, note=print) as running:
        running.env |= {
            str(declared.alerts.slack_webhook_env): f"{sink[1]}/slack",
            str(declared.alerts.webhook_env): f"{sink[1]}/hook",
            "FRESHNESS_DAEMON_INTERVAL_SECONDS": "5",
        }
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


def wait_for(
    what: str, look: Callable[[], Found | None], timeout_s: float = 600.0, says: Callable[[], object] = str
) -> Found:
    """The first thing `look` finds; fails with what was waited for, and what `says` then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.5)
    pytest.fail(f"waited {timeout_s:.0f} s for {what} {says()}")


@dataclass
class Driven:
    """What the event log and the run list say."""

    instance: dg.DagsterInstance

    def rpo(self) -> tuple[bool, float, float] | None:
        """The newest verdict on the RPO: passed, when it was written, the age it measured."""
        records = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([RPO_CHECK])
        record = records.get(RPO_CHECK)
        if record is None or record.evaluation is None or record.event is None:
            return None
        age = record.evaluation.metadata.get("recovery_point_age_s")
        return record.evaluation.passed, record.event.timestamp, float(str(age.value)) if age else 0.0

    def green(self) -> bool:
        """Whether the RPO is met."""
        newest = self.rpo()
        return newest is not None and newest[0]

    def red(self) -> tuple[float, float] | None:
        """When the RPO turned red and the age that was measured then, or None."""
        newest = self.rpo()
        return newest[1:] if newest is not None and not newest[0] else None

    def verdicts(self) -> dict[str, bool]:
        """The newest verdict of every check of the ledger that was judged, and of the coverage.

        The vault's own come whenever their schedules tick, and of the other datasets no capture runs here.
        """
        return {name: verdict.passed for name, verdict in self._recorded().items()}

    def failing(self) -> dict[str, str]:
        """Which of them did not pass, and why."""
        return {name: verdict.description for name, verdict in self._recorded().items() if not verdict.passed}

    def _recorded(self) -> dict[str, Recorded]:
        every = defs().get_repository_def().asset_graph.asset_check_keys
        keys = [key for key in every if key.asset_key.path[0] == "ledger" or key.name == "coverage"]
        return {key.name: verdict for key, verdict in recorded_verdicts(self.instance, keys).items()}

    def runs(self, job: str, tags: dict[str, str] | None = None) -> list[str]:
        """The states of a job's runs."""
        filters = dg.RunsFilter(job_name=job, tags=tags or {})
        return [record.dagster_run.status.value for record in self.instance.get_run_records(filters)]

    def due_drills(self) -> list[str]:
        """The states of the ledger's due drills; another dataset's may start as well, once it has been copied."""
        runs = [record.dagster_run for record in self.instance.get_run_records(dg.RunsFilter(job_name="estate_drill"))]
        return [run.status.value for run in runs if run.tags.get(DUE_TAG, "").startswith("ledger@")]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_outage_is_noticed_proven_told_and_over(estate: EmbeddedEstate, sink: tuple[Sink, str]) -> None:
    """Capture killed: `rpo` red by its age, one restore and reconciliation, each alert once; green when it is back.

    Before, base backup and coverage run with their checks, a second capture is refused, a drill that is due starts by
    itself. The first delivery of all is refused and must come again.
    """
    children, told = Children(estate), sink[0]
    with (
        dg.DagsterInstance.get() as instance,
        children.workload(rate_per_s=20),
        children.capture("ledger", metrics_port=0) as capture,
    ):
        driven = Driven(instance)
        vault = open_vault(estate.estate, "primary", estate.env, signing=False)
        wait_for("the capture's first word", lambda: latest_anchor(vault, "ledger"))
        for job in ("ledger_snapshot", "estate_coverage"):
            assert defs().resolve_job_def(job).execute_in_process(instance=instance).success
        # `backpressure` comes with the capture's reports, whenever these do.
        judged = {name: passed for name, passed in driven.verdicts().items() if name != "backpressure"}
        assert judged == dict.fromkeys(("verified", "locked", "contiguous", "coverage"), True)
        _second_capture_is_refused(children)
        with children.code_server(), children.daemon():
            wait_for("a green RPO", driven.green)
            wait_for("the due drill", lambda: driven.due_drills() == ["SUCCESS"])
            killed_at = datetime.now(UTC)
            capture.kill()
            _, age_s = wait_for("a red RPO", driven.red)
            assert age_s > 30
            wait_for("the restore test", lambda: driven.runs("ledger_restore_test", STALE) == ["SUCCESS"])
            wait_for("the alert", lambda: told.count("/hook", RPO_SUBJECT, "firing"))
            with children.capture("ledger", metrics_port=0):
                wait_for("a green RPO again", driven.green)
                wait_for("the recovery's message", lambda: told.count("/hook", RPO_SUBJECT, "resolved"))
                # The slot's room is judged yellow while the capture makes up for what it missed.
                wait_for("everything green again", lambda: not driven.failing(), says=driven.failing)
        assert driven.runs("ledger_restore_test") == ["SUCCESS"]
        # `rolled_up` is judged when its schedule happens to tick meanwhile.
        books = {name for name in driven.verdicts() if name.startswith("reconciled_")}
        assert len(books) == 8
        assert len(driven.verdicts().keys() - {"rolled_up"} - books) == 11
        assert instance.get_latest_materialization_event(RPO_CHECK.asset_key) is not None
    drills = [fact.body for fact in facts(vault, "ledger", "drill")]
    assert [one["outcome"] for one in drills] == ["passed"], drills
    for kind in ("restore_test", "reconciliation"):
        assert [fact.body["outcome"] for fact in facts(vault, "ledger", kind, begin=killed_at)] == ["passed"]
    hooked = Counter((body["episode"], body["status"]) for where, body in told.delivered if where == "/hook")
    slacked = Counter(body["text"] for where, body in told.delivered if where == "/slack" and "ledger" in body["text"])
    assert told.refused == 1
    assert set(hooked.values()) == set(slacked.values()) == {1}
    assert sum(RPO_SUBJECT in text for text in slacked) == 2


def _second_capture_is_refused(children: Children) -> None:
    """The source gives a slot to one consumer; the second capture says so and ends."""
    second = children.capture("ledger", metrics_port=0)
    assert second.wait(180) == SourceError.exit_code
    assert "source.slot_in_use" in second.log_tail(200)
