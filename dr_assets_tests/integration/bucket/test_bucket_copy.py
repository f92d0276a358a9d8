"""Copying a bucket: every version with all that belongs to it, only what is new, nothing told outside the envelope."""

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.model import SubjectRule
from dr_assets.stores.bucket import copying as copying_module
from dr_assets.stores.bucket import fetching
from dr_assets.stores.bucket.complete import check_complete
from dr_assets.stores.bucket.copy import Asked, copy
from dr_assets.stores.bucket.names import Names
from dr_assets.stores.bucket.plan import Wanted
from dr_assets.stores.bucket.position import recovery_point
from dr_assets.stores.bucket.runs import chain_to, newest_run, rows_of
from dr_assets.stores.bucket.verify import verify_copy
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.retention.lock_check import check_locks
from dr_assets.vault.storage.write_once import LOCK_TOLERANCE
from dr_assets.vault.verify import verify
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]


def test_every_version_marker_and_all_that_belongs_to_it_comes_back(kyc: World) -> None:
    """Restored with all versions, names, orders, bytes, metadata, headers and tags are those of the source."""
    result = kyc.copy()
    assert (result.kind, result.is_complete, result.counts.unassigned) == ("full", True, 1)
    assert result.held == result.listed
    into, restored = kyc.restore(Wanted(versions="all"))
    assert kyc.holds(into) == kyc.holds()
    assert restored.restored == result.held
    assert verify(kyc.vault()).findings == ()
    assert not check_locks(kyc.vault(), NAME).troubles
    assert verify_copy(kyc.site(), documents=True).ok


def test_a_run_copies_only_what_is_new_and_notes_what_went(kyc: World) -> None:
    """The next run finds nothing and writes but its word; a new version and a removed one are all of the third."""
    kyc.copy()
    objects = len(list(kyc.vault().objects(NAME)))
    again = kyc.copy()
    assert (again.kind, again.counts.copied) == ("unchanged", 0)
    assert len(list(kyc.vault().objects(NAME))) == objects + 1  # its fact
    gone = kyc.put("kyc/p5/doc 9.pdf", b"short-lived")
    assert kyc.copy().counts.copied == 1
    kyc.put("kyc/p5/doc 0.pdf", b"another version")
    kyc.client.delete_object(Bucket=kyc.bucket, Key="kyc/p5/doc 9.pdf", VersionId=gone)
    third = kyc.copy()
    assert (third.kind, third.counts.copied, third.gone) == ("incremental", 1, 1)
    assert kyc.holds(kyc.restore(Wanted(versions="all"))[0]) == kyc.holds()
    point = recovery_point(kyc.vault(), NAME)
    assert point is not None
    assert point.at == third.listing_begin_at
    assert check_complete(kyc.site(), kyc.place()).ok


def test_a_lost_work_folder_costs_nothing_but_time(kyc: World) -> None:
    """Without its index a run reads the vault's inventories, and copies no document twice."""
    kyc.copy()
    kyc.put("kyc/p0/late.pdf", b"late")
    kyc.copy()
    kyc.put("kyc/p0/later.pdf", b"later")
    result = copy(kyc.site(folder="another"), kyc.place())
    assert (result.kind, result.counts.copied) == ("incremental", 1)
    assert kyc.holds(kyc.restore(Wanted(versions="all"))[0]) == kyc.holds()


def test_an_index_that_turns_out_to_be_damaged_costs_nothing_but_time(kyc: World) -> None:
    """It opens, and breaks only where the run reads it: the same run goes on without it."""
    kyc.copy()
    (file,) = (kyc.folder / "work").glob("*.copy.sqlite")
    page, data = 4096, bytearray(file.read_bytes())
    with sqlite3.connect(file) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'known'").fetchone()
    db.close()
    data[(root - 1) * page : root * page] = b"\xff" * page
    file.write_bytes(data)
    result = kyc.copy()
    assert (result.kind, result.is_complete, result.counts.copied) == ("unchanged", True, 0)


