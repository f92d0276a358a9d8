"""Restoring a bucket: whole, a prefix, a person, as of a time; counted, gone on with, the erased left out."""

import hashlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.estate.model import SubjectRule
from dr_assets.stores.bucket.plan import Wanted, plan_restore
from dr_assets.stores.bucket.restore import restore
from dr_assets.stores.bucket.target import Target
from dr_assets.stores.bucket.verify import verify_copy
from dr_assets.vault.subjects.deletion import restore as take_back
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.verify import verify
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]


def test_the_current_versions_come_back_by_default(kyc: World) -> None:
    """What a plain listing showed, and nothing that was deleted; counts agree with the target's own listing."""
    kyc.copy()
    into, restored = kyc.restore()
    assert kyc.current(into) == kyc.current()
    assert all(len(rows) == 1 for rows in kyc.holds(into).values())
    assert (restored.target.versions, restored.target.size_bytes) == (
        restored.restored.versions,
        restored.restored.size_bytes,
    )


def test_a_prefix_reads_only_what_it_needs(kyc: World) -> None:
    """Whole folders and beginnings of names; of other people not even a head is opened."""
    kyc.copy()
    for person in ("p9", "p8"):
        kyc.put(f"kyc/{person}/doc.pdf", b"later")
        kyc.copy()
    site = kyc.site()
    plan = plan_restore(site, Wanted(prefix="kyc/p9/"), kyc.erasures(), target="x")
    with plan.picked:
        assert (plan.picked_tally.versions, plan.parts) == (1, 1)
    into, _ = kyc.restore(Wanted(prefix="kyc/p1/"))
    assert set(kyc.current(into)) == {name for name in kyc.current() if name.startswith("kyc/p1/")}
    into, restored = kyc.restore(Wanted(prefix="kyc/p1/doc 1"))
    assert (set(kyc.current(into)), restored.left_out) == ({"kyc/p1/doc 1.pdf"}, 4)


def test_a_moment_between_two_runs_comes_back_as_it_was(kyc: World) -> None:
    """By the versions' own times: what was written after it is not there, what was deleted after it is."""
    kyc.copy()
    then = kyc.wait_for_a_later_second()
    kyc.wait_for_a_later_second()
    before = kyc.current()
    kyc.put("kyc/p0/doc 0.pdf", b"overwritten later")
    kyc.client.delete_object(Bucket=kyc.bucket, Key="kyc/p0/doc 1.pdf")
    kyc.put("kyc/p0/new.pdf", b"new")
    kyc.wait_for_a_later_second()
    kyc.copy()
    into, restored = kyc.restore(Wanted(to=then))
    assert kyc.current(into) == before
    assert restored.plan.point_at == then
    assert kyc.current(kyc.restore()[0]) == kyc.current()
    with pytest.raises(PolicyError, match=r"restore\.target_beyond"):
        kyc.restore(Wanted(to=then + timedelta(days=1)))
    with pytest.raises(PolicyError, match=r"restore\.target_too_old"):
        kyc.restore(Wanted(to=then - timedelta(days=1)))


def test_a_bucket_that_holds_something_is_refused_unless_told(kyc: World) -> None:
    """Nothing is put before; with `overwrite` what is there stays where names differ."""
    kyc.copy()
    into = kyc.new_bucket("busy")
    kyc.client.put_object(Bucket=into, Key="theirs", Body=b"theirs")
    with pytest.raises(PolicyError, match=r"restore\.not_empty"):
        kyc.restore(into=into)
    assert set(kyc.holds(into)) == {"theirs"}
    kyc.restore(into=into, overwrite=True)
    assert set(kyc.current(into)) == {*kyc.current(), "theirs"}


def test_all_versions_want_a_target_that_keeps_them(kyc: World) -> None:
    """Else they would overwrite each other."""
    kyc.copy()
    with pytest.raises(PolicyError, match=r"restore\.no_versions"):
        kyc.restore(Wanted(versions="all"), into=kyc.new_bucket("plain", versioned=False))


