"""Ordinary SQL sessions with the source: how they are opened, and how their failures are worded.

What belongs here: connecting with deadlines and turning psycopg's errors into ours. What stays out: what is asked
there (heartbeat.py, slot.py, preflight.py, discover.py) and the replication protocol (protocol.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.dsn import DEAD_PEER, describe_dsn, masked, primary_dsn, require_safe_transport

Connection = psycopg.Connection[tuple[object, ...]]

# A session of ours must never hang behind somebody's lock, nor hold one for long.
_SETTINGS = {"statement_timeout": "10s", "lock_timeout": "3s", "synchronous_commit": "local"}


def connect(dsn: str, *, application_name: str, connect_timeout_s: int = 5) -> Connection:
    """An autocommit session with time limits and `synchronous_commit=local`; with the primary, of several servers.

    Local, because a session that waited for a synchronous standby would wait for the vault, which waits for us.
    Raises psycopg.OperationalError, PolicyError for a DSN that is unreadable or goes over a network in plaintext.
    """
    require_safe_transport(dsn)
    conninfo = make_conninfo(
        primary_dsn(dsn), application_name=application_name, connect_timeout=connect_timeout_s, **DEAD_PEER
    )
    connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
    for name, value in _SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    return connection


@contextmanager
def source_errors(dsn: str) -> Iterator[None]:
    """Turn psycopg's errors into SourceError: `source.unreachable`, `source.forbidden`, `source.failed`.

    The server's words are kept, the DSN's secrets are not.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise SourceError(
            "source.forbidden",
            f"{describe_dsn(dsn)}: {masked(str(error), dsn)}",
            "`dr-assets preflight` lists the rights that are needed",
        ) from None
    except psycopg.OperationalError as error:
        raise SourceError(
            "source.unreachable",
            f"{describe_dsn(dsn)}: {masked(str(error), dsn)}",
            "check that the server runs and that address, user and password of the connection string are right",
        ) from None
    except psycopg.Error as error:
        raise SourceError(
            "source.failed",
            f"{describe_dsn(dsn)}: {masked(str(error), dsn)}",
            "the server refused the statement; its log says more",
        ) from None
