"""What a bucket's copy is made of, piece by piece: rows of listings, digests, rules, manifests, shards, events."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any

import pytest
from botocore.handlers import validate_ascii_metadata

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import SubjectRule
from dr_assets.stores.bucket import listing, manifest, target
from dr_assets.stores.bucket.document import Head, parse_record, record
from dr_assets.stores.bucket.events import Told, _read
from dr_assets.stores.bucket.index import Index
from dr_assets.stores.bucket.inventory import Row, Spot, decode_shard, encode_shard
from dr_assets.stores.bucket.listing import Listed
from dr_assets.stores.bucket.names import Names, folders_of
from dr_assets.stores.bucket.persons import Keys, Whose
from dr_assets.stores.bucket.picked import Picked
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.ids import SubjectIds
from dr_assets_tests.vectors.bucket import generate

AT = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
NAMES = Names.of("kyc", b"k" * 32)


def listed(name: str, version: str, *, at: datetime = AT, is_marker: bool = False, size: int = 3) -> Listed:
    """A row of a listing."""
    return Listed(name, version, "etag", at, size, is_marker)


def row(name: str, version: str, order: int, **changes: Any) -> Row:
    """A row of an inventory."""
    spot = Spot(generate.PART, 0, 5)
    known = Row(NAMES.name_id(name), version, order, "version", None, 3, "ab", NAMES.folder_ids(name), spot)
    return replace(known, **changes)


def raw(name: str, version: str) -> dict[str, Any]:
    """A row as the SDK hands it out."""
    return {"Key": name, "VersionId": version, "LastModified": AT, "Size": 1, "ETag": '"e"'}


def test_versions_and_markers_of_one_second_keep_the_order_in_which_the_store_told_them() -> None:
    """The SDK sorts them into two lists; what a page said in between is put back."""
    page = {
        "Versions": [raw("a", "3"), raw("a", "1")],
        "DeleteMarkers": [raw("a", "2")],
        "RowOrder": [False, True, False],
    }
    assert [one.version_id for one in listing._rows(page)] == ["3", "2", "1"]


def test_a_name_is_never_torn_over_two_pages() -> None:
    """Its versions come together, however many pages they fill."""
    pages = [[listed("a", "2")], [listed("a", "1"), listed("b", "2")], [], [listed("b", "1")], [listed("c", "1")]]
    found = [[(one.name, one.version_id) for one in rows] for rows in listing._whole_names(iter(pages))]
    assert found == [[("a", "2"), ("a", "1")], [("b", "2"), ("b", "1")], [("c", "1")]]


def test_a_digest_tells_nothing_without_the_key() -> None:
    """Another key, or another dataset, gives other digests of everything; a version without an id is its content's."""
    others = Names.of("kyc", b"o" * 32), Names.of("logs", b"k" * 32)
    assert len({one.name_id("a") for one in (NAMES, *others)}) == 3
    assert len({one.check for one in (NAMES, *others)}) == 3
    assert len({one.digest("00" * 32, "anna") for one in (NAMES, *others)}) == 3
    assert NAMES.digest("00" * 32, None) == "00" * 32
    assert NAMES.version(listed("a", "v1")) == "v1"
    null = NAMES.version(listed("a", "null"))
    assert null.startswith("null-")
    assert "etag" not in null
    assert (
        null != NAMES.version(listed("a", "null", size=4)) != NAMES.version(listed("a", "null", at=AT + timedelta(1)))
    )
    assert list(folders_of("a/b/c")) == ["a/", "a/b/"]


def test_whose_a_document_is_follows_the_declared_rule() -> None:
    """By name, tag or metadata; one that doesn't fit is nobody's; people want a key of subject ids."""
    ids = SubjectIds(bytes(32))
    by_name = Whose(SubjectRule("key", r"^p/(?P<subject>\d+)/"), ids)
    assert by_name.of("p/7/x", {}, {}) == ids.of("7")
    assert by_name.of("q/7/x", {}, {}) is None
    assert Whose(SubjectRule("tag", name="who"), ids).of("x", {"who": "7"}, {}) == ids.of("7")
    assert Whose(SubjectRule("metadata", name="Who"), ids).of("x", {}, {"who": "7"}) == ids.of("7")
    assert Whose(SubjectRule("none"), None).of("p/7/x", {}, {}) is None
    with pytest.raises(PolicyError, match=r"bucket\.no_subjects"):
        Whose(SubjectRule("tag", name="who"), None)


