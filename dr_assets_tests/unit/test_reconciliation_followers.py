"""What follows the ledger: topics, consumer groups, read models, the CRM. Each damage is found, by its own check."""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime

import pyarrow as pa
import pytest
import sqlglot

from dr_assets.reconciliation.checks import CheckResult, all_checks
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.relations import RELATIONS
from dr_assets.reconciliation.run import judge

_AREAS = ("outbox", "queues", "read_models", "crm")
_TYPES = {"id": pa.int64(), "text": pa.string(), "minor": pa.int64(), "flag": pa.bool_(), "bytes": pa.binary()}
_AS_OF = datetime(2026, 1, 31, tzinfo=UTC)
_NOW = int(_AS_OF.timestamp() * 1_000_000)
_S = 1_000_000
_HOUR = 3600 * _S
Rows = dict[str, list[dict[str, object]]]

_BETS = ((10, 1), (11, 2), (12, 1), (13, 1), (14, 2))  # transfer, player
_AMOUNTS = {10: 500, 11: 2**60 + 1, 12: -20, 13: -30, 14: -1}


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _clean() -> Rows:
    """Two players, five events in two partitions; the last one is not published yet, which it need not be."""
    rows: Rows = {name: [] for name in RELATIONS}
    for player in (1, 2):
        rows["accounts"].append(
            {"account_id": player, "currency": "EUR", "may_go_negative": False, "holds_money": False}
        )
        rows["players"].append(
            {
                "player_id": player, "created_us": _NOW - 9 * _HOUR, "closed_us": None, "erased": False,
                "email_consent": player == 1, "sms_consent": False, "consent_changed_us": _NOW - 9 * _HOUR,
            }
        )  # fmt: skip
        rows["contacts"].append(
            {"player_id": player, "email_consent": player == 1, "sms_consent": False, "synced_us": _NOW - 8 * _HOUR}
        )
    balances, sequences, ends = {1: 0, 2: 0}, {1: 0, 2: 0}, {0: 0, 1: 0}
    for transfer, player in _BETS:
        young = transfer == 14
        created = _NOW - 5 * _S if young else _NOW - 3 * _HOUR + transfer * _S
        key, payload = f"key{transfer}", f'{{"n": {transfer}}}'
        balances[player] += _AMOUNTS[transfer]
        sequences[player] += 1
        rows["transfers"].append({"transfer_id": transfer, "idempotency_key": key, "digest": b""})
        rows["postings"].append(
            {
                "account_id": player, "sequence": sequences[player], "transfer_id": transfer, "currency": "EUR",
                "amount_minor": _AMOUNTS[transfer], "balance_after_minor": balances[player], "hash": b"",
            }
        )  # fmt: skip
        rows["outbox"].append(
            {
                "transfer_id": transfer, "position": transfer, "topic": "bets", "idempotency_key": key,
                "message_key": str(player), "payload": payload, "created_us": created, "published": not young,
            }
        )  # fmt: skip
        if young:
            continue
        rows["records"].append(
            {
                "topic": "bets", "partition": player - 1, "record_offset": ends[player - 1], "idempotency_key": key,
                "timestamp_us": created + _S, "message_key": str(player), "dead_letter": False,
                "payload_sha256": _sha(payload),
            }
        )  # fmt: skip
        ends[player - 1] += 1
    rows["read_models"] = [
        {
            "model": "wallets", "account_id": player, "balance_minor": {1: 450, 2: 2**60 + 1}[player],
            "sequence": {1: 3, 2: 1}[player], "projected_us": _NOW - _HOUR,
        }
        for player in (1, 2)
    ]  # fmt: skip
    for partition, end in ends.items():
        place = {"topic": "bets", "partition": partition}
        rows["partitions"].append({**place, "begin_offset": 0, "end_offset": end, "complete_from_us": 0})
        rows["group_offsets"].append(
            {"group_name": "bonus", **place, "committed": end, "begin_offset": 0, "end_offset": end}
        )
    return {name: own for name, own in rows.items() if own}


