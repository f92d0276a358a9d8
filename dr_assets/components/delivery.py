"""Carrying a notice to a webhook.

What belongs here: the two forms (Slack's and our JSON), the POST, and what counts as taken. What stays out: which
notices there are (episodes.py) and trying again (the alerts sensor does, at its next tick).

A webhook's address is a secret in itself: no message and no log line here ever holds more of it than its host.
"""

import json
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from dr_assets.components.episodes import Notice
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Alerts
from dr_assets.estate.transport import require_tls

TIMEOUT_S: Final = 5.0
SCHEMA_VERSION: Final = 1


class Channel(Protocol):
    """Somewhere a notice can go. `deliver` returns None when it was taken, else why not (without secrets)."""

    name: str

    def deliver(self, notice: Notice) -> str | None:
        """Try once."""


class Webhook:
    """A channel that takes JSON by POST. Redirects are refused: they could lead off TLS or to another host."""

    def __init__(self, name: str, url: str, body: Callable[[Notice], dict[str, Any]]) -> None:
        self.name = name
        self._url = url
        self._body = body

    def deliver(self, notice: Notice) -> str | None:
        """POST once. Any 2xx counts as taken; the episode and status make a repeated delivery recognisable."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{notice.episode}/{notice.status}"}
        host = urlsplit(self._url).hostname
        try:
            status = _post(self._url, json.dumps(self._body(notice)).encode(), headers)
        except (OSError, HTTPException) as error:
            return f"{self.name}: {host} could not be reached ({type(error).__name__})"
        return None if status // 100 == 2 else f"{self.name}: {host} answered {status}"  # noqa: PLR2004  # 2xx


def channels_of(alerts: Alerts, estate: str, env: Mapping[str, str]) -> list[Channel]:
    """The channels whose variables hold an address. Raises `PolicyError` for one that would travel in the open."""
    declared = (
        ("slack", alerts.slack_webhook_env, lambda notice: slack_body(estate, notice)),
        ("webhook", alerts.webhook_env, lambda notice: webhook_body(estate, notice)),
    )
    channels: list[Channel] = []
    for name, variable, body in declared:
        url = env.get(variable, "") if variable else ""
        if not variable or not url:
            continue
        require_tls(url, variable)
        if not url.startswith(("http://", "https://")):
            raise PolicyError("policy.webhook", f"{variable} is not an http(s) address", "set the webhook's full URL")
        channels.append(Webhook(name, url, body))
    return channels


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The answer's status. The standard library's client follows no redirect and logs no path (urllib3 logs it)."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def webhook_body(estate: str, notice: Notice) -> dict[str, Any]:
    """Our own form; docs/dagster.md describes each field."""
    return {"schema": SCHEMA_VERSION, "estate": estate, **notice.to_json()}


def slack_body(estate: str, notice: Notice) -> dict[str, Any]:
    """What Slack's incoming webhooks show. `<`, `>` and `&` are Slack's own marks and must be escaped."""
    sign = ":red_circle:" if notice.status == "firing" else ":large_green_circle:"
    since = f"since {notice.begin_at:%Y-%m-%d %H:%M:%S} UTC"
    if notice.end_at:
        since = f"{since}, over at {notice.end_at:%H:%M:%S} UTC"
    text = f"{sign} *{estate}* {notice.subject} {notice.status} ({since})\n{notice.detail}"
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
