import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.checks import CheckResult, all_checks, why_skipped
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.relations import RELATIONS
from dr_assets.reconciliation.run import judge

_CONTRACT = Contract(
    name="synthetic",
    queries={},
    chain_text="concat_ws('|', account_id, sequence, amount_minor)",
    digest_text="concat_ws('|', transfer_id, idempotency_key)",
    has_payload_hash=True,
)
_TYPES = {"id": pa.int64(), "text": pa.string(), "minor": pa.int64(), "flag": pa.bool_(), "bytes": pa.binary()}
_AS_OF = datetime(2026, 1, 31, tzinfo=UTC)
Rows = dict[str, list[dict[str, object]]]

# Beyond 2**53 a float would lose the last digit.
_LARGE = 2**60 + 1


def _transfer(transfer: int, key: str, digest: bytes, payload: bytes = b"as it was") -> dict[str, object]:
    return {"transfer_id": transfer, "idempotency_key": key, "digest": digest, "payload_hash": payload}


def _pending(
    pending: int, amount: int, resolution: str | None = None, resolved: int | None = None, transfer: int | None = None
) -> dict[str, object]:
    values = {"pending_id": pending, "account_id": 3, "currency": "EUR", "amount_minor": amount}
    ended = {"resolution": resolution, "resolved_minor": resolved, "transfer_id": transfer}
    return {**values, **ended, "created_us": int(_AS_OF.timestamp() * 1e6) - 8 * 86_400 * 1_000_000}


def _period(period: int, opening: int, entries: int, closing: int) -> dict[str, object]:
    sums = {"opening_minor": opening, "entries_minor": entries, "closing_minor": closing}
    return {"account_id": 2, "currency": "EUR", "period": period, **sums}


def _ledger() -> Rows:
    """House (1) and player (2) with a hold account (3): a deposit, a bet, and a requested withdrawal still open."""
    legs = [(10, ((1, -_LARGE), (2, _LARGE))), (11, ((1, 7), (2, -7))), (12, ((2, -100), (3, 100)))]
    rows: Rows = {
        "accounts": [
            {"account_id": account, "currency": "EUR", "may_go_negative": account == 1, "holds_money": account == 3}
            for account in (1, 2, 3)
        ],
        "transfers": [],
        "postings": [],
        "balances": [],
        "holds": [{"hold_id": 77, "account_id": 3, "currency": "EUR", "amount_minor": 100}],
        "pendings": [_pending(70, 100), _pending(71, 7, "posted", 7, 11)],
        "periods": [_period(1, 0, 5, 5), _period(2, 5, -5, 0), _period(3, 0, _LARGE, _LARGE)],
    }
    state: dict[int, tuple[int, int, bytes]] = dict.fromkeys((1, 2, 3), (0, 0, b""))
    for transfer, postings in legs:
        digest = hashlib.sha256(f"{transfer}|key{transfer}".encode()).digest()
        rows["transfers"].append(_transfer(transfer, f"key{transfer}", digest))
        for account, amount in postings:
            sequence, balance, previous = state[account]
            digest = hashlib.sha256(previous + f"{account}|{sequence + 1}|{amount}".encode()).digest()
            state[account] = (sequence + 1, balance + amount, digest)
            rows["postings"].append(
                {
                    "account_id": account,
                    "sequence": sequence + 1,
                    "transfer_id": transfer,
                    "currency": "EUR",
                    "amount_minor": amount,
                    "balance_after_minor": balance + amount,
                    "hash": digest,
                }
            )
    rows["balances"] = [
        {"account_id": account, "balance_minor": balance, "last_sequence": sequence, "last_hash": last}
        for account, (sequence, balance, last) in state.items()
    ]
    return rows


