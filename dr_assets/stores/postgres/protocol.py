"""PostgreSQL's streaming replication protocol, spoken through psycopg.pq: connection, slots, WAL stream.

What belongs here: opening a physical replication connection, its commands, the messages of START_REPLICATION and the
replies to them. What stays out: what the bytes mean (wal.py), base backups (basebackup.py), when to cut, seal or
acknowledge (capture.py), ordinary SQL. Nothing here blocks without a deadline: libpq's blocking calls would hold up
every other thread, so reads are select + consume_input.

Source of the rules: the PostgreSQL manual, "Streaming Replication Protocol" (15 and newer).
"""

import select
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import psycopg
from psycopg import pq

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.dsn import describe_dsn, is_local, masked, replication_dsn, require_safe_transport
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn

MIN_SERVER_VERSION = 150000
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_WAL_HEADER = struct.Struct(">xQQQ")
_KEEPALIVE = struct.Struct(">xQQB")
_STATUS = struct.Struct(">cQQQQB")
_COPY_DONE = -1


class ConnectionLostError(Exception):
    """The connection ended or never came up: not yet anybody's error, the caller may reconnect. Holds no secret."""


class ServerRefusedError(Exception):
    """The server answered a command with an error. `sqlstate` as in the manual; the message holds no secret."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """What IDENTIFY_SYSTEM says: which cluster this is, on which timeline, and how far its WAL is flushed."""

    system_id: str
    timeline: int
    flushed_lsn: int


@dataclass(frozen=True, slots=True)
class SlotPosition:
    """What READ_REPLICATION_SLOT says of a physical slot; both None while the slot has reserved no WAL."""

    restart_lsn: int | None
    restart_timeline: int | None


@dataclass(frozen=True, slots=True)
class WalData:
    """A piece of WAL: `begin` is the position of its first byte, `server_end` how far the server's WAL reached.

    `data` lies where libpq put it: a catch-up moves gigabytes, and each copy of them is paid in the one thread.
    """

    begin: int
    server_end: int
    sent_at: datetime
    data: memoryview | bytes

    @property
    def end(self) -> int:
        """Position just behind the last byte."""
        return self.begin + len(self.data)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server's sign of life; with `reply_requested` it ends the connection unless it is answered soon."""

    server_end: int
    sent_at: datetime
    reply_requested: bool


@dataclass(frozen=True, slots=True)
class StreamDone:
    """The server ended the stream in order.

    With a shutdown nothing is known of what comes next: back off before reconnecting. At the end of a timeline that the
    server has left, `next_timeline` goes on at byte `next_begin`.
    """

    next_timeline: int | None = None
    next_begin: int | None = None


StreamMessage = WalData | Keepalive | StreamDone


