"""The estate's moment and its orphans, from made-up stores: what holds back, what a skew is, who is an orphan."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dr_assets.cli import estate_restore as command
from dr_assets.components.recovery_point import judge_consistent, judge_orphans
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import DatasetKind
from dr_assets.proving.erasures import REPLAYED
from dr_assets.reconciliation.externals import external_schema
from dr_assets.recovery.estate_restore import EstateRestore, Outcome
from dr_assets.recovery.orphans import KINDS, find_orphans
from dr_assets.recovery.point import EstatePoint, Newest, StorePoint, common_moment, skew_ms
from dr_assets.recovery.restorers import Ground, Targets
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.throwaway import throwaway_vault

ESTATE = load_estate(default_defs_dir())
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def newest(dataset: str, kind: DatasetKind, behind_s: float, stored_s: float = 0.0) -> Newest:
    """A store whose newest moment lies so far back, told by an object that was stored then."""
    return Newest(dataset, kind, NOW - behind_s * SECOND, NOW - stored_s * SECOND, "its own", timedelta(milliseconds=1))


STORES = [newest("ledger", "postgres", 0.2), newest("events", "kafka", 3), newest("kyc", "bucket", 290)]


def test_the_oldest_stream_holds_back_and_documents_never_do() -> None:
    """Ledger and topics go to their newest common moment; a bucket that is copied every 5 min stands behind it."""
    found = common_moment(STORES, None)
    assert (found.at, found.held_back_by, found.behind) == (NOW - 3 * SECOND, "events", frozenset({"kyc"}))
    strict = common_moment(STORES, None, strict=True)
    assert (strict.at, strict.held_back_by, strict.behind) == (NOW - 290 * SECOND, "kyc", frozenset())
    apart = common_moment(STORES, None, apart=["events"])
    assert (apart.at, apart.held_back_by, apart.behind) == (NOW - 0.2 * SECOND, "ledger", frozenset({"events", "kyc"}))


def test_a_moment_that_was_asked_for_is_held_to_and_one_beyond_refused() -> None:
    """Up to what every stream has; beyond it the store that lacks is named."""
    asked = NOW - 10 * SECOND
    assert common_moment(STORES, asked).at == asked
    assert common_moment(STORES, asked).held_back_by is None
    with pytest.raises(PolicyError, match="events"):
        common_moment(STORES, NOW - 2 * SECOND)
    with pytest.raises(PolicyError, match="no dataset"):
        common_moment([], None)


def test_an_estate_of_documents_alone_has_a_moment_too() -> None:
    """Where nothing is a stream, the oldest bucket is the moment."""
    found = common_moment([newest("a", "bucket", 5), newest("b", "bucket", 9)], None)
    assert (found.at, found.held_back_by) == (NOW - 9 * SECOND, "b")


@pytest.mark.parametrize(("us", "expected"), [(0, 0), (1, 1), (-1, -1), (1000, 1), (1001, 2), (-2500, -3)])
def test_a_skew_is_signed_and_never_rounded_to_nothing(us: int, expected: int) -> None:
    """A microsecond behind is a millisecond behind, never agreement."""
    assert skew_ms(NOW + timedelta(microseconds=us), NOW) == expected


def test_a_clock_is_ahead_only_where_that_is_proven() -> None:
    """A moment dated after the vault took the object that tells of it, beyond the second that stores leave open."""
    assert newest("a", "kafka", 0, stored_s=0.9).clock_ahead_ms == 0
    assert newest("a", "kafka", 0, stored_s=1).clock_ahead_ms == 0
    assert newest("a", "kafka", 0, stored_s=4).clock_ahead_ms == 3000
    assert newest("a", "kafka", 5, stored_s=0).clock_ahead_ms == 0


def point(*stores: tuple[str, DatasetKind, int, int]) -> EstatePoint:
    """A point whose stores have these skews and clocks."""
    made = {
        name: StorePoint(name, kind, NOW, skew, 1, "its own", ahead, NOW, NOW, {}) for name, kind, skew, ahead in stores
    }
    return EstatePoint("casino", "latest-consistent", NOW, NOW + 3 * SECOND, made, "ledger")


def test_documents_that_lag_are_yellow_and_money_or_clocks_that_differ_red() -> None:
    """Two seconds either way are agreement; the largest skew keeps its sign."""
    agreed = point(("ledger", "postgres", 0, 0), ("kyc", "bucket", -2000, 0))
    assert (agreed.is_consistent, agreed.skew_ms, judge_consistent(agreed).passed) == (True, -2000, True)
    late = judge_consistent(point(("ledger", "postgres", 0, 0), ("kyc", "bucket", -2001, 0)))
    assert (late.passed, late.is_warning, late.reason) == (False, True, "kyc stands 2.0 s before the moment")
    for apart in (("events", "kafka", -5000, 0), ("events", "kafka", 0, 2001)):
        verdict = judge_consistent(point(("ledger", "postgres", 0, 0), apart))
        assert (verdict.passed, verdict.is_warning) == (False, False)
    ahead = EstatePoint("casino", "x", NOW + 60 * SECOND, NOW, {}, None)
    assert not judge_consistent(ahead).passed


def test_orphans_that_nobody_counted_are_yellow() -> None:
    """No restore of the estate, no count: never green for want of looking."""
    verdict = judge_orphans(None)
    assert (verdict.passed, verdict.is_warning) == (False, True)


def relations() -> dict[str, Any]:
    """Three transfers with their outbox rows and events, one player with a document, a group at its place."""
    keys = ["k1", "k2", "k3"]
    return {
        "transfers": pa.table({"transfer_id": [1, 2, 3], "idempotency_key": keys}),
        "outbox": pa.table(
            {
                "transfer_id": [1, 2, 3], "position": [1, 2, 3], "topic": ["bets"] * 3, "idempotency_key": keys,
                "message_key": ["7"] * 3, "payload": ["{}"] * 3, "created_us": [1000, 2000, 3000],
                "published": [True, True, False],
            }
        ),
        "players": pa.table({"player_id": [7]}),
        "records": pa.Table.from_pylist(
            [record(offset, key, 1000 * offset + 1500) for offset, key in enumerate(keys)], external_schema("records")
        ),
        "partitions": pa.table(
            {"topic": ["bets"], "partition": [0], "begin_offset": [0], "end_offset": [3], "complete_from_us": [0]}
        ),
        "group_offsets": pa.table(
            {
                "group_name": ["g"], "topic": ["bets"], "partition": [0], "committed": [3], "begin_offset": [0],
                "end_offset": [3],
            }
        ),
        "documents": pa.table({"name": ["players/7/a.png", "readme"], "player_id": ["7", None]}),
    }  # fmt: skip


def record(offset: int, key: str | None, at_us: int, **more: Any) -> dict[str, Any]:
    """A record of the topic."""
    row = {"topic": "bets", "partition": 0, "record_offset": offset, "idempotency_key": key, "timestamp_us": at_us}
    return {**row, "message_key": "7", "dead_letter": False, "payload_sha256": "00", **more}


def changed(name: str, **columns: Any) -> dict[str, Any]:
    """The same relations with other columns in one of them."""
    found = relations()
    for column, values in columns.items():
        at = found[name].schema.get_field_index(column)
        found[name] = found[name].set_column(
            at, found[name].schema.field(at), pa.array(values, found[name].schema.field(at).type)
        )
    return found


def without_record(number: int) -> dict[str, Any]:
    """The same, one event gone."""
    found = relations()
    found["records"] = found["records"].filter(pa.array([at != number for at in range(3)]))
    return found


@pytest.mark.parametrize(
    ("given", "kind", "reference"),
    [
        (changed("transfers", idempotency_key=["k1", "other", "k3"]), "event_without_posting", "k2"),
        (without_record(1), "posting_without_event", "k2"),
        (without_record(2), "outbox_without_event", "k3"),
        (changed("documents", player_id=["8", None]), "document_without_player", "8"),
        (changed("group_offsets", committed=[4]), "group_beyond_end", "g"),
    ],
)
def test_each_kind_of_orphan_is_found_and_named(given: dict[str, Any], kind: str, reference: str) -> None:
    """One thing lacks in one store: counted under its own kind, listed by its reference."""
    found = find_orphans(given)
    assert found.counts[kind] == 1
    assert reference in [row["reference"] for row in found.rows.to_pylist() if row["kind"] == kind]
    assert set(found.counts) == set(KINDS)


def test_a_transfer_that_no_outbox_row_tells_of_is_an_orphan() -> None:
    """Nothing will ever publish it."""
    found = find_orphans(
        {
            **relations(),
            "transfers": pa.table({"transfer_id": [1, 2, 3, 4], "idempotency_key": ["k1", "k2", "k3", "k4"]}),
        }
    )
    assert [row["reference"] for row in found.rows.to_pylist()] == ["k4"]


def test_what_agrees_has_no_orphan_and_what_nobody_brought_no_count() -> None:
    """Clean stores give zeros; a relation that lacks gives a reason instead of a zero."""
    clean = find_orphans(relations())
    assert (clean.total, clean.skipped, clean.rows.num_rows) == (0, {}, 0)
    partly = find_orphans({name: one for name, one in relations().items() if name != "documents"})
    assert "document_without_player" not in partly.counts
    assert "documents" in partly.skipped["document_without_player"]


def test_what_retention_or_an_erasure_took_is_no_orphan() -> None:
    """Events older than what a topic still has, and those of a person who was erased, are not to come back."""
    old = without_record(1)
    old["partitions"] = pa.table(
        {"topic": ["bets"], "partition": [0], "begin_offset": [2], "end_offset": [3], "complete_from_us": [2001]}
    )
    assert find_orphans(old).counts["posting_without_event"] == 0
    erased = relations()
    blank = [record(at, None, 1000, payload_sha256=None) for at in range(3)]
    erased["records"] = pa.Table.from_pylist(blank, external_schema("records"))
    assert find_orphans(erased).total == 0


def test_an_event_older_than_its_row_proves_a_clock_behind() -> None:
    """By as much as the worst of them; not at all where events are younger, unknown where nothing can be compared."""
    assert find_orphans(relations()).topics_clock_behind_ms == 0
    behind = changed("records", timestamp_us=[1500, 2000 - 7000, 3500])
    assert find_orphans(behind).topics_clock_behind_ms == 7
    assert (
        find_orphans(
            {"records": relations()["records"].slice(0, 0), "outbox": relations()["outbox"]}
        ).topics_clock_behind_ms
        is None
    )


def laid_aside(folder: Path, given: dict[str, Any]) -> dict[str, Path]:
    """The relations as files of one dataset."""
    folder.mkdir()
    for name, table in given.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in given}


def test_a_ledger_without_an_outbox_is_not_judged_by_another_ones(tmp_path: Path) -> None:
    """Two ledgers, one outbox: no transfer of the other is an orphan, nor hides one; which was not judged is said."""
    house = laid_aside(tmp_path / "house", {name: relations()[name] for name in ("transfers", "outbox", "players")})
    keys = pa.table({"transfer_id": [1, 2], "idempotency_key": ["p1", "k2"]})
    poker = laid_aside(tmp_path / "poker", {"transfers": keys})
    several = {
        **{name: relations()[name] for name in ("records", "partitions", "group_offsets", "documents")},
        **{name: {"house": path} for name, path in house.items()},
        "transfers": {"house": house["transfers"], "poker": poker["transfers"]},
    }
    clean = find_orphans(several, ["house", "poker", "reports"])
    assert (clean.total, set(clean.counts)) == (0, set(KINDS))
    assert "poker brings no outbox" in clean.skipped["posting_without_event"]
    assert "reports brings no transfers and no outbox" in clean.skipped["posting_without_event"]
    assert "document_without_player" not in clean.skipped
    none_told = changed("outbox", idempotency_key=["k1", "other", "k3"])["outbox"].filter(pa.array([True, False, True]))
    pq.write_table(none_told, house["outbox"])
    pq.write_table(without_record(1)["records"], tmp_path / "records.parquet")
    lacking = find_orphans({**several, "records": tmp_path / "records.parquet"})
    assert [row["reference"] for row in lacking.rows.to_pylist()] == ["k2"]


def test_events_of_an_outbox_whose_ledger_brings_no_transfers_are_nobodys_orphans(tmp_path: Path) -> None:
    """Another ledger's transfers don't know them, and can't."""
    poker = laid_aside(tmp_path / "poker", {"outbox": relations()["outbox"]})
    house = laid_aside(tmp_path / "house", {"transfers": pa.table({"transfer_id": [1], "idempotency_key": ["h1"]})})
    given = {
        **{name: relations()[name] for name in ("records", "partitions", "group_offsets")},
        "outbox": {"poker": poker["outbox"]},
        "transfers": {"house": house["transfers"]},
    }
    found = find_orphans(given)
    assert found.counts == {"outbox_without_event": 0, "group_beyond_end": 0}
    assert found.skipped["event_without_posting"] == "nobody brought transfers, outbox"
    pq.write_table(relations()["outbox"].slice(0, 0), tmp_path / "empty.parquet")
    given["outbox"] = {"poker": poker["outbox"], "house": tmp_path / "empty.parquet"}
    found = find_orphans(given)
    assert found.counts["event_without_posting"] == 0
    assert "poker brings no transfers" in found.skipped["event_without_posting"]