def _run(rows: Rows, contract: Contract = _CONTRACT, *, max_breaks: int = 100) -> dict[str, CheckResult]:
    with duckdb_engine(None, "512MB", 2) as engine:
        for relation, given in rows.items():
            schema = pa.schema([(column.name, _TYPES[column.kind]) for column in RELATIONS[relation]])
            engine.load(relation, pa.Table.from_pylist(given, schema=schema))
        counts = {relation: len(given) for relation, given in rows.items()}
        checks = [one for one in all_checks() if why_skipped(one, frozenset(rows), contract.parts, None) is None]
        return {one.name: one for one in judge(engine, contract, checks, counts, _AS_OF, max_breaks=max_breaks)}


def _reasons(rows: Rows) -> set[str]:
    return {reason for result in _run(rows).values() for reason in result.breaks_by_reason}


def _posting(rows: Rows, account: int, sequence: int) -> dict[str, object]:
    (row,) = (p for p in rows["postings"] if (p["account_id"], p["sequence"]) == (account, sequence))
    return row


def _no_value(rows: Rows) -> None:
    rows["holds"].append({"hold_id": None, "account_id": 3, "currency": "EUR", "amount_minor": 0})


def _out_of_balance(rows: Rows) -> None:
    _posting(rows, 1, 2)["transfer_id"] = 10


def _orphan(rows: Rows) -> None:
    rows["transfers"] = [row for row in rows["transfers"] if row["transfer_id"] != 11]


def _no_account(rows: Rows) -> None:
    rows["accounts"] = [row for row in rows["accounts"] if row["account_id"] != 3]


def _other_currency(rows: Rows) -> None:
    rows["accounts"][2]["currency"] = "USD"


def _no_postings(rows: Rows) -> None:
    digest = hashlib.sha256(b"13|key13").digest()
    rows["transfers"].append(_transfer(13, "key13", digest))


def _transfer_twice(rows: Rows) -> None:
    rows["transfers"].append(rows["transfers"][0])


def _account_twice(rows: Rows) -> None:
    rows["accounts"].append(rows["accounts"][0])


def _key_twice(rows: Rows) -> None:
    rows["transfers"][1]["idempotency_key"] = "key10"


def _gap(rows: Rows) -> None:
    rows["postings"].remove(_posting(rows, 2, 2))


def _number_twice(rows: Rows) -> None:
    _posting(rows, 2, 2)["sequence"] = 3


def _hash(rows: Rows) -> None:
    _posting(rows, 2, 2)["hash"] = bytes(32)


def _hash_is_null(rows: Rows) -> None:
    _posting(rows, 2, 2)["hash"] = None


def _digest(rows: Rows) -> None:
    rows["transfers"][2]["idempotency_key"] = "other"


def _balance(rows: Rows) -> None:
    rows["balances"][1]["balance_minor"] = _LARGE - 106  # one more than true: a float could not tell


def _no_balance(rows: Rows) -> None:
    rows["balances"].pop(1)


def _balance_twice(rows: Rows) -> None:
    rows["balances"].append(rows["balances"][0])


def _hold_below_zero(rows: Rows) -> None:
    rows["holds"][0]["amount_minor"] = 105
    rows["holds"].append({"hold_id": 78, "account_id": 3, "currency": "EUR", "amount_minor": -5})


def _stray_balance(rows: Rows) -> None:
    rows["balances"].append({"account_id": 9, "balance_minor": 0, "last_sequence": 0, "last_hash": b""})


def _running(rows: Rows) -> None:
    _posting(rows, 2, 2)["balance_after_minor"] = _LARGE


def _newest_missing(rows: Rows) -> None:
    rows["postings"].remove(_posting(rows, 2, 3))


def _newest_balance(rows: Rows) -> None:
    _posting(rows, 2, 3)["balance_after_minor"] = 5


def _newest_hash(rows: Rows) -> None:
    rows["balances"][1]["last_hash"] = bytes(32)


def _negative(rows: Rows) -> None:
    rows["accounts"][0]["may_go_negative"] = False


def _hold_gone(rows: Rows) -> None:
    rows["holds"].clear()


