"""Expiry of a bucket's copies: runs outside the window go with what only they need; everything kept still restores."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_assets.stores.bucket.copy import Asked
from dr_assets.stores.bucket.expiry_plan import BucketPlanner
from dr_assets.stores.bucket.plan import Wanted
from dr_assets.stores.postgres.expire import expire, plan_expiry
from dr_assets.vault.format.keys import BASE
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]


class Moved:
    """The vault's clock, which days can be added to; the source's stays where it is."""

    def __init__(self) -> None:
        self.by = timedelta()

    def __call__(self) -> datetime:
        """The time then."""
        return datetime.now(UTC) + self.by


def test_what_no_kept_run_needs_goes_once_its_lock_is_over(world: Callable[..., World]) -> None:
    """A full keeps the parts that it refers to, and only those; nothing goes before; verify and restore agree after."""
    clock = Moved()
    one = world(store=MemoryStore(clock), clock=clock)
    one.put("kyc/p0/stays", b"stays" * 100)
    one.copy()
    gone = one.put("kyc/p0/goes", b"goes" * 100)
    one.copy()
    one.client.delete_object(Bucket=one.bucket, Key="kyc/p0/goes", VersionId=gone)
    assert plan_expiry(one.vault(), NAME, planner=BucketPlanner).rows == []

    clock.by = timedelta(days=20)  # the next full prolongs what it refers to, before its lock is over
    full = one.copy(Asked(full=True))
    assert (full.kind, full.counts.copied, full.gone) == ("full", 0, 1)
    assert plan_expiry(one.vault(), NAME, planner=BucketPlanner).rows == []

    clock.by = timedelta(days=40)
    vault = one.vault()
    before = {str(obj.key) for obj in vault.objects(NAME)}
    done = expire(vault, NAME, planner=BucketPlanner)
    left = {str(obj.key) for obj in vault.objects(NAME)}
    assert done.refused == []
    assert done.removed == len(before - left) >= 5  # two manifests, two inventories, the part that went
    assert [str(obj.key) for obj in vault.objects(NAME, BASE)] == [full.manifest_key]
    assert [finding for finding in verify(one.vault(), NAME).findings if finding.kind != "lock_expired"] == []
    assert one.holds(one.restore(Wanted(versions="all"))[0]) == one.holds()
    assert plan_expiry(one.vault(), NAME, planner=BucketPlanner).rows == []


def test_the_newest_run_stays_however_old_it_is(world: Callable[..., World]) -> None:
    """When copying has stopped, nothing runs out."""
    clock = Moved()
    one = world(store=MemoryStore(clock), clock=clock)
    one.put("kyc/p0/a", b"a")
    one.copy()
    one.put("kyc/p0/b", b"b")
    one.copy()
    clock.by = timedelta(days=400)
    plan = plan_expiry(one.vault(), NAME, planner=BucketPlanner)
    assert [row for row in plan.rows if "facts-" not in str(row.key)] == []
    assert len(plan.kept) == 2  # the incremental and the full that it builds on


def test_a_run_that_lacks_a_part_carries_nothing(world: Callable[..., World]) -> None:
    """On its strength no older run goes, and the plan says why."""
    clock = Moved()
    one = world(store=MemoryStore(clock), clock=clock)
    one.put("kyc/p0/a", b"a" * 3000)
    one.copy()
    one.put("kyc/p0/b", b"b" * 3000)
    full = one.copy(Asked(full=True))
    clock.by = timedelta(days=60)
    vault = one.vault()
    doomed = next(obj for obj in vault.objects(NAME) if full.snapshot_id and full.snapshot_id in obj.key.stream)
    store: Any = one.store
    del store.rows[str(doomed.key)]
    plan = plan_expiry(vault, NAME, planner=BucketPlanner)
    assert len(plan.kept) == 2
    assert any("an older run is kept" in trouble for trouble in plan.troubles)
