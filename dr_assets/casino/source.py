"""Connecting to the casino's database with errors a person can act on.

What belongs here: the one connect call of this room. What stays out: SQL. No message carries the connection string.
"""

from typing import Any

import psycopg

from dr_assets.estate.errors import PolicyError, SourceError


def connect(dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
    """An autocommit connection. Raises PolicyError (`casino.dsn_unreadable`) or SourceError (`casino.unreachable`)."""
    try:
        return psycopg.connect(dsn, autocommit=True, connect_timeout=10, application_name="dr_assets-casino")
    except psycopg.OperationalError as error:
        raise SourceError(
            "casino.unreachable",
            f"the casino's database does not answer: {' '.join(str(error).split())}",
            "check that the server runs and that the connection string's host, port and user are right",
        ) from None
    except psycopg.ProgrammingError:  # libpq quotes the piece it could not parse, which may be a password's
        raise PolicyError(
            "casino.dsn_unreadable",
            "the connection string cannot be parsed (its text is withheld, it may hold a password)",
            "write postgresql://user:password@host:port/dbname, special characters percent-encoded",
        ) from None