class ReplicationConnection:
    """One physical replication connection. Not for several threads at once."""

    def __init__(self, pgconn: pq.abc.PGconn, dsn: str) -> None:
        self.pgconn = pgconn
        self.dsn = dsn
        self._unread: list[StreamMessage] = []
        self._failure: ConnectionLostError | ServerRefusedError | None = None

    @classmethod
    def open(cls, dsn: str, *, application_name: str = "dr-assets", connect_timeout_s: int = 10) -> Self:
        """Connect, within `connect_timeout_s`.

        Raises ConnectionLostError when the server isn't there or ends the attempt, PolicyError for an unreadable DSN
        or one that would go over a network in plaintext, SourceError (`source.refused`) when the server refuses us
        for good: password, pg_hba.conf, missing REPLICATION right.
        """
        require_safe_transport(dsn)
        conninfo = replication_dsn(dsn, application_name=application_name, connect_timeout_s=connect_timeout_s)
        pgconn = _connect(conninfo, dsn, time.monotonic() + connect_timeout_s)
        self = cls(pgconn, dsn)
        if not (pgconn.ssl_in_use or is_local({"host": pgconn.host.decode()})):
            self.close()
            raise ConnectionLostError(f"{describe_dsn(dsn)} answered without TLS")
        pgconn.nonblocking = 1
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; again is harmless."""
        self.pgconn.finish()

    def fileno(self) -> int:
        """The socket, for select."""
        return self.pgconn.socket

    @property
    def server_version(self) -> int:
        """As libpq numbers it: 170010 is 17.10."""
        return self.pgconn.server_version

    def execute(self, command: str, *, timeout_s: float = 30) -> list[dict[str, str | None]]:
        """Run a replication command that answers with rows or nothing.

        Raises ServerRefusedError with the server's SQLSTATE, ConnectionLostError when the connection ends or
        nothing comes within `timeout_s`.
        """
        self.send_query(command)
        rows: list[dict[str, str | None]] = []
        while (result := self.next_result(timeout_s=timeout_s)) is not None:
            rows.extend(rows_of(result))
        return rows

    def send_query(self, command: str) -> None:
        """Send a command; its results are read with `next_result`. Raises ConnectionLostError."""
        try:
            self.pgconn.send_query(command.encode())
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        self.flush(timeout_s=30)

    def next_result(self, *, timeout_s: float) -> pq.abc.PGresult | None:
        """The next result of the command under way, None after the last. Raises as `execute` does."""
        result = self._await_result(timeout_s)
        if result is not None and result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
            # A refused command leaves the connection usable, once nothing of it is left to read.
            while self.pgconn.status != pq.ConnStatus.BAD and self._await_result(timeout_s) is not None:
                pass
            raise self._refused(result)
        return result

    def identify_system(self) -> SystemIdentity:
        """Ask which cluster this is."""
        row = self.execute("IDENTIFY_SYSTEM")[0]
        return SystemIdentity(
            system_id=_text(row["systemid"]),
            timeline=int(_text(row["timeline"])),
            flushed_lsn=parse_lsn(_text(row["xlogpos"])),
        )

    @property
    def is_standby(self) -> bool:
        """Whether the server was in recovery when it accepted us, as it told without being asked."""
        return self.pgconn.parameter_status(b"in_hot_standby") == b"on"

    def timeline_history(self, timeline: int) -> str:
        """The history file of a timeline. Raises ServerRefusedError (58P01) when the server doesn't have it."""
        return _text(self.execute(f"TIMELINE_HISTORY {timeline}")[0]["content"])

    def show(self, setting: str) -> str:
        """A setting's value with its unit, as SHOW prints it."""
        return _text(self.execute(f"SHOW {quote_identifier(setting)}")[0][setting])

    def create_slot(self, name: str) -> None:
        """Create a physical slot that keeps WAL from now on (RESERVE_WAL)."""
        self.execute(f"CREATE_REPLICATION_SLOT {quote_identifier(name)} PHYSICAL (RESERVE_WAL)")

    def drop_slot(self, name: str) -> None:
        """Drop a slot that nobody uses."""
        self.execute(f"DROP_REPLICATION_SLOT {quote_identifier(name)}")

    def read_slot(self, name: str) -> SlotPosition | None:
        """Where a physical slot stands, None when there is no slot of that name."""
        row = self.execute(f"READ_REPLICATION_SLOT {quote_identifier(name)}")[0]
        if row["slot_type"] is None:
            return None
        lsn, timeline = row["restart_lsn"], row["restart_tli"]
        return SlotPosition(None if lsn is None else parse_lsn(lsn), None if timeline is None else int(timeline))

    def start_replication(self, slot: str, begin: int, timeline: int) -> None:
        """Start the WAL stream at byte `begin`; where the timeline was left just there, `receive` tells its end.

        Raises ServerRefusedError, ConnectionLostError.
        """
        self.send_query(
            f"START_REPLICATION SLOT {quote_identifier(slot)} PHYSICAL {format_lsn(begin)} TIMELINE {timeline}"
        )
        result = self.next_result(timeout_s=30)
        if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
            self._unread = [self._timeline_end(result)]
        elif result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise ConnectionLostError("the server had nothing to stream on this timeline")

    def wait(self, timeout_s: float, *, also_read: Sequence[int] = ()) -> bool:
        """Wait until the server, or one of `also_read`, has something for us. False after `timeout_s`.

        Output that libpq could not send at once goes out here as well. Raises ConnectionLostError.
        """
        try:
            own = self.pgconn.socket
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        deadline = time.monotonic() + timeout_s
        while True:
            unsent = [own] if self._flush_once() else []
            remaining_s = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select([own, *also_read], unsent, [], remaining_s)
            if readable or not writable:
                return bool(readable)

    def receive(self, limit_bytes: int) -> list[StreamMessage]:
        """The messages of the WAL stream that have arrived, until they hold `limit_bytes`; never waits.

        What arrived before the connection broke is still handed out; the next call raises. Raises ConnectionLostError,
        ServerRefusedError when the server ended the stream with an error.
        """
        messages, self._unread = self._unread, []
        if self._failure is not None and not messages:
            failure, self._failure = self._failure, None
            raise failure
        if messages and isinstance(messages[-1], StreamDone):
            return messages
        taken_bytes = 0
        try:
            while taken_bytes < limit_bytes:
                size, data = self.pgconn.get_copy_data(1)
                if size == 0:
                    break
                if size == _COPY_DONE:
                    messages.append(self._ended())
                    break
                messages.append(decode_stream_message(data))
                taken_bytes += size
        except (psycopg.OperationalError, ConnectionLostError, ServerRefusedError) as error:
            self.fail_later(self._lost(error) if isinstance(error, psycopg.Error) else error)
            return messages or self.receive(limit_bytes)
        return messages

    def fail_later(self, failure: ConnectionLostError | ServerRefusedError) -> None:
        """Give an error back: the next `receive` that has nothing to hand out raises it."""
        self._failure = failure

    def unread(self, message: StreamMessage) -> None:
        """Give a message back: the next `receive` hands it out first."""
        self._unread.append(message)

    def is_readable(self) -> bool:
        """Whether the server has sent more than was taken from the socket; not once libpq has given the socket up."""
        try:
            return bool(select.select([self.pgconn.socket], [], [], 0)[0])
        except psycopg.OperationalError:
            return False

    def read_socket(self) -> None:
        """Take from the socket what is there, for `receive` to hand out. Raises ConnectionLostError."""
        try:
            self.pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise self._lost(error) from None

    def send_status(self, *, vaulted: int, now: datetime, reply_requested: bool = False) -> None:
        """Tell the server how far we are: what was read back under its lock, and nothing that is only in memory."""
        message = encode_status(vaulted=vaulted, now=now, reply_requested=reply_requested)
        try:
            self.pgconn.put_copy_data(message)
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        self._flush_once()

    def end_stream(self, *, timeout_s: float = 30) -> None:
        """End the WAL stream from our side and wait for the server to agree. Raises ConnectionLostError."""
        self._failure = None
        self._unread.clear()  # of the stream that ends: the next one may begin elsewhere
        try:
            self.pgconn.put_copy_end()
            self.flush(timeout_s=timeout_s)
            deadline = time.monotonic() + timeout_s
            while (size := self.pgconn.get_copy_data(1)[0]) != _COPY_DONE:
                if size > 0:
                    continue
                if not self.wait(max(0.0, deadline - time.monotonic())):
                    raise ConnectionLostError("the server did not end the stream")
                self.pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise self._lost(error) from None
        while self.next_result(timeout_s=timeout_s) is not None:
            pass

    def flush(self, *, timeout_s: float) -> None:
        """Send everything that libpq holds back. Raises ConnectionLostError."""
        deadline = time.monotonic() + timeout_s
        while self._flush_once():
            select.select([], [self], [], max(0.0, deadline - time.monotonic()))
            if time.monotonic() > deadline:
                raise ConnectionLostError(f"{describe_dsn(self.dsn)} took nothing for {timeout_s:g} s")

    def _await_result(self, timeout_s: float) -> pq.abc.PGresult | None:
        deadline = time.monotonic() + timeout_s
        try:
            while self.pgconn.is_busy():
                if not self.wait(max(0.0, deadline - time.monotonic())):
                    raise ConnectionLostError(f"{describe_dsn(self.dsn)} did not answer within {timeout_s:g} s")
                self.pgconn.consume_input()
            return self.pgconn.get_result()
        except psycopg.OperationalError as error:
            raise self._lost(error) from None

    def _flush_once(self) -> bool:
        try:
            return bool(self.pgconn.flush())
        except psycopg.OperationalError as error:
            raise self._lost(error) from None

    def _ended(self) -> StreamDone:
        """Behind the last byte: at a timeline's end the server waits for our CopyDone, then says what comes next.

        An error result names its reason, anything else is a shutdown.
        """
        result = self.next_result(timeout_s=5)
        if result is None or result.status != pq.ExecStatus.COPY_IN:
            return StreamDone()
        self.pgconn.put_copy_end()
        self.flush(timeout_s=5)
        result = self.next_result(timeout_s=5)
        if result is None or result.status != pq.ExecStatus.TUPLES_OK:
            return StreamDone()
        return self._timeline_end(result)

    def _timeline_end(self, result: pq.abc.PGresult) -> StreamDone:
        row = rows_of(result)[0]
        while self.next_result(timeout_s=5) is not None:
            pass
        return StreamDone(int(_text(row["next_tli"])), parse_lsn(_text(row["next_tli_startpos"])))

    def _refused(self, result: pq.abc.PGresult) -> Exception:
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        if not sqlstate or self.pgconn.status == pq.ConnStatus.BAD:
            return self._lost(result.get_error_message())
        primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        return ServerRefusedError(sqlstate, masked(primary.decode(errors="replace"), self.dsn))

    def _lost(self, error: psycopg.Error | str) -> ConnectionLostError:
        return ConnectionLostError(f"connection to {describe_dsn(self.dsn)} lost: {masked(str(error), self.dsn)}")


