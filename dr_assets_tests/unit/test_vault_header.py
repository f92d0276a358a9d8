"""The header: one encoding, every field bounded, nothing silently accepted."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.header import FIELDS, PREFIX_BYTES, Header, parse_header
from dr_assets.vault.format.keys import ObjectKey, prefix_of, require_name

AT = datetime(2031, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
GOOD = Header(
    estate="casino", dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=10, last=20,
    begin_at=AT, end_at=AT, sealed_at=AT, size_bytes=10, plaintext_sha256="ab" * 32, key_id="cd" * 16,
    salt="ef" * 32, key_commitment="01" * 32, signer_id="23" * 16, extra={"note": "ü"},
)  # fmt: skip


def changed(**fields: object) -> bytes:
    """The good header's JSON with some fields changed, canonical again."""
    raw = json.loads(GOOD.encoded()[PREFIX_BYTES:])
    return canonical.encode(raw | fields)


def test_reads_back_what_it_wrote() -> None:
    """Every field survives, to the microsecond."""
    assert parse_header(GOOD.encoded()[PREFIX_BYTES:]) == GOOD


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("estate", ["", "Casino", "a/b", "..", ".a", "a" * 64, 1, None]),
        ("kind", ["", "xlog", 1, None, ["wal"]]),
        ("codec", ["none", "zstd", None]),
        ("timeline", [-1, 1 << 32, 1.0, "1", True, None]),
        ("first", ["10", 10, "000000000000001e", "-000000000000001", "00000000000000014"]),
        ("last", ["000000000000000A", "0000000000000009"]),
        ("size_bytes", [-1, (1 << 30) + 1, True, "1"]),
        ("begin_at", ["2031-05-04T03:02:01Z", "2031-05-04 03:02:01.123456Z", "2031-13-04T03:02:01.123456Z", 1, None]),
        ("salt", ["EF" * 32, "ef" * 31, "", 1, None, "zz" * 32]),
        ("previous", ["ab" * 31, 1, ""]),
        ("writer_epoch", [-1, 1 << 53, None]),
        (
            "extra",
            [None, [], {"A": "x"}, {"a": 1}, {"a": "x" * 4097}, {"a": "\ud800"}, {str(n): "" for n in range(65)}],
        ),
    ],
)
def test_refuses_every_field_out_of_bounds(field: str, values: list[object]) -> None:
    """Wrong type, length, alphabet or range: `vault.malformed`, and the field is named."""
    for value in values:
        with pytest.raises(VaultError) as caught:
            parse_header(changed(**{field: value}))
        assert caught.value.code == "vault.malformed"
        assert field in caught.value.found or "first" in caught.value.found


def test_refuses_unknown_and_missing_fields() -> None:
    """Version 1 has exactly these fields; what a later version adds needs its number."""
    with pytest.raises(VaultError, match="unknown or missing"):
        parse_header(changed(shape="round"))
    raw = json.loads(GOOD.encoded()[PREFIX_BYTES:])
    for field in FIELDS:
        with pytest.raises(VaultError, match="unknown or missing"):
            parse_header(canonical.encode({name: value for name, value in raw.items() if name != field}))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(json.loads(GOOD.encoded()[PREFIX_BYTES:])).encode(),
        json.dumps(json.loads(GOOD.encoded()[PREFIX_BYTES:]), separators=(",", ":")).encode() + b"\n",
        GOOD.encoded()[PREFIX_BYTES:].replace(b'{"begin_at"', b'{"kind":"wal","begin_at"', 1),
        GOOD.encoded()[PREFIX_BYTES:].replace(b"\\u00fc", "ü".encode()),
        GOOD.encoded()[PREFIX_BYTES:].replace(b'"timeline":1', b'"timeline":1.0'),
        GOOD.encoded()[PREFIX_BYTES:].replace(b'"timeline":1', b'"timeline":NaN'),
        GOOD.encoded()[PREFIX_BYTES:].replace(b'"timeline":1', b'"timeline":' + b"9" * 5000),
        b"[" * 60_000,
        b"[]",
        b"",
        b"x" * 70_000,
    ],
)
def test_refuses_every_other_encoding(text: bytes) -> None:
    """Two texts for one header would be two digests for one truth; hostile JSON neither crashes nor hangs."""
    with pytest.raises(VaultError, match="malformed"):
        parse_header(text)


def test_times_are_microseconds_in_utc() -> None:
    """Another zone is converted, a naive time is our own bug."""
    east = timezone(timedelta(hours=2))
    assert canonical.format_time(AT.astimezone(east)) == "2031-05-04T03:02:01.123456Z"
    with pytest.raises(ValueError, match="zone"):
        canonical.format_time(datetime(2031, 1, 1))  # noqa: DTZ001 - the point of the test


@given(
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
)
def test_keys_read_back(name: str, timeline: int, one: int, other: int, digest: bytes) -> None:
    """A key's text form is exact in both directions."""
    key = ObjectKey(name, "ledger", "wal", "7", timeline, min(one, other), max(one, other), digest.hex())
    assert ObjectKey.parse(str(key)) == key
    assert str(key).startswith(prefix_of(name, "ledger", "wal", "7", timeline))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "casino/ledger/wal/7/00000001",
        "casino/ledger/wal/7/00000001/000000000000000A-0000000000000014-" + "ab" * 15,
        "casino/ledger/wal/7/00000001/000000000000000a-0000000000000014-" + "ab" * 16,
        "casino/ledger/wal/7/00000001/000000000000000A-0000000000000014-" + "AB" * 16,
        "casino/ledger/wal/7/00000001/0000000000000014-000000000000000A-" + "ab" * 16,
        "casino/ledger/wal/7/1/000000000000000A-0000000000000014-" + "ab" * 16,
        "casino/../wal/7/00000001/000000000000000A-0000000000000014-" + "ab" * 16,
        "casino/ledger/wal/7/00000001/000000000000000A-0000000000000014-" + "ab" * 16 + "\n",
        "casino/ledger/wal/7/0000000\u0661/000000000000000A-0000000000000014-" + "ab" * 16,
    ],
)
def test_other_names_are_no_keys(text: str) -> None:
    """Near misses are foreign names: never repaired, never fatal."""
    assert ObjectKey.parse(text) is None


def test_names_that_cannot_stand_in_a_key_are_refused_early() -> None:
    """Before anything is sealed under them."""
    assert require_name("ledger-eu.1_x", "dataset") == "ledger-eu.1_x"
    with pytest.raises(VaultError, match="bad_name"):
        require_name("Ledger", "dataset")
