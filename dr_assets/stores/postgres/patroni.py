"""Asking Patroni who leads: its REST endpoint `/cluster`, read only.

What belongs here: the request, what of the answer is believed. What stays out: connecting to the servers it names
(nodes.py). An answer leads us to an address and proves nothing: the server there still has to show its system, its
timeline's history and our bytes.

Source of the fields: Patroni's manual, "Patroni REST API", cluster status endpoints.
"""

import http.client
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.transport import require_tls

_TIMEOUT_S: Final = 3.0
_ANSWER_MAX_BYTES: Final = 1 << 20
_OK: Final = 200
_LEADS: Final = frozenset({"leader", "master", "primary"})


class PatroniSilentError(Exception):
    """No endpoint gave a usable answer. Holds each one's reason and no secret."""


@dataclass(frozen=True, slots=True)
class Member:
    """One server of the cluster; `timeline` is 0 where Patroni doesn't know it."""

    name: str
    host: str
    port: int
    leads: bool
    timeline: int


def parse_urls(text: str) -> tuple[str, ...]:
    """The base URLs in a comma-separated list. Raises PolicyError for none, or for http beyond loopback."""
    urls = tuple(url for part in text.split(",") if (url := part.strip().rstrip("/")))
    if not urls:
        raise PolicyError(
            "source.patroni_unreadable",
            "the list of Patroni's REST endpoints is empty",
            "write their base URLs with commas between: https://db1.example.com:8008,https://db2.example.com:8008",
        )
    for url in urls:
        if not url.startswith(("http://", "https://")) or "@" in url:
            raise PolicyError(
                "source.patroni_unreadable",
                "an entry of the list of Patroni's REST endpoints is no plain http(s) URL (its text is withheld)",
                "write base URLs without credentials: https://db1.example.com:8008",
            )
        require_tls(url, "Patroni's REST endpoint")
    return urls


def find_members(urls: Sequence[str], *, timeout_s: float = _TIMEOUT_S) -> tuple[Member, ...]:
    """The cluster's members, as the endpoint says whose leader is on the newest timeline; all are asked at once.

    A member that was cut off from the others may go on telling of an older leader. Raises PatroniSilentError.
    """
    with ThreadPoolExecutor(len(urls), thread_name_prefix="patroni") as pool:
        answers = list(pool.map(lambda url: _ask(url, timeout_s), urls))
    told = [answer for answer in answers if not isinstance(answer, str)]
    if not told:
        raise PatroniSilentError("; ".join(f"{url}: {why}" for url, why in zip(urls, answers, strict=True)))
    return max(told, key=lambda members: max((member.timeline for member in members if member.leads), default=-1))


def leader(members: Iterable[Member]) -> Member | None:
    """Who leads; None while nobody does."""
    return max((member for member in members if member.leads), key=lambda member: member.timeline, default=None)


def _ask(url: str, timeout_s: float) -> tuple[Member, ...] | str:
    """One endpoint's members, or why there are none. Redirects aren't followed: they could lead out of TLS."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            connection.request("GET", f"{parts.path}/cluster", headers={"Accept": "application/json"})
            response = connection.getresponse()
            body = response.read(_ANSWER_MAX_BYTES)
        finally:
            connection.close()
        if response.status != _OK:
            return f"answered {response.status}"
        return _parse(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _parse(body: bytes) -> tuple[Member, ...]:
    """Raises ValueError for what is no cluster; a member without an address can't be reached and is left out."""
    answer = json.loads(body)
    rows = answer.get("members") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise ValueError("no list of members")  # noqa: TRY004 - one error for every unusable answer
    return tuple(_member(row) for row in rows if isinstance(row, dict) and row.get("host"))


def _member(row: dict[str, object]) -> Member:
    timeline, port = row.get("timeline"), row.get("port")
    return Member(
        name=str(row.get("name", "")),
        host=str(row["host"]),
        port=port if isinstance(port, int) else 5432,
        leads=row.get("role") in _LEADS,
        timeline=timeline if isinstance(timeline, int) else 0,
    )