class OneAnswer:
    """A ring that counts how often it is asked."""

    def __init__(self, answer: DataKey | Exception, *, erased: bool = False) -> None:
        self.answer, self.erased, self.asked = answer, erased, 0

    def key_for_sealing(self, subject_id: str) -> DataKey:
        """The answer."""
        self.asked += 1
        assert subject_id
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    key_of = key_for_sealing

    def is_erased(self, subject_id: str) -> bool:
        """As told."""
        assert subject_id
        return self.erased


def test_a_key_is_asked_for_once_and_an_erased_persons_is_none() -> None:
    """Deleted, or gone after a decision, is no error; gone without one is."""
    key = DataKey.of(bytes(32))
    ring = OneAnswer(key)
    keys = Keys(ring, is_sealing=True)
    assert [keys.of("anna"), keys.of("anna"), keys.of("boris")] == [key, key, key]
    assert ring.asked == 2
    gone = VaultError("subjects.no_key", "", "")
    assert Keys(OneAnswer(PolicyError("subjects.deleted", "", "")), is_sealing=True).of("anna") is None
    assert Keys(OneAnswer(gone, erased=True), is_sealing=False).of("anna") is None
    with pytest.raises(VaultError, match=r"subjects\.no_key"):
        Keys(OneAnswer(gone), is_sealing=False).of("anna")
    with pytest.raises(PolicyError, match=r"bucket\.no_ring"):
        Keys(None, is_sealing=False).of("anna")


def test_a_record_comes_back_and_a_damaged_one_is_refused() -> None:
    """Head and content, whatever bytes they are; lengths are never believed beyond what is there."""
    head = Head("é/ö\n", "v1", "e", AT, 3, "ab", headers={"ContentType": "x"}, metadata={"a": "b"}, tags={"c": "d"})
    data = record(head, b"\0\1\2")
    read, content = parse_record(data, what="x")
    assert (read, bytes(content)) == (head, b"\0\1\2")
    for damaged in (b"", data[:3], data[:40], b"\xff\xff\xff\xff" + data[4:], data[:10] + b"}" + data[11:]):
        with pytest.raises(VaultError, match=r"vault\.malformed"):
            parse_record(damaged, what="x")


def test_a_shard_comes_back_and_a_damaged_one_is_refused() -> None:
    """Row for row; numbers that point nowhere, other columns and other formats are no shard."""
    rows = [row("a/b", "v1", 1, pieces=(Spot("p", 1, 2), Spot("q", 3, 4))), row("c", "v2", 2, head=None, gone_at=9)]
    data = encode_shard(rows)
    assert decode_shard(data, name="s") == rows
    for old, new in (
        (b'"version":1', b'"version":2'),
        (b'"v1"', b"7"),
        (b"[0,0,5]", b"[9,0,5]"),
        (b"[0,0,5]", b"[0,0]"),
        (b'"v",', b'"?",'),
    ):
        assert old in data
        with pytest.raises(VaultError, match=r"vault\.malformed"):
            decode_shard(data.replace(old, new, 1), name="s")


def test_a_manifest_that_does_not_add_up_is_refused() -> None:
    """A later version, a shard that is none of its parts, a parent at an impossible depth."""
    text = str(generate.files()["manifest"])
    for old, new, code in (
        ('"version":1', '"version":2', "vault.newer_version"),
        ('"depth":1', '"depth":2', "backup.bad_manifest"),
        ('"depth":1', '"depth":"1"', "backup.bad_manifest"),
        ('"inventory":["casino', '"inventory":["other', "backup.bad_manifest"),
    ):
        assert old in text
        with pytest.raises(VaultError) as caught:
            manifest.decode(text.replace(old, new, 1).encode(), name="m")
        assert caught.value.code == code