def _hold_elsewhere(rows: Rows) -> None:
    rows["holds"].append({"hold_id": 78, "account_id": 2, "currency": "EUR", "amount_minor": 5})


def _one_sided(rows: Rows) -> None:
    _posting(rows, 1, 1)["amount_minor"] = 1 - _LARGE


def _other_payload(rows: Rows) -> None:
    rows["transfers"].append(_transfer(14, "key12", hashlib.sha256(b"14|key12").digest(), b"another"))


def _resolved_twice(rows: Rows) -> None:
    rows["pendings"].append(_pending(71, 7, "voided", 7, 12))


def _overdrawn(rows: Rows) -> None:
    rows["pendings"].append(_pending(72, 7, "posted", 8, 12))


def _resolved_by_nothing(rows: Rows) -> None:
    rows["pendings"].append(_pending(73, 7, "posted", 7, 99))


def _pending_value(rows: Rows) -> None:
    rows["pendings"].append({**_pending(74, 7), "currency": None})


def _period_sum(rows: Rows) -> None:
    rows["periods"][2]["entries_minor"] = _LARGE - 1


def _period_gap(rows: Rows) -> None:
    rows["periods"].pop(1)


def _opening(rows: Rows) -> None:
    rows["periods"][1] |= {"opening_minor": 6, "closing_minor": 1}
    rows["periods"][2] |= {"opening_minor": 1, "closing_minor": _LARGE + 1}


_DAMAGES: list[tuple[Callable[[Rows], None], str]] = [
    (_no_value, "value_missing"),
    (_out_of_balance, "transfer_out_of_balance"),
    (_orphan, "orphan_posting"),
    (_no_account, "posting_without_account"),
    (_other_currency, "posting_in_other_currency"),
    (_no_postings, "transfer_without_postings"),
    (_transfer_twice, "transfer_repeated"),
    (_account_twice, "account_repeated"),
    (_key_twice, "idempotency_key_repeated"),
    (_gap, "sequence_gap"),
    (_number_twice, "sequence_repeated"),
    (_hash, "hash_differs"),
    (_hash_is_null, "hash_differs"),
    (_digest, "transfer_altered"),
    (_balance, "balance_differs_from_postings"),
    (_no_balance, "account_without_balance"),
    (_stray_balance, "balance_without_account"),
    (_balance_twice, "balance_repeated"),
    (_hold_below_zero, "hold_not_positive"),
    (_running, "running_balance_differs"),
    (_newest_missing, "newest_posting_missing"),
    (_newest_balance, "balance_differs_from_newest_posting"),
    (_newest_hash, "newest_hash_differs"),
    (_negative, "forbidden_negative"),
    (_hold_gone, "balance_differs_from_holds"),
    (_hold_elsewhere, "hold_on_wrong_account"),
    (_one_sided, "currency_out_of_balance"),
    (_other_payload, "idempotency_payload_differs"),
    (_resolved_twice, "pending_resolved_twice"),
    (_overdrawn, "pending_overdrawn"),
    (_resolved_by_nothing, "pending_without_transfer"),
    (_pending_value, "value_missing"),
    (_period_sum, "period_does_not_add_up"),
    (_period_gap, "period_missing"),
    (_opening, "opening_differs_from_closing"),
]


def test_a_sound_ledger_has_no_break() -> None:
    """Amounts beyond a float's precision, hashes computed by another implementation: every check is silent."""
    results = _run(_ledger())
    assert {name: result.breaks_by_reason for name, result in results.items() if not result.ok} == {}
    assert all(result.rows_examined > 0 for result in results.values())


@pytest.mark.parametrize(("damage", "reason"), _DAMAGES, ids=[damage.__name__ for damage, _ in _DAMAGES])
def test_each_damage_is_named(damage: Callable[[Rows], None], reason: str) -> None:
    """Each rule is broken once, and the break that stands for it appears."""
    rows = _ledger()
    damage(rows)
    assert reason in _reasons(rows)


