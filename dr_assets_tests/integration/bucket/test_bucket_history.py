"""Versions whose place in time is easily mistaken: from before versioning, and of moments that events saw."""

from collections.abc import Callable

import pytest

from dr_assets.stores.bucket.copy import Asked
from dr_assets.stores.bucket.plan import Wanted
from dr_assets_tests.integration.bucket.bucket_rig import World

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]


def test_versions_from_before_versioning_are_copied_as_themselves(world: Callable[..., World]) -> None:
    """Overwritten or deleted since, they are what they were, not what is current; and copied once."""
    one = world(versioned=False)
    one.put("kyc/anna/id.pdf", b"from before", Metadata={"of": "before"})
    one.put("kyc/anna/old.pdf", b"deleted since")
    on = {"Status": "Enabled"}
    one.client.put_bucket_versioning(Bucket=one.bucket, VersioningConfiguration=on)
    one.put("kyc/anna/id.pdf", b"newer", Metadata={"of": "after"})
    one.client.delete_object(Bucket=one.bucket, Key="kyc/anna/old.pdf")
    done = one.copy()
    assert (done.counts.copied, done.counts.replaced, done.counts.vanished) == (3, 0, 0)
    assert one.copy().kind == "unchanged"
    into, _ = one.restore(Wanted(versions="all"))
    bodies = {}
    for page in one.client.get_paginator("list_object_versions").paginate(Bucket=into):
        for raw in page.get("Versions", []):
            got = one.client.get_object(Bucket=into, Key=raw["Key"], VersionId=raw["VersionId"])
            bodies[raw["Key"], raw["IsLatest"]] = got["Body"].read(), got["Metadata"].get("of")
    assert bodies == {
        ("kyc/anna/id.pdf", False): (b"from before", "before"),
        ("kyc/anna/id.pdf", True): (b"newer", "after"),
        ("kyc/anna/old.pdf", False): (b"deleted since", None),
    }


def test_what_an_event_saw_go_is_there_at_a_moment_before(world: Callable[..., World]) -> None:
    """Also when the next whole listing is a full, which knows nothing of it any more."""
    one = world(versioned=False)
    for name in ("kyc/anna/a.pdf", "kyc/anna/b.pdf"):
        one.put(name, name.encode())
    one.wait_for_a_later_second()
    one.copy()
    then = one.wait_for_a_later_second()
    one.wait_for_a_later_second()
    before = one.current()
    one.client.delete_object(Bucket=one.bucket, Key="kyc/anna/a.pdf")
    one.copy(Asked(names=["kyc/anna/a.pdf"]))
    one.wait_for_a_later_second()
    one.copy(Asked(full=True))
    into, _ = one.restore(Wanted(to=then))
    assert one.current(into).keys() == before.keys()
