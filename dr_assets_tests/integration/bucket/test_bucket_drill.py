"""A bucket's restore test and drill, on real stores: what they prove, and what they catch."""

from pathlib import Path
from typing import Any, cast

import pytest

from dr_assets.drills.restored_drill import drill_bucket
from dr_assets.estate.model import Estate
from dr_assets.proving import bucket_test
from dr_assets.proving.bucket_compare import Expected
from dr_assets.stores.bucket.runs import newest_run
from dr_assets.vault.facts import facts, latest_fact
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]
ESTATE = cast("Estate", None)  # the world stands for it: ring, list and site come from there


@pytest.fixture
def proven(kyc: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world's ring and erasure list instead of a declared estate's."""
    monkeypatch.setattr(bucket_test, "open_site", lambda *_, **__: kyc.site(folder="drill"))
    monkeypatch.setattr(bucket_test, "gather", lambda *_: kyc.erasures())
    return kyc


def test_a_drill_recovers_every_document_and_catches_what_is_planted(proven: World, tmp_path: Path) -> None:
    """Due, restored, compared byte by byte, on record; a changed, a missing and a foreign document are each noticed.

    Who is erased before does not come back, and nothing of the throwaway store is left behind.
    """
    proven.copy()
    proven.erase("p2")
    site: Any = proven.site()
    attempt = drill_bucket(proven.vault(), ESTATE, site.dataset, env={"DR_ASSETS_WORK_DIR": str(tmp_path)})
    assert (attempt.outcome, attempt.reason[:8]) == ("passed", "restored")
    vault = proven.vault()
    tested, drilled = latest_fact(vault, NAME, "restore_test"), latest_fact(vault, NAME, "drill")
    assert tested is not None
    assert drilled is not None
    current = {name: body for name, body in proven.current().items() if "/p2/" not in name}
    assert tested.body["documents"] == len(current)
    assert (tested.body["missing"], tested.body["foreign"], tested.body["differing"]) == (0, 0, 0)
    assert tested.body["erased_people"] == 1
    assert [fact.body["outcome"] for fact in facts(vault, NAME, "restore_test_due")] == ["due"]
    assert (drilled.body["controls_planted"], drilled.body["controls_caught"]) == (3, 3)
    assert not list(tmp_path.glob("dr_assets-restore-test-*"))


def test_comparing_counts_what_differs_is_missing_or_was_never_copied(kyc: World, tmp_path: Path) -> None:
    """A restored bucket is held to the inventory by a reading of its own; without damage nothing is told."""
    kyc.copy()
    into, _ = kyc.restore()
    site, place = kyc.site(), kyc.place(into)
    run = newest_run(kyc.vault(), NAME)
    assert run is not None
    expected = Expected.of(site, run, frozenset(), tmp_path / "expected.sqlite")
    assert expected.compare(place).broken() == []
    kyc.client.put_object(Bucket=into, Key="kyc/p0/doc 0.pdf", Body=b"another")
    kyc.client.delete_object(Bucket=into, Key="kyc/p0/doc 1.pdf")
    kyc.client.put_object(Bucket=into, Key="kyc/p0/foreign.pdf", Body=b"x")
    found = expected.compare(place)
    assert (found.differing, found.missing, found.foreign) == (1, 1, 1)
    assert len(found.broken()) == 3