def _run(rows: Rows) -> dict[str, CheckResult]:
    with duckdb_engine(None, "512MB", 2) as engine:
        for relation, given in rows.items():
            schema = pa.schema([(column.name, _TYPES[column.kind]) for column in RELATIONS[relation]])
            engine.load(relation, pa.Table.from_pylist(given, schema=schema))
        counts = {relation: len(given) for relation, given in rows.items()}
        checks = [one for one in all_checks() if one.area in _AREAS]
        contract = Contract(name="synthetic", queries={}, chain_text=None, digest_text=None)
        return {one.name: one for one in judge(engine, contract, checks, counts, _AS_OF, max_breaks=100)}


def _found(rows: Rows) -> set[tuple[str, str]]:
    return {(name, reason) for name, result in _run(rows).items() for reason in result.breaks_by_reason}


def _record(rows: Rows, transfer: int) -> dict[str, object]:
    return next(row for row in rows["records"] if row["idempotency_key"] == f"key{transfer}")


def _event(rows: Rows, transfer: int) -> dict[str, object]:
    return next(row for row in rows["outbox"] if row["transfer_id"] == transfer)


def _lost_record(rows: Rows) -> None:
    rows["records"].remove(_record(rows, 10))


def _not_published(rows: Rows) -> None:
    rows["records"].remove(_record(rows, 13))
    _event(rows, 13)["published"] = False


def _no_topic(rows: Rows) -> None:
    _event(rows, 13)["topic"] = "elsewhere"
    rows["records"].remove(_record(rows, 13))


def _twice(rows: Rows) -> None:
    rows["records"].append({**_record(rows, 13), "record_offset": 9})


def _other_payload(rows: Rows) -> None:
    _record(rows, 12)["payload_sha256"] = _sha("{}")


def _no_payload(rows: Rows) -> None:
    _record(rows, 12)["payload_sha256"] = None


def _other_key(rows: Rows) -> None:
    _record(rows, 10)["message_key"] = "2"


def _other_topic(rows: Rows) -> None:
    rows["records"].append({**_record(rows, 10), "topic": "wins"})
    _event(rows, 14)["topic"] = "wins"


def _no_row(rows: Rows) -> None:
    rows["outbox"].remove(_event(rows, 12))


def _row_there_twice(rows: Rows) -> None:
    rows["outbox"].append(_event(rows, 12))


def _swapped(rows: Rows) -> None:
    _record(rows, 12)["record_offset"], _record(rows, 13)["record_offset"] = 2, 1


def _two_partitions(rows: Rows) -> None:
    _record(rows, 13).update(partition=1, record_offset=1)


def _beyond(rows: Rows) -> None:
    rows["group_offsets"][0]["committed"] = 4


def _below(rows: Rows) -> None:
    rows["group_offsets"][0].update(begin_offset=2, committed=1)


def _far_behind(rows: Rows) -> None:
    rows["group_offsets"][0].update(end_offset=5000)


def _given_up(rows: Rows) -> None:
    rows["records"].append({**_record(rows, 10), "topic": "bets.dlq", "dead_letter": True})


def _nobodys_record(rows: Rows) -> None:
    rows["records"].append({**_record(rows, 11), "idempotency_key": "of a lost transfer", "record_offset": 1})


def _keyless(rows: Rows) -> None:
    rows["records"].append({**_record(rows, 11), "idempotency_key": None, "record_offset": 1})


def _no_event(rows: Rows) -> None:
    rows["transfers"].append({"transfer_id": 15, "idempotency_key": "key15", "digest": b""})


def _other_value(rows: Rows) -> None:
    rows["read_models"][1]["balance_minor"] = 2**60


def _model_ahead(rows: Rows) -> None:
    rows["read_models"][0]["sequence"] = 4


def _no_model_row(rows: Rows) -> None:
    rows["read_models"][0].update(balance_minor=None, sequence=0, projected_us=None)


def _extra_row(rows: Rows) -> None:
    rows["read_models"].append({**rows["read_models"][0], "account_id": 9})


def _row_twice(rows: Rows) -> None:
    rows["read_models"].append(rows["read_models"][0])


def _model_behind(rows: Rows) -> None:
    rows["read_models"][0].update(sequence=2, balance_minor=480)


def _no_contact(rows: Rows) -> None:
    del rows["contacts"][1]


def _stranger(rows: Rows) -> None:
    rows["contacts"].append({**rows["contacts"][0], "player_id": 7})


def _erased(rows: Rows) -> None:
    rows["players"][1]["erased"] = True


def _closed(rows: Rows) -> None:
    rows["players"][1]["closed_us"] = _NOW - 2 * _HOUR


