"""Connection strings: what may be shown of them, what is refused, how they become a replication connection's.

What belongs here: parsing, masking, the rule that plaintext stays on loopback. What stays out: opening connections.
A DSN holds a password, and libpq quotes pieces of a DSN it cannot parse, so every message about one goes through here.
"""

from collections.abc import Mapping
from typing import Final

import psycopg
from psycopg import conninfo, pq

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.transport import is_loopback

_SECRET_KEYS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_MASK = "********"
# What tells one server of several from another.
_CHOOSING_KEYS = frozenset({"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"})
# libpq's `prefer` and `allow` fall back to plaintext without a word, so only these three promise encryption.
_ENCRYPTING = frozenset({"require", "verify-ca", "verify-full"})
# A peer that vanished is noticed within half a minute: while we send (the kernel would go on trying for a quarter of
# an hour) by tcp_user_timeout, in milliseconds, while we listen by keepalives, in seconds.
DEAD_PEER: Final[Mapping[str, int]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def parse_dsn(dsn: str) -> dict[str, str]:
    """The settings of a DSN, either form (URI or keyword). Raises PolicyError (`source.dsn_unreadable`).

    libpq's own text is withheld: it quotes the piece it stumbled over, which may be half of a password.
    """
    try:
        return {key: str(value) for key, value in conninfo.conninfo_to_dict(dsn).items() if value is not None}
    except (psycopg.Error, ValueError):
        raise PolicyError(
            "source.dsn_unreadable",
            "the connection string cannot be parsed (its text is withheld, it may hold a password)",
            "write postgresql://user:password@host:port/dbname?sslmode=verify-full, with special characters of the "
            "password percent-encoded",
        ) from None


def describe_dsn(dsn: str) -> str:
    """`user@host:port/dbname` of a DSN: enough to know which server is meant, and no secret."""
    settings = parse_dsn(dsn)
    host = settings.get("host") or settings.get("hostaddr") or "local socket"
    return f"{settings.get('user', '?')}@{host}:{settings.get('port', '5432')}/{settings.get('dbname', '?')}"


def masked(text: str, dsn: str) -> str:
    """`text` in one line, with every secret of the DSN replaced: for what a server or libpq said."""
    settings = parse_dsn(dsn)
    for key in _SECRET_KEYS:
        secret = settings.get(key)
        if secret:
            text = text.replace(secret, _MASK)
    return " ".join(text.split())


def require_safe_transport(dsn: str) -> None:
    """Refuse a DSN that could carry the WAL in plaintext over a network. Raises PolicyError (`source.no_tls`)."""
    settings = _with_defaults(parse_dsn(dsn))
    if settings.get("sslmode") in _ENCRYPTING or is_local(settings):
        return
    raise PolicyError(
        "source.no_tls",
        f"{describe_dsn(dsn)} is not on loopback and its sslmode is {settings.get('sslmode', 'prefer (the default)')}",
        "set sslmode=verify-full (or at least require) in the connection string",
    )


def is_local(settings: Mapping[str, str]) -> bool:
    """Whether every host of a parsed DSN is a unix socket or loopback, so that nobody else sees the bytes.

    A service file may name any host, so a DSN that uses one counts as remote.
    """
    if settings.get("service"):
        return False
    names = settings.get("hostaddr") or settings.get("host") or ""
    return all(is_loopback(name) for name in names.split(","))


def node_dsns(dsn: str) -> list[str]:
    """One DSN for each server that a DSN with several hosts names, in its order; a DSN with one host as it is."""
    settings = parse_dsn(dsn)
    hosts, addresses = settings.get("host", "").split(","), settings.get("hostaddr", "").split(",")
    count = max(len(hosts), len(addresses))
    if count == 1:
        return [dsn]
    ports = settings.get("port", "").split(",")
    ports = ports * count if len(ports) == 1 else ports
    common = {key: value for key, value in settings.items() if key not in _CHOOSING_KEYS}
    nodes = []
    for index in range(count):
        own = {"host": _at(hosts, index), "hostaddr": _at(addresses, index), "port": _at(ports, index)}
        nodes.append(conninfo.make_conninfo("", **common, **{key: value for key, value in own.items() if value}))
    return nodes


def dsn_of_node(dsn: str, host: str, port: int) -> str:
    """A DSN as `dsn`, for one server at another address."""
    common = {key: value for key, value in parse_dsn(dsn).items() if key not in _CHOOSING_KEYS}
    return conninfo.make_conninfo("", **common, host=host, port=port)


def primary_dsn(dsn: str) -> str:
    """`dsn`, told to pass over standbys if it names several servers and says nothing of that itself."""
    settings = parse_dsn(dsn)
    several = "," in settings.get("host", "") or "," in settings.get("hostaddr", "")
    if not several or settings.get("target_session_attrs", "any") != "any":
        return dsn
    return conninfo.make_conninfo("", **{**settings, "target_session_attrs": "primary"})


def _at(values: list[str], index: int) -> str:
    return values[index] if index < len(values) else ""


def replication_dsn(dsn: str, *, application_name: str, connect_timeout_s: int) -> str:
    """The same server as `dsn`, as a physical replication connection that notices a dead peer by itself."""
    settings: dict[str, str | int] = {
        **parse_dsn(primary_dsn(dsn)),
        "replication": "true",
        "application_name": application_name,
        "connect_timeout": connect_timeout_s,
        **DEAD_PEER,
    }
    return conninfo.make_conninfo("", **settings)


def _with_defaults(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings libpq would really use: PGHOST or PGSERVICE may point elsewhere than the DSN shows."""
    defaults = {
        option.keyword.decode(): option.val.decode()
        for option in pq.Conninfo.get_defaults()
        if option.val is not None and option.keyword in (b"host", b"hostaddr", b"service", b"sslmode")
    }
    if "host" in settings or "hostaddr" in settings:
        defaults.pop("hostaddr", None)
    return {**defaults, **settings}