def decode_stream_message(data: memoryview | bytes) -> StreamMessage:
    """One message of the WAL stream. Raises ConnectionLostError for one this protocol version doesn't know."""
    kind = bytes(data[:1])
    if kind == b"w":
        begin, server_end, sent_us = _WAL_HEADER.unpack_from(data)
        return WalData(begin, server_end, _from_postgres_us(sent_us), data[_WAL_HEADER.size :])
    if kind == b"k":
        server_end, sent_us, reply_requested = _KEEPALIVE.unpack_from(data)
        return Keepalive(server_end, _from_postgres_us(sent_us), bool(reply_requested))
    raise ConnectionLostError(f"unknown message {kind!r} in the WAL stream")


def encode_status(*, vaulted: int, now: datetime, reply_requested: bool) -> bytes:
    """A standby status update; `now` must be aware.

    Write, flush and apply position are one: any of the three may be what a synchronous commit waits for.
    """
    now_us = (now - POSTGRES_EPOCH) // timedelta(microseconds=1)
    return _STATUS.pack(b"r", vaulted, vaulted, vaulted, now_us, reply_requested)


def rows_of(result: pq.abc.PGresult) -> list[dict[str, str | None]]:
    """The rows of a result as text by column name."""
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    return [
        {
            name: None if (value := result.get_value(row, column)) is None else value.decode(errors="replace")
            for column, name in enumerate(names)
        }
        for row in range(result.ntuples)
    ]


