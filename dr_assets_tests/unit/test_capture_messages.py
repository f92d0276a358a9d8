import struct
from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.stores.postgres.protocol import (
    POSTGRES_EPOCH,
    ConnectionLostError,
    Keepalive,
    WalData,
    decode_stream_message,
    encode_status,
    quote_identifier,
    quote_literal,
)

AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
AT_US = (AT - POSTGRES_EPOCH) // timedelta(microseconds=1)


def test_wal_and_keepalives_are_read_as_the_manual_describes_them() -> None:
    """Byte layouts of XLogData and primary keepalive, with times since 2000."""
    wal = decode_stream_message(b"w" + struct.pack(">QQQ", 0x100, 0x200, AT_US) + b"abc")
    assert wal == WalData(0x100, 0x200, AT, b"abc")
    assert isinstance(wal, WalData)
    assert wal.end == 0x103
    assert decode_stream_message(b"k" + struct.pack(">QQB", 0x200, AT_US, 1)) == Keepalive(
        0x200, AT, reply_requested=True
    )


def test_an_unknown_message_is_not_skipped() -> None:
    """A message of a newer protocol could hold WAL: the stream ends rather than lose it."""
    with pytest.raises(ConnectionLostError):
        decode_stream_message(b"z123")


def test_every_position_that_is_told_is_the_vaulted_one() -> None:
    """Write too: with synchronous_commit=remote_write a commit returns when that has passed it."""
    kind, written, flushed, applied, at_us, reply = struct.unpack(
        ">cQQQQB", encode_status(vaulted=700, now=AT, reply_requested=False)
    )
    assert (kind, written, flushed, applied, at_us, reply) == (b"r", 700, 700, 700, AT_US, 0)


def test_names_are_quoted_for_the_replication_grammar() -> None:
    """Quotes within a name or a text are doubled."""
    assert quote_identifier('a"b') == '"a""b"'
    assert quote_literal("o'k") == "'o''k'"