def _given(areas: set[str] | None = None) -> set[str]:
    """Every reason that the files of these areas (None: of all) can give."""
    return {
        reason
        for folder in (files("dr_assets.reconciliation") / "checks").iterdir()
        for file in folder.iterdir()
        for reason in re.findall(r"(?:SELECT|THEN|ELSE) '([a-z_]+)'", file.read_text(encoding="utf-8"))
        if not file.name.endswith(".matched.sql") and (areas is None or folder.name in areas)
    }


def test_every_reason_a_check_of_the_ledger_can_give_is_tested() -> None:
    """A new rule about the ledger or its balances without a damage that trips it fails here."""
    assert _given({"ledger", "balances"}) <= {reason for _, reason in _DAMAGES}


def test_every_check_and_every_reason_is_documented() -> None:
    """A new rule without a word in the documentation fails here."""
    folder = Path(__file__).parents[2] / "docs"
    documented = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.md"))
    assert {reason for reason in _given() if f"`{reason}`" not in documented} == set()
    by_hand = [check.name for check in all_checks() if not check.name.endswith("_complete")]
    assert [name for name in by_hand if f"`{name}`" not in documented] == []


def test_a_break_has_the_exact_amount_the_account_and_the_check() -> None:
    """One minor unit too much on a balance of 2^60 is reported as one minor unit."""
    rows = _ledger()
    _balance(rows)
    result = _run(rows)["balances/balance_is_sum"]
    (found,) = result.breaks.to_pylist()
    assert found["amount_minor"] == Decimal(1)
    assert (found["check"], found["account"], found["currency"]) == ("balances/balance_is_sum", "2", "EUR")


def test_a_pending_that_was_resolved_twice_has_its_amount_and_its_age() -> None:
    """The second time is what is too much; older than the contract's `aged_after`, it is an aged break."""
    rows = _ledger()
    _resolved_twice(rows)
    result = _run(rows)["ledger/pendings_resolved"]
    (found,) = result.breaks.to_pylist()
    assert (found["amount_minor"], found["reference"], found["aged"]) == (Decimal(7), "71", True)
    assert [(kind.count, kind.aged) for kind in result.kinds] == [(1, 1)]


def test_sums_beyond_64_bits_are_exact() -> None:
    """Many large amounts do not wrap around: the break shows the true sum."""
    rows = _ledger()
    rows["postings"] += [{**_posting(rows, 1, 1), "amount_minor": 2**62, "transfer_id": 99} for _ in range(8)]
    broken = {b["transfer"]: b["amount_minor"] for b in _run(rows)["ledger/transfers_balance"].breaks.to_pylist()}
    assert broken["99"] == Decimal(2**65)


def test_breaks_are_bounded_and_all_counted() -> None:
    """A wrecked ledger gives as many rows as asked for, and the true number."""
    rows = _ledger()
    rows["transfers"] += [_transfer(1000 + n, f"k{n}", b"") for n in range(50)]
    result = _run(rows, max_breaks=10)["ledger/transfers_have_postings"]
    assert (result.breaks.num_rows, result.breaks_total) == (10, 50)


def test_a_contract_without_chain_and_digest_skips_their_checks_only() -> None:
    """The other checks run over a schema that has no hashes."""
    names = set(_run(_ledger(), Contract("plain", {}, None, None)))
    skipped = {check.name for check in all_checks() if check.area in {"ledger", "balances"}} - names
    assert skipped == {
        "ledger/hash_chain",
        "ledger/transfer_digests",
        "ledger/idempotency_payloads",
        "balances/newest_hash",
    }


def test_a_chain_text_over_a_missing_column_is_the_contracts_fault() -> None:
    """A wrong expression is one clear error, not a traceback out of DuckDB."""
    with pytest.raises(PolicyError, match="no_such_column") as caught:
        _run(_ledger(), Contract("wrong", {}, "concat(no_such_column)", None))
    assert caught.value.code == "reconciliation.contract_unmet"