def _contact_twice(rows: Rows) -> None:
    rows["contacts"].append(rows["contacts"][0])


def _withdrawn(rows: Rows) -> None:
    rows["players"][0].update(email_consent=False, consent_changed_us=_NOW - 2 * _HOUR)


def _agreed(rows: Rows) -> None:
    rows["players"][1].update(sms_consent=True, consent_changed_us=_NOW - 2 * _HOUR)


_DAMAGES: tuple[tuple[Callable[[Rows], None], set[tuple[str, str]]], ...] = (
    (_lost_record, {("outbox/published", "record_missing")}),
    (_not_published, {("outbox/published", "not_published")}),
    (_no_topic, {("outbox/published", "topic_missing")}),
    (_twice, {("outbox/once", "record_repeated")}),
    (_other_payload, {("outbox/same", "payload_differs")}),
    (_no_payload, {("outbox/same", "payload_missing")}),
    (_other_key, {("outbox/same", "message_key_differs")}),
    (_other_topic, {("outbox/same", "topic_differs")}),
    (_no_row, {("outbox/rows", "outbox_row_missing")}),
    (_row_there_twice, {("outbox/rows", "outbox_row_repeated")}),
    (_swapped, {("outbox/in_order", "order_violated")}),
    (_two_partitions, {("outbox/in_order", "key_in_two_partitions")}),
    (_beyond, {("queues/positions", "committed_beyond_end")}),
    (_below, {("queues/positions", "committed_below_begin")}),
    (_far_behind, {("queues/positions", "lag")}),
    (_given_up, {("queues/dead_letters", "dead_letters")}),
    (_nobodys_record, {("queues/entries", "record_without_entry")}),
    (_keyless, {("queues/entries", "record_without_key")}),
    (_no_event, {("queues/entries", "entry_without_event")}),
    (_other_value, {("read_models/rebuilt", "value_differs")}),
    (_model_ahead, {("read_models/rebuilt", "position_beyond_ledger")}),
    (_no_model_row, {("read_models/up_to_date", "missing_row")}),
    (_extra_row, {("read_models/rebuilt", "extra_row")}),
    (_row_twice, {("read_models/rebuilt", "row_repeated")}),
    (_model_behind, {("read_models/up_to_date", "behind")}),
    (_no_contact, {("crm/contacts", "contact_missing")}),
    (_stranger, {("crm/contacts", "contact_of_nobody")}),
    (_erased, {("crm/contacts", "erased_person_present")}),
    (_closed, {("crm/contacts", "closing_unknown")}),
    (_contact_twice, {("crm/contacts", "contact_repeated")}),
    (_withdrawn, {("crm/consents", "consent_withdrawn")}),
    (_agreed, {("crm/consents", "consent_missing")}),
)


def test_what_follows_as_agreed_has_no_break() -> None:
    """Clean relations: nothing is found, also not of an event that is seconds old and not published."""
    rows = _clean()
    results = _run(rows)
    assert _found(rows) == set()
    assert {(one.outcome, one.count) for one in results["outbox/published"].matched} == {
        ("matched", 4),
        ("in_flight", 1),
    }


@pytest.mark.parametrize(("damage", "expected"), _DAMAGES, ids=[damage.__name__[1:] for damage, _ in _DAMAGES])
def test_each_damage_is_found_by_its_own_check(damage: Callable[[Rows], None], expected: set[tuple[str, str]]) -> None:
    """One damage, one reason, and no other check speaks."""
    rows = deepcopy(_clean())
    damage(rows)
    assert _found(rows) == expected


def test_every_reason_has_its_damage() -> None:
    """No reason of these checks is without a damage that brings it about."""
    written = {
        (check.name, literal.this)
        for check in all_checks()
        if check.area in _AREAS and not check.name.endswith("_complete")
        for select in sqlglot.parse_one(check.sql, read="duckdb").find_all(sqlglot.exp.Select)
        for literal in _reasons_of(select)
    }
    assert written == set().union(*(expected for _, expected in _DAMAGES))