def test_a_full_refers_to_what_is_stored_and_locks_it_as_long_as_itself(kyc: World) -> None:
    """Nothing is read from the source anew; parts of the full before outlive the new one; restores need no older."""
    kyc.copy()
    kyc.put("kyc/p0/late.pdf", b"late")
    full = kyc.copy(Asked(full=True))
    assert (full.kind, full.counts.copied, full.why_full) == ("full", 1, "a full was asked for")
    vault = kyc.vault()
    run = newest_run(vault, NAME)
    assert run is not None
    assert run.manifest is not None
    assert len(chain_to(vault, run)) == 1
    assert run.manifest.refers
    until = parse_time(run.manifest.policy["retain_until"], "") - LOCK_TOLERANCE
    for obj in vault.objects(NAME):
        if str(obj.key) in run.manifest.refers:
            head = vault.store.head(str(obj.key), obj.version_id)
            assert head is not None
            assert head.lock is not None
            assert head.lock.retain_until >= until
    assert kyc.holds(kyc.restore(Wanted(versions="all"))[0]) == kyc.holds()


def test_a_full_is_taken_when_it_is_due(world: Callable[..., World]) -> None:
    """Older than `full_every`, the chain begins anew by itself."""
    one = world(full_every=timedelta(seconds=1))
    one.put("kyc/p0/a", b"a")
    one.copy()
    one.wait_for_a_later_second()
    one.wait_for_a_later_second()
    result = one.copy()
    assert result.kind == "full"
    assert result.why_full is not None
    assert result.why_full.startswith("the last full began")


def test_parts_that_are_mostly_of_no_use_are_copied_anew_by_a_full(world: Callable[..., World]) -> None:
    """What is still there of them leaves them, so that they can expire; nothing else is read again."""
    one = world()
    gone = [one.put(f"kyc/p0/{number}", b"x" * 2000) for number in range(8)]
    one.put("kyc/p0/stays", b"y" * 2000)
    one.copy()
    for number, version in enumerate(gone):
        one.client.delete_object(Bucket=one.bucket, Key=f"kyc/p0/{number}", VersionId=version)
    full = one.copy(Asked(full=True))
    assert (full.counts.copied, full.gone) == (1, 8)
    assert full.held.versions == 1
    assert one.holds(one.restore(Wanted(versions="all"))[0]) == one.holds()


def test_no_name_lies_outside_its_persons_envelope(kyc: World) -> None:
    """All that the dataset's own key opens, and the work folder, tells no name, metadata or tag of people."""
    kyc.copy()
    kyc.put("kyc/p0/late.pdf", b"late")
    kyc.copy()
    vault = kyc.vault()
    plain = b"".join(vault.open(obj).plaintext for obj in vault.objects(NAME))
    assert b"of nobody in particular" in plain
    for secret in (b"doc 1", b"kyc/p", b"Persona", b"id card", b"document 0", b"newest", b"p5/"):
        assert secret not in plain, secret
    assert hashlib.sha256(b"newest").hexdigest().encode() not in plain
    keys = b"\n".join(str(obj.key).encode() for obj in vault.objects(NAME))
    assert b"p5" not in keys
    assert [path for path in (kyc.folder / "work").iterdir() if b"Persona 1" in path.read_bytes()] == []
    assert [path for path in (kyc.folder / "work").iterdir() if b"doc 1.pdf" in path.read_bytes()] == []


def test_a_bucket_without_versions_is_copied_as_it_is_seen(world: Callable[..., World]) -> None:
    """Each content that a run saw is a version; what was overwritten or deleted since can be had as of then."""
    one = world(versioned=False, rule=SubjectRule("none"))
    one.put("a/log", b"first")
    one.put("a/other", b"stays")
    before = one.copy()
    then = one.wait_for_a_later_second()
    one.copy()
    one.wait_for_a_later_second()
    one.put("a/log", b"second, longer")
    one.client.delete_object(Bucket=one.bucket, Key="a/other")
    one.wait_for_a_later_second()
    result = one.copy()
    assert (before.held.versions, result.counts.copied, result.gone) == (2, 1, 2)
    into, _ = one.restore()
    assert {name: rows[0][1] for name, rows in one.current(into).items()} == {
        "a/log": hashlib.sha256(b"second, longer").hexdigest()
    }
    into, _ = one.restore(Wanted(to=then))
    assert {name: rows[0][1] for name, rows in one.current(into).items()} == {
        "a/log": hashlib.sha256(b"first").hexdigest(),
        "a/other": hashlib.sha256(b"stays").hexdigest(),
    }


def test_a_prefix_is_all_that_is_copied(world: Callable[..., World]) -> None:
    """Names beside it, also those that begin alike, are not even listed as held."""
    one = world(prefix="in/here", rule=SubjectRule("none"))
    for name in ("in/here/a", "in/here-too", "in/there", "out"):
        one.put(name, name.encode())
    result = one.copy()
    assert result.held.versions == 2
    into, _ = one.restore()
    assert set(one.current(into)) == {"in/here/a", "in/here-too"}


