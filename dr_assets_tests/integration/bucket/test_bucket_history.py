"""Versions whose place in time is easily mistaken: from before versioning, and of moments that events saw."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.stores.bucket.copy import Asked, _Copy
from dr_assets.stores.bucket.plan import Wanted
from dr_assets.stores.bucket.runs import newest_run
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.storage.write_once import LOCK_TOLERANCE
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World

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


def test_what_an_interrupted_run_sealed_is_locked_as_long_as_the_run_that_goes_on(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed days ago: its parts outlive the manifest that names them. And its folder keeps no names meanwhile."""
    later = [timedelta()]

    def clock() -> datetime:
        return datetime.now(UTC) + later[0]

    one = world(clock=clock, store=MemoryStore(clock))
    one.put("kyc/anna/passport.pdf", b"a passport")

    class Killed(BaseException):
        """As SIGKILL, or nearly."""

    def killed(*_: object) -> str:
        raise Killed

    monkeypatch.setattr(_Copy, "_seal", killed)
    with pytest.raises(Killed):
        one.copy()
    monkeypatch.undo()
    assert not [file for file in (one.folder / "work").iterdir() if b"passport.pdf" in file.read_bytes()]
    later[0] = timedelta(days=3)
    assert one.copy().counts.copied == 0
    vault = one.vault()
    run = newest_run(vault, NAME)
    assert run is not None
    assert run.manifest is not None
    until = parse_time(run.manifest.policy["retain_until"], "") - LOCK_TOLERANCE
    named = {part.key for part in run.manifest.parts}
    heads = [vault.store.head(str(obj.key), obj.version_id) for obj in vault.objects(NAME) if str(obj.key) in named]
    assert len(heads) == len(named)
    assert all(head is not None and head.lock is not None and head.lock.retain_until >= until for head in heads)