def quote_identifier(name: str) -> str:
    """A name in double quotes, as the replication grammar wants it."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A string in single quotes, as the replication grammar wants it."""
    return "'" + text.replace("'", "''") + "'"


def _connect(conninfo: str, dsn: str, deadline: float) -> pq.abc.PGconn:
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    while True:
        step = pgconn.connect_poll() if pgconn.status != pq.ConnStatus.BAD else pq.PollingStatus.FAILED
        if step == pq.PollingStatus.OK:
            return pgconn
        if step == pq.PollingStatus.FAILED:
            said = masked(pgconn.get_error_message(), dsn)
            pgconn.finish()
            raise _connect_error(said, dsn)
        remaining_s = deadline - time.monotonic()
        waited = [pgconn.socket]
        reading = step == pq.PollingStatus.READING
        ready = select.select(waited if reading else [], [] if reading else waited, [], max(0.0, remaining_s))
        if not (ready[0] or ready[1]):
            pgconn.finish()
            raise ConnectionLostError(f"{describe_dsn(dsn)} did not answer in time")


def _connect_error(said: str, dsn: str) -> Exception:
    """Tell a refusal that stays (credentials, pg_hba.conf, rights) from a server that isn't up."""
    for sign, hint in _REFUSALS:
        if sign in said:
            return SourceError("source.refused", f"{describe_dsn(dsn)}: {said}", hint)
    return ConnectionLostError(f"no connection to {describe_dsn(dsn)}: {said}")


# libpq gives no SQLSTATE for a failed connection attempt, so the English text decides; a server with translated
# messages falls through to ConnectionLostError, which is retried and then reported with the server's own words.
_REFUSALS = (
    (
        "no pg_hba.conf entry",
        "for this user and address add `host replication <user> <address> scram-sha-256`, then SELECT pg_reload_conf()",
    ),
    ("pg_hba.conf rejects", "change the `reject` line of pg_hba.conf, then SELECT pg_reload_conf()"),
    ("password authentication failed", "correct the user or the password in the connection string"),
    ("no password supplied", "put the password into the connection string or a .pgpass file"),
    ("permission denied to start WAL sender", "run: ALTER ROLE <user> REPLICATION"),
    ("must be superuser or replication role", "run: ALTER ROLE <user> REPLICATION"),
    ("does not exist", "correct the user or the database in the connection string"),
    ("server does not support SSL", "turn on ssl at the server, or connect over loopback"),
    ("certificate verify failed", "give the server's CA with sslrootcert="),
)


def _from_postgres_us(microseconds: int) -> datetime:
    return POSTGRES_EPOCH + timedelta(microseconds=microseconds)


def _text(value: str | None) -> str:
    if value is None:
        raise ConnectionLostError("the server left out a value that the replication protocol promises")
    return value