def test_the_index_finds_what_came_and_what_went(tmp_path: Path) -> None:
    """Against what is known, by name and version; of single names nothing is said of others."""
    with Index(tmp_path / "i.sqlite") as index:
        index.learn([row("a", "v1", 1), row("b", "v1", 1)])
        index.begin_listing()
        index.list_rows([listed("a", "v2"), listed("a", "v1"), listed("c", "v1")], NAMES)
        assert index.listed_all(scope=[NAMES.name_id("a")], gone_at=5) == 2
        assert index.changes(5) == (0, 0)
        index.begin_listing()
        index.list_rows([listed("a", "v2"), listed("a", "v1"), listed("c", "v1", is_marker=True)], NAMES)
        assert index.listed_all(scope=None, gone_at=7) == 2
        assert [todo.row.version_id for todo in index.todo(markers=False)] == ["v2"]
        assert [todo.row.name for todo in index.todo(markers=True)] == ["c"]
        assert [one.gone_at for one in index.rows(gone_at=7)].count(7) == 1
        (newer,) = index.todo(markers=False)
        assert newer.order == int(AT.timestamp()) * 1_000_000 + 1  # it came after the other of the same second


def test_the_stores_order_of_versions_holds_whatever_their_times_say(tmp_path: Path) -> None:
    """What was put in pieces is told of with the time at which that began, before the version that it replaced."""
    with Index(tmp_path / "i.sqlite") as index:
        index.begin_listing()
        began = AT - timedelta(hours=1)
        index.list_rows([listed("a", "in pieces", at=began), listed("a", "whole"), listed("b", "v1", at=began)], NAMES)
        index.listed_all(scope=None, gone_at=7)
        ages = {(todo.row.name, todo.row.version_id): todo.order for todo in index.todo(markers=False)}
    assert ages["a", "in pieces"] > ages["a", "whole"] > ages["b", "v1"]


def test_a_document_of_more_pieces_than_a_store_takes_is_put_in_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 takes ten thousand: whatever the size, no more are put, none but the last is smaller than a piece."""
    pieces = [b"%02d" % number for number in range(23)]
    assert list(target.in_parts(pieces, 46)) == pieces
    monkeypatch.setattr(target, "PARTS_MOST", 5)
    parts = list(target.in_parts(pieces, 46))
    assert b"".join(parts) == b"".join(pieces)
    assert len(parts) <= 5


def test_of_two_contents_of_one_second_the_one_that_stayed_is_the_newer(tmp_path: Path) -> None:
    """Without versions nothing else tells: a moment before the first was missed has to bring the second."""
    for number, (older, newer) in enumerate((("null-a", "null-b"), ("null-b", "null-a"))):
        with Picked(tmp_path / f"{number}.sqlite") as picked:
            picked.find([row("a", older, 5, gone_at=90), row("a", newer, 5)])
            picked.pick(50, all_versions=False)
            ((_, picks),) = picked.by_part(0)
            assert [one.row.version for one in picks] == [newer]


def test_what_the_sdk_takes_from_nobody_keeps_no_document_from_coming_back() -> None:
    """Other clients put metadata in UTF-8, and an `Expires` that is no time; both are put as what they mean."""
    said = {"of": "Ünal".encode().decode("latin-1"), "plain": "a"}
    for text, at in (("never", 0), ("0", 0), ("Thu, 01 Jan 2032 00:00:00 GMT", 1956528000)):
        head = Head("a", "v", "e", AT, 0, "", headers={"Expires": text, "ContentType": "x"}, metadata=said)
        arguments = target._belongings(head)
        assert arguments["Expires"].timestamp() == at
        validate_ascii_metadata(arguments)
        assert arguments["Metadata"]["plain"] == "a"
        assert str(make_header(decode_header(arguments["Metadata"]["of"]))) == "Ünal"


def test_an_index_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    """It only saves time; so does one of another release."""
    path = tmp_path / "i.sqlite"
    path.write_bytes(b"no database at all" * 500)
    with Index(path) as index:
        assert list(index.rows()) == []
        index.learn([row("a", "v1", 1)])
        index.set_meta("version", "0")
    with Index(path) as index:
        assert list(index.rows()) == []


def test_an_event_that_is_none_tells_nothing() -> None:
    """Whoever may write to the queue can write anything."""
    told = Told()
    for body in ("", "[]", "{}", '{"Records": 5}', '{"Records": [5, {"s3": {}}]}', '{"Message": "x"}', "null"):
        _read(body, "b", told)
    for key in ("x" * 1025, "a%00b", "\\ud800", ""):  # no store has such a name, and none lists it
        _read('{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "' + key + '"}}}]}', "b", told)
    assert not told.names
