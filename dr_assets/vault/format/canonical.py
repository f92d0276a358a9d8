"""Canonical JSON: one value has exactly one encoding, so that its digest and signature mean something.

What belongs here: encoding, strict decoding, the text form of times and digests. What stays out: which fields exist.
"""

import json
import re
from datetime import UTC, datetime
from typing import Final, NoReturn

from dr_assets.estate.errors import VaultError

Json = dict[str, "Json"] | list["Json"] | str | int | bool | None

_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)


def malformed(what: str) -> VaultError:
    """The error of bytes that are no object of ours. `what` says which rule of docs/format.md they break."""
    return VaultError(
        "vault.malformed",
        what,
        "the object was damaged or never ours; `dr-assets vault verify` lists every such object",
    )


def encode(value: object) -> bytes:
    """Sorted keys, no spaces, ASCII, no floats that aren't numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def decode(data: bytes, *, limit_bytes: int, what: str) -> dict[str, Json]:
    """The one JSON object that `data` is the canonical encoding of.

    Raises VaultError `vault.malformed` when it is longer than `limit_bytes`, no JSON object, or in any other encoding.
    """
    if len(data) > limit_bytes:
        raise malformed(f"{what}: {len(data)} bytes, at most {limit_bytes} are allowed")
    try:
        value = json.loads(data.decode("ascii"), parse_constant=_no_constant)
        canonical = encode(value) == data
    except (ValueError, RecursionError):  # ValueError covers bad ASCII, bad JSON and integers beyond all bounds
        raise malformed(f"{what}: not JSON") from None
    if not isinstance(value, dict):
        raise malformed(f"{what}: not a JSON object")
    if not canonical:
        raise malformed(f"{what}: not in the canonical encoding")
    return value


def format_time(at: datetime) -> str:
    """Microseconds, always, and Z: `2025-01-31T23:59:59.000000Z`. A naive time is our own bug and crashes."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: object, what: str) -> datetime:
    """The time that `format_time` wrote; raises VaultError `vault.malformed` on any other text."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise malformed(f"{what}: not a time in UTC with microseconds")
    try:
        return datetime.fromisoformat(text)  # several times as fast as strptime, and the form is settled above
    except ValueError:
        raise malformed(f"{what}: not a time in UTC with microseconds") from None


def parse_hex(text: object, size_bytes: int, what: str) -> str:
    """`text` itself if it is exactly `size_bytes` in lower-case hex; raises VaultError `vault.malformed` otherwise."""
    if not isinstance(text, str) or len(text) != 2 * size_bytes or not _HEX.fullmatch(text):
        raise malformed(f"{what}: not {size_bytes} bytes in lower-case hex")
    return text
