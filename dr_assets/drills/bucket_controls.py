"""Negative controls of a bucket: damage planted into a throwaway bucket that had passed, which comparing must catch.

What belongs here: planting one kind after the other. What stays out: comparing (proving/bucket_compare.py).
"""

from typing import Final

from dr_assets.drills.planted import Controls, plant_each
from dr_assets.proving.bucket_compare import Expected
from dr_assets.stores.bucket.listing import Listed, listing
from dr_assets.stores.bucket.source import Place

FOREIGN: Final = "dr_assets-planted-by-a-drill"


def plant_in_bucket(place: Place, expected: Expected) -> Controls:
    """A document changed in one byte, one that is gone, one that nobody copied. The bucket is ruined afterwards."""
    there = [row for rows in listing(place) for row in rows if not row.is_marker and row.size_bytes][:2]
    plants = {
        "a changed byte": lambda: bool(there) and _change(place, there[0]),
        "a document that is gone": lambda: len(there) > 1 and _remove(place, there[1]),
        "a foreign document": lambda: _put(place, FOREIGN, b"planted"),
    }
    return plant_each(plants, lambda: _wrong(place, expected))


def _wrong(place: Place, expected: Expected) -> int:
    found = expected.compare(place)
    return found.missing + found.foreign + found.differing


def _change(place: Place, row: Listed) -> bool:
    with place.answers():
        body = bytearray(place.client.get_object(Bucket=place.bucket, Key=row.name)["Body"].read())
    body[len(body) // 2] ^= 1
    return _put(place, row.name, bytes(body))


def _remove(place: Place, row: Listed) -> bool:
    with place.answers():
        place.client.delete_object(Bucket=place.bucket, Key=row.name)
    return True


def _put(place: Place, name: str, body: bytes) -> bool:
    with place.answers():
        place.client.put_object(Bucket=place.bucket, Key=name, Body=body)
    return True
