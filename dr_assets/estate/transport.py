"""TLS for every byte that leaves the host.

What belongs here: deciding from a URL or a Postgres connection string whether the transport is encrypted or stays on
loopback. What stays out: connecting, certificates, and reading environment variables (callers hand in the value).
Messages name the host at most: the rest of a connection string may hold a secret.
"""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dr_assets.estate.errors import PolicyError

_POSTGRES_SCHEMES: Final = frozenset({"postgres", "postgresql"})
# libpq's `allow` and `prefer` fall back to plain text, so an attacker on the way can choose it.
_TLS_MODES: Final = frozenset({"require", "verify-ca", "verify-full"})
_KEYWORD: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)")


def require_tls(url_or_dsn: str, what: str = "the connection") -> None:
    """Raise `PolicyError` unless the URL or Postgres connection string uses TLS or stays on loopback.

    Understands http(s) URLs, postgresql:// URLs and libpq's `key=value` form; anything else is refused, since what
    cannot be judged cannot be trusted. Unix sockets count as loopback.
    """
    hosts, encrypted = _hosts_and_encryption(url_or_dsn.strip(), what)
    plain = [host for host in hosts if not is_loopback(host)]
    if plain and not encrypted:
        raise PolicyError(
            "policy.transport",
            f"{what} would reach {', '.join(plain)} without TLS",
            "use https:// for object stores and webhooks, sslmode=verify-full (at least require) for Postgres",
        )


def require_kafka_tls(bootstrap: str, *, is_encrypted: bool, what: str = "the cluster") -> None:
    """Raise `PolicyError` unless every `host:port` of the list stays on loopback, or the protocol is encrypted."""
    hosts = [re.sub(r":\d+$", "", address.strip()) for address in bootstrap.split(",")]
    if not all(hosts):
        raise PolicyError(
            "policy.transport", f"{what} holds no list of brokers", "write host:port, several with commas between"
        )
    plain = [host for host in hosts if not is_loopback(host)]
    if plain and not is_encrypted:
        raise PolicyError(
            "policy.transport",
            f"{what} would reach {', '.join(plain)} without TLS",
            "declare `security: {protocol: SASL_SSL, …}` (or SSL) for the dataset",
        )


def is_loopback(host: str) -> bool:
    """Whether a host name, address or socket folder never leaves this machine. Empty means libpq's local socket."""
    if host == "" or host.startswith(("/", "@")) or host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hosts_and_encryption(text: str, what: str) -> tuple[list[str], bool]:
    if "://" not in text:
        return _from_keywords(text, what)
    scheme = text.split("://", 1)[0].lower()
    if scheme in _POSTGRES_SCHEMES:
        return _from_postgres_url(text)
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if scheme not in {"http", "https"} or not host:
        raise _unjudgeable(what)
    return [host], scheme == "https"


def _from_postgres_url(text: str) -> tuple[list[str], bool]:
    """Read the hosts by hand: libpq allows several, which URL parsers refuse."""
    address, _, query = text.split("://", 1)[1].partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    listed = address.split("/", 1)[0].rsplit("@", 1)[-1].split(",")
    hosts = [unquote(re.sub(r":\d*$", "", host)) for host in listed]
    return _override(hosts, settings), settings.get("sslmode") in _TLS_MODES


def _from_keywords(text: str, what: str) -> tuple[list[str], bool]:
    settings: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _KEYWORD.match(text, position)
        if match is None:
            raise _unjudgeable(what)
        value = match.group(2)
        if value.startswith("'"):
            value = value[1:-1]
        settings[match.group(1)] = re.sub(r"\\(.)", r"\1", value)
        position = match.end()
    if not settings:
        raise _unjudgeable(what)
    return _override([""], settings), settings.get("sslmode") in _TLS_MODES


def _override(hosts: list[str], settings: dict[str, str]) -> list[str]:
    """`hostaddr` decides where packets go, then `host`, then the URL's own list."""
    for keyword in ("hostaddr", "host"):
        if settings.get(keyword):
            return settings[keyword].split(",")
    return hosts


def _unjudgeable(what: str) -> PolicyError:
    return PolicyError(
        "policy.transport",
        f"{what} is neither an http(s) URL nor a Postgres connection string, so its transport cannot be judged",
        "write it with its scheme: https://…, postgresql://…, or host=… sslmode=…",
    )