def _reasons_of(select: sqlglot.exp.Select) -> list[sqlglot.exp.Literal]:
    if isinstance(select.parent, sqlglot.exp.CTE) or not select.expressions:
        return []
    first = select.expressions[0]
    found = first.this if isinstance(first, sqlglot.exp.Alias) else first
    if isinstance(found, sqlglot.exp.Literal):
        return [found]
    parts = [one.args["true"] for one in found.args.get("ifs", [])] + [found.args.get("default")]
    return [part for part in parts if isinstance(part, sqlglot.exp.Literal)]


def test_amounts_are_whole_and_exact() -> None:
    """One minor unit beside 2**60 is told as one."""
    rows = _clean()
    _other_value(rows)
    (row,) = _run(rows)["read_models/rebuilt"].breaks.to_pylist()
    assert (row["account"], int(row["amount_minor"]), row["currency"]) == ("2", -1, "EUR")


def test_what_retention_took_is_not_missed() -> None:
    """Published events older than the first record that is left are no loss; younger ones are."""
    rows = _clean()
    rows["records"] = [row for row in rows["records"] if row["idempotency_key"] in {"key12", "key13"}]
    begin = _record(rows, 12)["timestamp_us"]
    for row in rows["partitions"]:
        row.update(begin_offset=1, complete_from_us=begin)
    assert _found(rows) == set()
    rows["records"].remove(_record(rows, 13))
    assert _found(rows) == {("outbox/published", "record_missing")}


def test_an_idle_partition_does_not_excuse_what_another_lost() -> None:
    """Of a partition that retention has emptied nothing is missed; a key that lies in another one is."""
    rows = _clean()
    empty = {"topic": "bets", "partition": 2, "begin_offset": 7, "end_offset": 7, "complete_from_us": (1 << 63) - 1}
    rows["partitions"].append(empty)
    assert _found(rows) == set()
    _lost_record(rows)
    assert _found(rows) == {("outbox/published", "record_missing")}


def test_a_model_is_behind_also_where_the_outbox_was_cleared_away() -> None:
    """A posting whose row is gone is at least as old as the oldest row that is there."""
    rows = _clean()
    rows["outbox"] = [_event(rows, 13), _event(rows, 14)]
    rows["records"] = [_record(rows, 13)]
    rows["read_models"][0].update(sequence=1, balance_minor=500)
    assert ("read_models/up_to_date", "behind") in _found(rows)
    rows["read_models"][1].update(balance_minor=None, sequence=0, projected_us=None)
    assert ("read_models/up_to_date", "missing_row") in _found(rows)


def test_what_an_erasure_blanked_is_not_missed() -> None:
    """A record that says nothing any more, under its player's key, is neither lost nor without a key."""
    rows = _clean()
    _record(rows, 11).update(idempotency_key=None, payload_sha256=None)
    assert _found(rows) == set()


def test_what_raced_may_be_published_either_way() -> None:
    """The outbox's order says one thing, the account's postings the other: no break, in neither direction."""
    rows = _clean()
    _swapped(rows)
    first, second = (next(row for row in rows["postings"] if row["transfer_id"] == one) for one in (12, 13))
    first["sequence"], second["sequence"] = second["sequence"], first["sequence"]
    assert ("outbox/in_order", "order_violated") not in _found(rows)


def test_a_record_behind_the_judged_moment_is_not_of_it() -> None:
    """What came after the snapshot of the ledger is no orphan."""
    rows = _clean()
    _nobodys_record(rows)
    rows["records"][-1]["timestamp_us"] = _NOW + 1
    assert _found(rows) == set()


def test_changes_within_the_agreed_lag_are_on_their_way() -> None:
    """A player who came, or said no, minutes ago is not yet in the CRM."""
    rows = _clean()
    rows["players"][0].update(email_consent=False, consent_changed_us=_NOW - _HOUR // 2)
    rows["players"].append({**rows["players"][1], "player_id": 3, "created_us": _NOW - _HOUR // 2})
    assert _found(rows) == set()


@pytest.mark.parametrize("check", [one for one in all_checks() if one.area in _AREAS], ids=lambda one: one.name)
def test_the_rules_are_plain_enough_for_another_engine(check: object) -> None:
    """Each statement is carried to Spark's dialect and is still one statement."""
    sql = check.sql  # type: ignore[attr-defined]
    (carried,) = sqlglot.transpile(sql, read="duckdb", write="spark", unsupported_level=sqlglot.ErrorLevel.RAISE)
    assert sqlglot.parse_one(carried, read="spark").named_selects
