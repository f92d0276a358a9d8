"""Into which partition a key goes, by the rules that producers follow.

What belongs here: the hashes of clients that are in use. What stays out: producing.

`murmur2` is Kafka's own (the Java client, kafka-python, franz-go, sarama's NewReferenceHashPartitioner); `crc32` is
librdkafka's `consistent` and `consistent_random`, the default of its clients (confluent-kafka for Python, Go, .NET).
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Final

_MIX: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_MASK: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32 bit murmur2, unsigned."""
    found = (_SEED ^ len(data)) & _MASK
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MIX & _MASK
        word = (word ^ word >> 24) * _MIX & _MASK
        found = found * _MIX & _MASK ^ word
    rest = data[whole:]
    if rest:
        found = (found ^ int.from_bytes(rest, "little")) * _MIX & _MASK
    found = (found ^ found >> 13) * _MIX & _MASK
    return found ^ found >> 15


def by_murmur2(key: bytes, partitions: int) -> int:
    """Where Kafka's own clients put a key."""
    return (murmur2(key) & _POSITIVE) % partitions


def by_crc32(key: bytes, partitions: int) -> int:
    """Where librdkafka's clients put a key."""
    return zlib.crc32(key) % partitions


PARTITIONERS: Final[Mapping[str, Callable[[bytes, int], int]]] = {"murmur2": by_murmur2, "crc32": by_crc32}
