"""Hostile bytes for the format's parsers: one target for the tests and for scripts/fuzz_parser.py.

What belongs here: turning a few drawn numbers into an attack, and the rule that every parser keeps. What stays out:
who draws them.
"""

import hashlib
import json
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zstandard
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.envelope import split, split_head, split_trailer
from dr_assets.vault.format.header import parse_header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import open_sealed
from dr_assets.vault.inventory import parse_inventory
from dr_assets.vault.keys.key_object import parse_key_object
from dr_assets.vault.signing import Trust
from dr_assets_tests.broken.vault.generate import LONG, SMALL, forge, frames_of, head_of, reframed, reheaded
from dr_assets_tests.vectors.vault.generate import DATA_KEY, SIGNER, key_object

PEAK_LIMIT_BYTES = 24 << 20
KEY_NAME, KEY_DATA = key_object()
KEY = ObjectKey.parse(KEY_NAME)

numbers = st.integers(0, 2**32 - 1)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELD_NAMES = sorted(canonical.decode(head_of(SMALL)[12:], limit_bytes=1 << 16, what="header"))


@st.composite
def attacks(draw: st.DrawFn) -> bytes:
    """Bytes that are nearly an object: mutated, spliced, or forged so that every check before the last one passes."""
    return draw(st.sampled_from(KINDS))(draw)


def _random(draw: st.DrawFn) -> bytes:
    return draw(st.sampled_from([b"", head_of(SMALL)[:7], head_of(SMALL)[:12]])) + draw(st.binary(max_size=2000))


def _mutated(draw: st.DrawFn) -> bytes:
    return mutated(draw, draw(st.sampled_from([SMALL.data, KEY_DATA])))


def _lengths(draw: st.DrawFn) -> bytes:
    at = draw(st.sampled_from([8, len(head_of(SMALL))]))
    return SMALL.data[:at] + struct.pack(">I", draw(numbers)) + SMALL.data[at + 4 :]


def _header(draw: st.DrawFn) -> bytes:
    return reheaded(lambda text: mutated(draw, text))


def _fields(draw: st.DrawFn) -> bytes:
    return reheaded(lambda text: with_field(draw, text))


def _frame(draw: st.DrawFn) -> bytes:
    compressed = draw(st.sampled_from([zstandard.compress(b""), zstandard.compress(bytes(5000)), b""]))
    return reframed(mutated(draw, compressed))


def _frames(draw: st.DrawFn) -> bytes:
    return forge(head_of(LONG), draw(st.lists(st.sampled_from(frames_of(LONG)), max_size=5)))


def _json(draw: st.DrawFn) -> bytes:
    return canonical_or_not(draw(json_values))


KINDS: tuple[Callable[[st.DrawFn], bytes], ...] = (
    _random,
    _mutated,
    _lengths,
    _header,
    _fields,
    _frame,
    _frames,
    _json,
)


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """A few bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(numbers) % (len(changed) + 1), draw(st.integers(0, 40))
        piece = draw(st.one_of(st.binary(max_size=8), st.just(bytes(changed[at : at + length]) * 2)))
        changed[at : at + length] = piece
    return bytes(changed)


def with_field(draw: st.DrawFn, text: bytes) -> bytes:
    """The header with one field set to anything."""
    raw: dict[str, Any] = canonical.decode(text, limit_bytes=1 << 16, what="header")
    raw[draw(st.sampled_from(FIELD_NAMES))] = draw(json_values)
    return canonical_or_not(raw)


def canonical_or_not(value: Any) -> bytes:
    """Python's JSON of it, whatever it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def parsers() -> list[Callable[[bytes], object]]:
    """Everything that reads bytes from a store."""
    trust = Trust.of(SIGNER)
    assert KEY is not None
    key = KEY

    def as_key_object(data: bytes) -> object:
        digest = hashlib.sha256(data).hexdigest()[:32]
        named = ObjectKey(key.estate, key.dataset, key.stream, key.system_id, key.timeline, 0, 0, digest)
        return parse_key_object(data, key=named, trust=trust)

    return [
        lambda data: open_sealed(data, trust=trust, key_of=lambda _: DATA_KEY),
        split,
        split_head,
        split_trailer,
        parse_header,
        as_key_object,
        lambda data: parse_inventory(canonical.decode(data, limit_bytes=1 << 16, what="x"), name="x"),
        lambda data: ObjectKey.parse(data.decode("latin-1")),
    ]


def attack(data: bytes) -> None:
    """Every parser refuses `data` with a VaultError or reads it, in bounded memory; anything else escapes from here."""
    for parse in parsers():
        tracemalloc.start()
        try:
            with suppress(VaultError):
                parse(data)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < PEAK_LIMIT_BYTES, f"{peak} bytes allocated for {len(data)}"