def test_every_dataset_of_a_kind_is_counted(tmp_path: Path) -> None:
    """Two buckets: a document without a player is found in the first as well as in the last."""
    given: dict[str, Any] = relations()
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for number, path in enumerate(paths):
        pq.write_table(pa.table({"name": [f"players/{number}/a.png"], "player_id": [str(number)]}), path)
    found = find_orphans({**given, "documents": dict(zip(("kyc", "photos"), paths, strict=True))})
    assert found.counts["document_without_player"] == 2
    beside = tmp_path / "beside"
    outcomes = {}
    for name, path in zip(("kyc", "photos"), paths, strict=True):
        (beside / name).mkdir(parents=True)
        path.rename(beside / name / "documents.parquet")
        outcomes[name] = Outcome(name, "bucket", "whole")
    (beside / "ledger").mkdir()
    pq.write_table(given["players"], beside / "ledger" / "players.parquet")
    restore = object.__new__(EstateRestore)
    restore._ground = Ground(None, {}, Targets(tmp_path))  # type: ignore[arg-type]  # no estate is asked
    restore._outcomes = {"ledger": Outcome("ledger", "postgres", "whole"), **outcomes}
    counted = restore._orphans()
    assert counted is not None
    assert counted.counts == {"document_without_player": 2}


def test_an_estate_restore_puts_on_record_that_its_databases_left_out_who_was_erased(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As any other restore does; one that nobody had to be left out of says nothing."""
    vault = throwaway_vault(estate="house")
    monkeypatch.setattr(command, "vault_of", lambda *_, **__: vault)
    said = {"purpose": "estate restore", "erasures": 2, "newest_at": NOW, "duration_s": 0.25}
    done = [
        Outcome("ledger", "postgres", "whole", details={"erasures_replayed": said}),
        Outcome("reports", "postgres", "whole", details={"erasures_replayed": None}),
        Outcome("kyc", "bucket", "whole"),
    ]
    wish: Any = SimpleNamespace(vault="primary")
    assert command._erasures_recorded(ESTATE, wish, done) == []
    assert latest_fact(vault, "reports", REPLAYED) is None
    fact = latest_fact(vault, "ledger", REPLAYED)
    assert fact is not None
    assert (fact.body["purpose"], fact.body["erasures"]) == ("estate restore", 2)
