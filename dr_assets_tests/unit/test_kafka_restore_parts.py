import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.kafka.access import connect_target
from dr_assets.stores.kafka.groups import translated
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.restore_plan import Cut, Options
from dr_assets.stores.kafka.restore_rules import register_subjects
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.restore_state import RestoreState
from dr_assets_tests.integration.kafka.capture_rig import make_dataset


def test_where_a_restore_ends_is_read_as_people_write_it() -> None:
    """The newest, a time with its zone, offsets of partitions; topics' names may hold dots and dashes."""
    assert Cut.parse(" latest ") == Cut()
    assert Cut.parse("2026-11-22T10:00:00+02:00").at == datetime(2026, 11, 22, 8, tzinfo=UTC)
    assert Cut.parse("offsets:a.b-c/0=12, a.b-c/11=0").offsets == {("a.b-c", 0): 12, ("a.b-c", 11): 0}


@pytest.mark.parametrize("text", ["yesterday", "2026-11-22T10:00:00", "offsets:a=1", "offsets:a/x=1", "offsets:a/0=-1"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    """A guessed zone or offset would decide what is lost."""
    with pytest.raises(PolicyError) as caught:
        Cut.parse(text)
    assert caught.value.code == "target.unreadable"


def test_topics_are_named_by_a_mapping_or_a_prefix() -> None:
    """With a mapping those alone, else all."""
    assert [Options(prefix="p-").target_of(name) for name in ("a", "b")] == ["p-a", "p-b"]
    assert [Options(mapping={"a": "x"}, prefix="p-").target_of(name) for name in ("a", "b")] == ["x", None]


def test_a_target_beyond_this_host_is_not_spoken_to_in_clear_unasked() -> None:
    """The source may be local and without TLS: its records, restored elsewhere, must not cross a network so."""
    with pytest.raises(PolicyError) as caught:
        connect_target(make_dataset(), "127.0.0.1:1,192.0.2.1:9092", {}, plaintext=False, patience_s=0.0)
    assert caught.value.code == "policy.transport"


def test_a_groups_positions_go_where_its_records_went() -> None:
    """Through each partition's map and the new name; those of other topics are left out, and named."""
    moved, same = OffsetMap(0, 0), OffsetMap(5, 5)
    moved.add(100, 0, 10)
    same.add(5, 5, 10)
    commits = {("a", 0): Commit(105, "m"), ("b", 0): Commit(7), ("b", 1): Commit(7), ("c", 0): Commit(1)}
    plan = translated("g", commits, {"a": "x", "b": "b"}, {("x", 0): moved, ("b", 0): same})
    assert plan.positions == {("x", 0): Commit(5, "m"), ("b", 0): Commit(7)}
    assert plan.left_out == (("b", 1), ("c", 0))


def test_a_group_is_not_set_back_into_what_the_target_held_before() -> None:
    """Nothing of the partition came, behind 100 records of others: its position is behind them; a hole keeps it."""
    nothing, hole = OffsetMap(100, 100), OffsetMap(0, 10)
    assert [nothing.position(at) for at in (7, 100, 500)] == [100, 100, 100]
    assert [hole.position(at) for at in (0, 5, 10, 50)] == [0, 5, 10, 10]


def test_a_begun_restore_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    """What it says survives the disk; no file is no restore, half a file is an error of its own."""
    path = tmp_path / "state.json"
    assert RestoreState.load(path) is None
    state = RestoreState(path, "print", {("a", 0): 5}, {"x": {0: 7}}, {"x": "id"}, "records")
    state.save()
    assert RestoreState.load(path) == state
    for damaged in (path.read_text()[:40], "[]", json.dumps({"ends": 3})):
        path.write_text(damaged)
        with pytest.raises(PolicyError, match="restore_state"):
            RestoreState.load(path)


@pytest.fixture
def registry() -> Iterator[tuple[str, list[tuple[str, str, Any]], set[str]]]:
    """A registry's address, what it was asked, and paths that it refuses."""
    asked: list[tuple[str, str, Any]] = []
    refused: set[str] = set()

    class Answers(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.command, self.path, body))
            self.send_response(422 if self.path in refused else 200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_PUT = do_POST = _take  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked, refused
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_schemas_keep_their_ids_and_versions(registry: tuple[str, list[tuple[str, str, Any]], set[str]]) -> None:
    """Records carry ids: each version is imported under its own, in order, and the subject is opened again."""
    url, asked, refused = registry
    one: dict[str, Any] = {
        "subject": "bets/value", "version": 1, "id": 7, "schemaType": "AVRO", "schema": '"string"', "references": [],
    }  # fmt: skip
    assert register_subjects(url, [one | {"version": 2, "id": 9}, one]) == 2
    assert [(how, path) for how, path, _ in asked] == [
        ("PUT", "/mode/bets%2Fvalue"),
        ("POST", "/subjects/bets%2Fvalue/versions"),
        ("POST", "/subjects/bets%2Fvalue/versions"),
        ("PUT", "/mode/bets%2Fvalue"),
    ]
    assert [body.get("id") or body.get("mode") for _, _, body in asked] == ["IMPORT", 7, 9, "READWRITE"]
    refused.add("/mode/bets%2Fvalue")
    with pytest.raises(SourceError, match="answers 422"):
        register_subjects(url, [one])