def test_a_restore_goes_on_where_it_was_killed(kyc: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between a put and its note: no version comes twice, and the order of versions is kept."""
    kyc.copy()
    into = kyc.new_bucket("target")
    put = Target.put
    seen: list[str] = []

    class Killed(BaseException):
        """As SIGKILL: nobody catches it."""

    def killed_after(self: Target, head: Any, content: Any) -> str:
        version = put(self, head, content)
        seen.append(head.name)
        if len(seen) > 12:
            raise Killed
        return version

    monkeypatch.setattr(Target, "put", killed_after)
    with pytest.raises(Killed):
        kyc.restore(Wanted(versions="all"), into=into, workers=3)
    monkeypatch.undo()
    _, restored = kyc.restore(Wanted(versions="all"), into=into)
    assert restored.plan.is_resumed
    assert kyc.holds(into) == kyc.holds()
    assert restored.put_bytes < restored.restored.size_bytes


def test_a_target_that_alters_what_it_takes_is_found_out(kyc: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read back is compared with the document's own digest."""
    kyc.copy()
    monkeypatch.setattr(Target, "_digest", lambda *_: "00" * 32)
    with pytest.raises(SourceError, match=r"restore\.not_equal"):
        kyc.restore()


@pytest.mark.parametrize(
    ("left_out", "named"), [("Metadata", "metadata"), ("ContentType", "headers"), ("Tagging", "tags")]
)
def test_a_target_that_leaves_out_what_belongs_to_a_document_is_found_out(
    kyc: World, left_out: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata, headers and tags are read back as the bytes are: a store that drops them is not taken for a restore."""
    document = {"Metadata": {"case": "42"}, "ContentType": "image/png", "Tagging": "level=high"}
    kyc.client.put_object(Bucket=kyc.bucket, Key="players/7/marked.png", Body=b"marked", **document)
    kyc.copy()
    ask = Target._ask

    def forgetful(self: Target, what: str, call: Any, **arguments: Any) -> Any:
        return ask(self, what, call, **{name: value for name, value in arguments.items() if name != left_out})

    monkeypatch.setattr(Target, "_ask", forgetful)
    with pytest.raises(SourceError, match=rf"restore\.not_equal.*other {named}"):
        kyc.restore()


def test_what_somebody_else_writes_into_the_target_meanwhile_is_not_passed_over(
    kyc: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target's listing has to show exactly what was put."""
    kyc.copy()
    into = kyc.new_bucket("target")
    tally = Target.tally

    def with_theirs(self: Target, prefix: str = "") -> Any:
        kyc.client.put_object(Bucket=into, Key="theirs", Body=b"theirs")
        return tally(self, prefix)

    monkeypatch.setattr(Target, "tally", with_theirs)
    with pytest.raises(SourceError, match=r"restore\.not_reconciled"):
        kyc.restore(into=into)


def test_a_throttle_holds_the_restore_back(world: Callable[..., World]) -> None:
    """Bytes over all threads never come faster than asked for."""
    one = world(rule=SubjectRule("none"))
    for number in range(6):
        one.put(f"{number}", b"x" * 100_000)
    one.copy()
    begin_s = time.monotonic()
    one.restore(bytes_a_s=400_000.0)
    assert time.monotonic() - begin_s >= 1.25  # five of six had to wait for the one before


def test_an_erased_person_stays_erased_whatever_backup_one_starts_from(kyc: World) -> None:
    """From a copy of before the erasure: her documents are counted as erased and never put; all else is there.

    The vault verifies, and so does the inventory: nothing is damaged, it only can't be opened.
    """
    before = kyc.copy()
    hers = {name for name in kyc.current() if name.startswith("kyc/p1/")}
    subject_id = kyc.erase("p1")
    into, restored = kyc.restore(Wanted(versions="all"))
    left = {name: rows for name, rows in kyc.holds().items() if name not in hers}
    assert kyc.holds(into) == left
    assert restored.erased_people == (subject_id,)
    assert restored.erased.versions == 7
    assert restored.restored.versions + restored.erased.versions == before.held.versions
    _, only = kyc.restore(Wanted(person=subject_id))
    assert (only.restored.versions, only.erased.versions) == (0, 5)
    assert verify(kyc.vault()).findings == ()
    verified = verify_copy(kyc.site(), documents=True)
    assert verified.ok
    assert verified.erased.versions == 7


def test_a_key_that_survived_somewhere_brings_nobody_back(kyc: World) -> None:
    """Her key is laid back past the deletion, mark removed: the decision on record still leaves her out."""
    kyc.copy()
    records = {name: shelf.get(name) for shelf in kyc.shelves for name in list(shelf.names("casino/"))}
    kyc.erase("p1")
    for shelf in kyc.shelves:
        for name in [*shelf.rows]:
            shelf.erase(name)
        for name, data in records.items():
            assert data is not None
            shelf.put_new(name, data)
    into, restored = kyc.restore()
    assert not [name for name in kyc.current(into) if name.startswith("kyc/p1/")]
    assert restored.erased.versions == 5


def test_who_is_erased_while_a_restore_runs_is_gone_at_its_end(kyc: World) -> None:
    """What was put of theirs is removed again, every version, and told."""
    kyc.copy()
    site, into = kyc.site(), kyc.new_bucket("target")
    plan = plan_restore(site, Wanted(), kyc.erasures(), target=into)

    def erased_at_last() -> ErasureList:
        kyc.erase("p1")
        return kyc.erasures()

    done = restore(plan, site, kyc.place(into), erasures_now=erased_at_last)
    assert done.erased_meanwhile == (kyc.ids.of("p1"),)
    assert not [name for name in kyc.holds(into) if name.startswith("kyc/p1/")]
    assert done.erased.versions == 5


def test_who_is_erased_between_two_attempts_is_gone_at_the_end(kyc: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the killed attempt had put of theirs is removed, noted or not; no name of anybody's lay in its folder."""
    kyc.copy()
    into, put = kyc.new_bucket("target"), Target.put
    seen: list[str] = []

    class Killed(BaseException):
        """As SIGKILL: nobody catches it."""

    def killed_after(self: Target, head: Any, content: Any) -> str:
        version = put(self, head, content)
        seen.append(head.name)
        if len(seen) > 20:
            raise Killed
        return version

    monkeypatch.setattr(Target, "put", killed_after)
    with pytest.raises(Killed):
        kyc.restore(into=into, workers=3)
    monkeypatch.undo()
    people = {name.split("/")[1] for name in seen if name.startswith("kyc/")}
    assert not [name for name in seen for file in (kyc.folder / "work").iterdir() if name.encode() in file.read_bytes()]
    for person in people:
        kyc.erase(person)
    _, done = kyc.restore(into=into)
    assert done.plan.is_resumed
    assert set(done.erased_meanwhile) == {kyc.ids.of(person) for person in people}
    assert not [name for name in kyc.holds(into) if name.split("/")[1:2] and name.split("/")[1] in people]


def test_another_plan_does_not_change_what_a_restore_brings(kyc: World) -> None:
    """One person's restore is under way: whoever plans another in that folder meanwhile is told to wait."""
    kyc.copy()
    into, person = kyc.new_bucket("target"), kyc.ids.of("p1")
    site = kyc.site()
    plan = plan_restore(site, Wanted(person=person), kyc.erasures(), target=into)
    with pytest.raises(PolicyError, match=r"bucket\.busy"):
        plan_restore(kyc.site(), Wanted(), kyc.erasures(), target="elsewhere")
    restore(plan, site, kyc.place(into), erasures_now=kyc.erasures)
    assert {name.split("/")[1] for name in kyc.current(into)} == {"p1"}


def test_a_stale_erasure_list_is_refused(kyc: World) -> None:
    """A plan is made with what the vault at hand knows at least."""
    kyc.copy()
    stale = kyc.erasures()
    kyc.erase("p1")
    with pytest.raises(PolicyError, match=r"erasure\.list_stale"):
        plan_restore(kyc.site(), Wanted(), stale)


def test_a_copy_seals_nothing_more_for_an_erased_person(kyc: World) -> None:
    """What the source still has of theirs is withheld, and counted; the run is complete without it."""
    kyc.copy()
    kyc.erase("p1")
    kyc.put("kyc/p1/too-late.pdf", b"too late")
    kyc.put("kyc/p2/fine.pdf", b"fine")
    result = kyc.copy()
    assert (result.is_complete, result.counts.withheld, result.counts.copied) == (True, 1, 1)
    assert kyc.copy().kind == "unchanged"
    _, restored = kyc.restore()
    assert restored.erased.versions == 6


def test_what_was_withheld_is_copied_once_an_erasure_was_taken_back(kyc: World) -> None:
    """By the next run: the recovery point speaks of that person as well."""
    kyc.copy()
    who = kyc.erase("p1")
    kyc.put("kyc/p1/meanwhile.pdf", b"meanwhile")
    kyc.client.delete_object(Bucket=kyc.bucket, Key="kyc/p1/doc 0.pdf")
    assert kyc.copy().counts.withheld == 1
    take_back(kyc.ring(), [who], "a mistake")
    result = kyc.copy()
    assert (result.kind, result.counts.copied, result.counts.withheld) == ("incremental", 1, 0)
    assert kyc.copy().kind == "unchanged"
    assert kyc.holds(kyc.restore(Wanted(versions="all"))[0]) == kyc.holds()


def test_a_lost_key_that_nobody_decided_on_is_damage(kyc: World) -> None:
    """It is not passed over as an erasure."""
    kyc.copy()
    for shelf in kyc.shelves:
        for name in [*shelf.rows]:
            shelf.erase(name)
    with pytest.raises(VaultError, match=r"subjects\.no_key"):
        kyc.restore()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_parts_are_told_and_never_restored(kyc: World, damage: str) -> None:
    """By the restore, by `vault verify` and by the look at the inventory alike."""
    kyc.copy()
    vault = kyc.vault()
    part = next(obj for obj in vault.objects(NAME) if obj.key.stream.startswith("base-"))
    store: Any = kyc.store
    if damage == "gone":
        del store.rows[str(part.key)]
    else:
        (row,) = store.rows[str(part.key)]
        half = len(row.data) // 2
        row.data = row.data[:half] if damage == "cut" else _flipped(row.data, half)
    with pytest.raises(VaultError):
        kyc.restore()
    assert any(finding.severity == "error" for finding in verify(kyc.vault()).findings)
    assert not verify_copy(kyc.site(), documents=True).ok


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_documents_of_nobody_need_no_ring(world: Callable[..., World]) -> None:
    """Plain in the sealed parts, with names and all; restored without anybody's key."""
    one = world(rule=SubjectRule("none"))
    one.put("invoices/1.pdf", b"an invoice", ContentType="application/pdf")
    one.copy()
    site = one.site()
    assert site.ring is None
    into, _ = one.restore()
    assert one.current(into) == one.current()
    assert hashlib.sha256(b"an invoice").hexdigest() == one.current(into)["invoices/1.pdf"][0][1]
