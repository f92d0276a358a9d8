import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dr_assets.components import delivery
from dr_assets.components.alerts import deliver
from dr_assets.components.delivery import channels_of
from dr_assets.components.episodes import Condition, Episodes, fold
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Alerts

ALERTS = Alerts(slack_webhook_env="SLACK", webhook_env="HOOK")
AT = datetime(2026, 3, 1, tzinfo=UTC)


class Sink:
    """A webhook on loopback that keeps what it is sent and answers as told."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: dict[str, list[dict[str, Any]]] = {}
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if sink.status < 300:
                    sink.bodies.setdefault(self.path, []).append(body)
                self.send_response(sink.status)
                self.send_header("Location", f"{sink.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep the test's output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """A running sink, given the time that a busy machine takes."""
    monkeypatch.setattr(delivery, "TIMEOUT_S", 180.0)
    made = Sink()
    yield made
    made.server.shutdown()
    made.server.server_close()


def firing(channels: list[str], detail: str = "31 s old <b>") -> Episodes:
    """One episode that was just opened."""
    return fold(Episodes(), [Condition("check ledger/wal_chain:rpo", "check", True, AT, detail)], channels)


def test_both_webhooks_get_each_notice_once_in_their_own_form(sink: Sink) -> None:
    """Slack gets its text, escaped; the other webhook gets the documented JSON; a second pass sends nothing."""
    channels = channels_of(ALERTS, "casino", {"SLACK": f"{sink.url}/slack", "HOOK": f"{sink.url}/hook"})
    episodes, troubles = deliver(firing([channel.name for channel in channels]), channels)
    assert (episodes.pending, troubles) == ((), [])
    deliver(episodes, channels)
    assert len(sink.bodies["/slack"]) == len(sink.bodies["/hook"]) == 1
    assert "&lt;b&gt;" in sink.bodies["/slack"][0]["text"]
    assert sink.bodies["/hook"][0] == {
        "schema": 1,
        "estate": "casino",
        "episode": "check ledger/wal_chain:rpo@2026-03-01T00:00:00.000+00:00",
        "status": "firing",
        "kind": "check",
        "subject": "check ledger/wal_chain:rpo",
        "begin_at": "2026-03-01T00:00:00+00:00",
        "end_at": None,
        "detail": "31 s old <b>",
    }


@pytest.mark.parametrize("status", [302, 404, 429, 500])
def test_a_refused_delivery_is_kept_and_tried_again(sink: Sink, status: int) -> None:
    """Whatever the answer but 2xx, nothing is dropped, and a redirect is never followed with the payload."""
    channels = channels_of(ALERTS, "casino", {"HOOK": f"{sink.url}/secret-path"})
    sink.status = status
    episodes, troubles = deliver(firing(["webhook"]), channels)
    assert len(episodes.pending) == 1
    assert troubles == [f"webhook: 127.0.0.1 answered {status}"]
    assert sink.bodies == {}
    sink.status = 204
    episodes, troubles = deliver(episodes, channels)
    assert (episodes.pending, troubles, len(sink.bodies["/secret-path"])) == ((), [], 1)


def test_an_unreachable_channel_does_not_hold_up_the_other(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    """Each channel has its own queue, and no message or log line shows more than the host."""
    caplog.set_level(logging.DEBUG)
    env = {"SLACK": "http://127.0.0.1:9/T000/s3cret-token", "HOOK": f"{sink.url}/s3cret-hook?k=s3cret"}
    channels = channels_of(ALERTS, "casino", env)
    episodes, troubles = deliver(firing(["slack", "webhook"]), channels)
    assert [pending.channel for pending in episodes.pending] == ["slack"]
    assert len(sink.bodies["/s3cret-hook?k=s3cret"]) == 1
    assert "s3cret" not in caplog.text + "".join(troubles)


def test_a_webhook_in_the_open_is_refused() -> None:
    """An address that would carry alerts unencrypted off the host is a policy error without the address in it."""
    with pytest.raises(PolicyError) as refused:
        channels_of(ALERTS, "casino", {"SLACK": "http://hooks.example.net/s3cret"})
    assert "SLACK" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_an_unset_variable_switches_a_channel_off() -> None:
    """No value, no channel; that is a choice and no error."""
    assert channels_of(ALERTS, "casino", {"SLACK": ""}) == []