def test_whose_a_document_is_may_lie_in_tags_or_metadata(world: Callable[..., World]) -> None:
    """A person's documents, delete markers included, are found by tag or by metadata, and restored as one person's."""
    for rule, more in (
        (SubjectRule("tag", name="person"), {"Tagging": "person=anna"}),
        (SubjectRule("metadata", name="Person"), {"Metadata": {"person": "anna"}}),
    ):
        one = world(rule=rule)
        one.put("a", b"hers", **more)
        one.put("b", b"nobody's")
        one.client.delete_object(Bucket=one.bucket, Key="a")
        result = one.copy()
        assert (result.counts.unassigned, result.held.versions, result.held.markers) == (1, 2, 1)
        into, restored = one.restore(Wanted(person=one.ids.of("anna"), versions="all"))
        assert (restored.restored.versions, restored.restored.markers) == (1, 1)
        assert list(one.holds(into)) == ["a"]


def test_a_large_document_goes_in_pieces(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed into several parts and back, byte for byte; no more than a piece of it is ever asked for at once."""
    monkeypatch.setattr(fetching, "SMALL_BYTES", 1 << 20)
    one = world()
    body = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(600)) * 1000
    one.put("kyc/p0/scan.tiff", body, Metadata={"pages": "3"})
    one.put("kyc/p0/small", b"small")
    result = one.copy()
    assert result.held.versions == 2
    assert result.parts > 2
    into, _ = one.restore()
    assert one.current(into) == one.current()
    vault = one.vault()
    run = newest_run(vault, NAME)
    assert run is not None
    rows = [row for shard in rows_of(vault, [run]) for row in shard]
    assert sorted(len(row.pieces) for row in rows) == [0, 3]


def test_what_vanishes_between_listing_and_copying_is_counted_and_nothing_else_is_lost(
    kyc: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version removed after it was listed is `vanished`; the run is complete, the next one doesn't look for it."""
    doomed = kyc.put("kyc/p0/doomed.pdf", b"doomed")
    whole = copying_module.Copying.versions

    def remove_first(self: Any) -> None:
        kyc.client.delete_object(Bucket=kyc.bucket, Key="kyc/p0/doomed.pdf", VersionId=doomed)
        whole(self)

    monkeypatch.setattr(copying_module.Copying, "versions", remove_first)
    result = kyc.copy()
    assert (result.is_complete, result.counts.vanished) == (True, 1)
    monkeypatch.undo()
    assert kyc.copy().kind == "unchanged"
    assert kyc.holds(kyc.restore(Wanted(versions="all"))[0]) == kyc.holds()


def test_what_changes_between_listing_and_copying_is_stored_as_what_it_is(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without versions the newer content is copied with its own size, digest and time; none pretends to be the old."""
    one = world(versioned=False, rule=SubjectRule("none"))
    one.put("log", b"listed")
    whole = copying_module.Copying.versions

    def append_first(self: Any) -> None:
        one.put("log", b"listed, and then some")
        whole(self)

    monkeypatch.setattr(copying_module.Copying, "versions", append_first)
    result = one.copy()
    assert (result.is_complete, result.counts.replaced) == (True, 1)
    monkeypatch.undo()
    assert one.copy().counts.copied == 0
    assert one.current(one.restore()[0]) == one.current()


def test_another_key_of_names_is_refused_before_anything_is_written(kyc: World) -> None:
    """With it every document would look new, and nothing stored would ever be found again."""
    kyc.copy()
    objects = len(list(kyc.vault().objects(NAME)))
    with pytest.raises(PolicyError, match=r"bucket\.other_names_key"):
        copy(replace(kyc.site(), names=Names.of(NAME, b"o" * 32)), kyc.place())
    assert len(list(kyc.vault().objects(NAME))) == objects


def test_one_folder_has_one_copy_at_a_time(kyc: World) -> None:
    """A second process is told so, and the first is not disturbed."""
    site = kyc.site()
    with site.alone("copy"), pytest.raises(PolicyError, match=r"bucket\.busy"):
        kyc.copy()
    assert kyc.copy().is_complete


def test_a_missing_source_is_told_as_such(kyc: World) -> None:
    """Nothing is taken for gone because a bucket can't be found."""
    kyc.copy()
    with pytest.raises(SourceError, match=r"bucket\.missing"):
        kyc.copy(place=kyc.place("no-such-bucket"))
    assert kyc.copy().kind == "unchanged"
