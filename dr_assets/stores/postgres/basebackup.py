"""The BASE_BACKUP command of the replication protocol: its options and its message stream.

What belongs here: asking for a base backup and reading its messages in order. What stays out: cutting it into parts,
sealing, manifests of ours (snapshot.py) and laying it out again (restore.py). Speaks the protocol of 15 and newer.
"""

import select
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import psycopg
from psycopg import pq

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.protocol import ConnectionLostError, ReplicationConnection, quote_literal, rows_of

_COPY_DONE = -1
_DATA = ord("d")
_UPLOAD_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class WalPosition:
    """A place in the WAL of one timeline."""

    lsn: int
    timeline: int


@dataclass(frozen=True, slots=True)
class Tablespace:
    """One archive that the server will send: `oid` and `location` are None for the data directory itself."""

    oid: int | None
    location: str | None
    estimated_bytes: int | None


@dataclass(frozen=True, slots=True)
class ArchiveBegan:
    """A tar archive begins (`base.tar` or `<oid>.tar`); an empty `tablespace` is the data directory."""

    name: str
    tablespace: str


@dataclass(frozen=True, slots=True)
class ArchiveData:
    """Bytes of the archive that began last. Valid for as long as it is referenced."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class ManifestBegan:
    """PostgreSQL's own `backup_manifest` begins, after the last archive."""


@dataclass(frozen=True, slots=True)
class ManifestData:
    """Bytes of `backup_manifest`."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class Progress:
    """How many bytes of the current tablespace the server has sent."""

    done_bytes: int


BackupMessage = ArchiveBegan | ArchiveData | ManifestBegan | ManifestData | Progress


class BaseBackup:
    """A base backup under way. Iterate `messages()` to the end; then `stop` holds the end of the WAL it needs."""

    def __init__(self, connection: ReplicationConnection, start: WalPosition, tablespaces: list[Tablespace]) -> None:
        self._connection = connection
        self.start = start
        self.tablespaces = tablespaces
        self.stop: WalPosition | None = None

    @classmethod
    def begin(cls, connection: ReplicationConnection, *, options: dict[str, str | bool], timeout_s: float) -> Self:
        """Ask for a base backup: `{"LABEL": "x", "CHECKPOINT": "fast", "MANIFEST": "yes", "WAL": False}`.

        Waits up to `timeout_s` for the server's checkpoint. Raises ServerRefusedError, ConnectionLostError.
        """
        listed = ", ".join(f"{name} {_option(value)}" for name, value in options.items())
        connection.send_query(f"BASE_BACKUP ({listed})")
        start = _position(_rows(connection, timeout_s))
        tablespaces = [_tablespace(row) for row in _rows(connection, timeout_s)]
        result = connection.next_result(timeout_s=timeout_s)
        if result is None or result.status != pq.ExecStatus.COPY_OUT:
            raise ConnectionLostError("the server promised a base backup and sent none")
        return cls(connection, start, tablespaces)

    def messages(
        self, *, stall_timeout_s: float = 60, on_wait: Callable[[], None] | None = None
    ) -> Iterator[BackupMessage]:
        """Every message in order. `on_wait` is called before each wait for the server.

        Raises ConnectionLostError when the connection ends or stays silent for `stall_timeout_s`,
        ServerRefusedError when the server gives up, SourceError (`source.backup_unreadable`) for a message that
        this protocol version doesn't know.
        """
        in_manifest = False
        for data in self._messages(stall_timeout_s, on_wait):
            if data[0] == _DATA:
                yield ManifestData(data[1:]) if in_manifest else ArchiveData(data[1:])
                continue
            message = _decode(data)
            in_manifest = in_manifest or isinstance(message, ManifestBegan)
            yield message
        self.stop = _position(_rows(self._connection, stall_timeout_s))
        while self._connection.next_result(timeout_s=stall_timeout_s) is not None:
            pass

    def _messages(self, stall_timeout_s: float, on_wait: Callable[[], None] | None) -> Iterator[memoryview]:
        """Every message's bytes. There are thirty thousand in a gigabyte, so nothing is done here that needn't be."""
        take, read_socket = self._connection.pgconn.get_copy_data, self._connection.read_socket
        socket = select.poll()
        socket.register(self._connection.fileno(), select.POLLIN)
        while True:
            try:
                size, data = take(1)
            except psycopg.OperationalError:
                # The reason (a refusal, a lost connection) is in the result that follows.
                self._connection.next_result(timeout_s=stall_timeout_s)
                raise ConnectionLostError("the server ended the base backup without a word") from None
            if size > 0:
                yield data
                continue
            if size == _COPY_DONE:
                return
            if on_wait is not None:
                on_wait()
            # Nothing of ours is left to be sent while the server sends, so this waits for one direction only.
            if not socket.poll(1000 * stall_timeout_s):
                raise ConnectionLostError(f"the base backup stood still for {stall_timeout_s:g} s")
            read_socket()


def upload_manifest(connection: ReplicationConnection, pieces: Iterable[bytes], *, timeout_s: float = 60) -> None:
    """Hand the server the `backup_manifest`, in pieces, that an INCREMENTAL backup builds on (17 and newer).

    Raises ServerRefusedError, ConnectionLostError.
    """
    connection.send_query("UPLOAD_MANIFEST")
    result = connection.next_result(timeout_s=timeout_s)
    if result is None or result.status != pq.ExecStatus.COPY_IN:
        raise ConnectionLostError("the server took no manifest")
    try:
        for piece in pieces:
            for begin in range(0, len(piece), _UPLOAD_PIECE):
                connection.pgconn.put_copy_data(piece[begin : begin + _UPLOAD_PIECE])
                connection.flush(timeout_s=timeout_s)
        connection.pgconn.put_copy_end()
        connection.flush(timeout_s=timeout_s)
    except psycopg.OperationalError:
        raise ConnectionLostError("the connection ended while the manifest was sent") from None
    while connection.next_result(timeout_s=timeout_s) is not None:
        pass


def _rows(connection: ReplicationConnection, timeout_s: float) -> list[dict[str, str | None]]:
    result = connection.next_result(timeout_s=timeout_s)
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise ConnectionLostError("the server left out a part of the base backup's frame")
    return rows_of(result)


def _position(rows: list[dict[str, str | None]]) -> WalPosition:
    lsn, timeline = rows[0].values()
    return WalPosition(parse_lsn(lsn or ""), int(timeline or 0))


def _tablespace(row: dict[str, str | None]) -> Tablespace:
    oid, size_kb = row["spcoid"], row["size"]
    return Tablespace(
        oid=None if oid is None else int(oid),
        location=row["spclocation"],
        estimated_bytes=None if size_kb is None else int(size_kb) * 1024,
    )


def _decode(data: memoryview) -> BackupMessage:
    kind = bytes(data[:1])
    if kind == b"n":
        name, location, _ = bytes(data[1:]).split(b"\0", 2)
        return ArchiveBegan(name.decode(), location.decode())
    if kind == b"m":
        return ManifestBegan()
    if kind == b"p":
        return Progress(int.from_bytes(data[1:9], "big"))
    raise SourceError(
        "source.backup_unreadable",
        f"message {kind!r} in the base backup",
        "this server speaks a newer protocol; upgrade dr-assets",
    )


def _option(value: str | bool) -> str:  # noqa: FBT001 - an option's value is what it is about
    return str(value).lower() if isinstance(value, bool) else quote_literal(value)
