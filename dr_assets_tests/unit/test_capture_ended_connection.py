"""A connection that the server has ended: libpq has no socket for it any more."""

from typing import Any, cast

import psycopg
import pytest

from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.overlap import Tail
from dr_assets.stores.postgres.protocol import (
    ConnectionLostError,
    ReplicationConnection,
    ServerRefusedError,
    SystemIdentity,
    WalData,
)
from dr_assets.stores.postgres.source_stream import Place, SourceStream

PLACE = Place("host=127.0.0.1", "dr_ledger", SystemIdentity("7700", 1, 0), 16 << 20)


class Ended:
    """Holds one last message, then the server's word."""

    dsn = PLACE.dsn

    def __init__(self, last: WalData) -> None:
        self.left = [last]

    def read_socket(self) -> None:
        """Nothing more comes."""

    def receive(self, limit_bytes: int) -> list[WalData]:
        """The last message, then why it was the last."""
        assert limit_bytes
        if not self.left:
            raise ServerRefusedError("57P01", "terminating connection")
        taken, self.left = self.left, []
        return taken

    def is_readable(self) -> bool:
        """There is no socket."""
        return False

    def wait(self, *_: object, **__: object) -> bool:
        """The same."""
        raise ConnectionLostError("the connection is lost")

    def close(self) -> None:
        """Nothing left to close."""


class NoSocket:
    """libpq's connection once the server has ended it."""

    @property
    def socket(self) -> int:
        """As psycopg answers for a socket that is gone."""
        raise psycopg.OperationalError("the connection is lost")


def test_a_connection_without_a_socket_is_a_lost_one() -> None:
    """Nobody above needs to know of psycopg's own error: there is nothing to read, and waiting says that it is lost."""
    connection = ReplicationConnection(cast("Any", NoSocket()), PLACE.dsn)
    assert not connection.is_readable()
    with pytest.raises(ConnectionLostError, match="the connection is lost"):
        connection.wait(0)


def test_what_an_ended_connection_had_brought_is_taken_and_then_its_reason_told() -> None:
    """That there is no socket to look at is no reason to fall over: the capture comes back by itself."""
    last = WalData(0x100, 0x104, cast("Any", None), b"wal!")
    stream = SourceStream(
        PLACE, cast("Any", Ended(last)), Tail(0x100), application_name="dr_ledger", nodes=Nodes(PLACE.dsn)
    )
    assert stream.receive() == [last]
    stream.wait(0, also_read=[])
    assert stream.receive() == []
    assert stream.connection is None
    assert "terminating connection" in str(stream.trouble)
