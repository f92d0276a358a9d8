"""Worlds of buckets over the session's region."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets_tests.integration.bucket.bucket_rig import World


@pytest.fixture
def world(region: SeaweedRegion, tmp_path: Path) -> Callable[..., World]:
    """`world(rule=…, versioned=…)`: a source bucket of the test's own, with vault and ring."""
    return lambda **options: World(region, tmp_path, **options)


@pytest.fixture
def kyc(world: Callable[..., World]) -> World:
    """Documents of a few people: overwritten, deleted, tagged, large, and one that is nobody's."""
    one: Any = world()
    for person in range(6):
        for number in range(5):
            one.put(
                f"kyc/p{person}/doc {number}.pdf",
                f"document {number} of {person}".encode() * (number + 1),
                ContentType="application/pdf",
                CacheControl="max-age=9",
                ContentDisposition='attachment; filename="x.pdf"',
                ContentLanguage="mt",
                Metadata={"person": f"Persona {person}", "number": str(number)},
                Tagging=f"kind=id%20card&level={number}" if number % 2 else "",
            )
    one.put("kyc/p1/doc 1.pdf", b"newer")
    one.put("kyc/p1/doc 1.pdf", b"newest")
    one.client.delete_object(Bucket=one.bucket, Key="kyc/p2/doc 2.pdf")
    one.client.delete_object(Bucket=one.bucket, Key="kyc/p3/doc 3.pdf")
    one.put("kyc/p3/doc 3.pdf", b"back again")
    one.put("kyc/p4/ünïcode + space & more.txt", b"")
    one.put("readme.txt", b"of nobody in particular")
    return one
