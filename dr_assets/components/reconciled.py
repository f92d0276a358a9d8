"""`<dataset>/reconciliation`: one check for each of the eight reconciliations, and the tables people look at.

What belongs here: the checks and the metadata, from the newest sealed fact. What stays out: reconciling
(reconciliation/), and `money_adds_up`, which is about all eight together (proofs.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from dr_assets.components.judgements import Judgement, judge_money
from dr_assets.components.labels import artefact_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault

# By area, what is promised; in the order in which they build on one another.
PROMISES: Final = {
    "ledger": "Every transfer balances, once, as it was written.",
    "balances": "Every balance is the sum of its postings, and none is what it may not be.",
    "payments": "Providers' files and banks' statements say of each payment what the ledger says.",
    "withdrawals": "A withdrawal is paid out once, and only when it was posted.",
    "outbox": "Every event of the ledger was published, once and in order.",
    "queues": "Topics hold an entry's record and no other, and no consumer is left behind.",
    "read_models": "Read models show what the ledger gives when they are rebuilt.",
    "crm": "The CRM has the players' consents, and nobody who was erased.",
}
_KIND_COLUMNS: Final = (
    ("check", "string"),
    ("reason", "string"),
    ("severity", "string"),
    ("currency", "string"),
    ("count", "int"),
    ("aged", "int"),
    ("amount_minor", "string"),
    ("net_minor", "string"),
    ("oldest_s", "int"),
)
_WORST_COLUMNS: Final = (
    ("account", "string"),
    ("currency", "string"),
    ("amount_minor", "string"),
    ("count", "int"),
    ("check", "string"),
)
_MATCHED_COLUMNS: Final = (
    ("check", "string"),
    ("outcome", "string"),
    ("currency", "string"),
    ("count", "int"),
    ("amount_minor", "string"),
)


def area_key(dataset: PostgresDataset, area: str) -> dg.AssetCheckKey:
    """The check of one of the eight on `<dataset>/reconciliation`."""
    return dg.AssetCheckKey(artefact_key(dataset, "reconciliation"), f"reconciled_{area}")


def area_check_specs(dataset: PostgresDataset) -> list[dg.AssetCheckSpec]:
    """One for each of the eight; `money_adds_up` blocks for all of them."""
    asset = artefact_key(dataset, "reconciliation")
    return [
        dg.AssetCheckSpec(area_key(dataset, area).name, asset=asset, description=promise)
        for area, promise in PROMISES.items()
    ]


def judge_areas(vault: Vault, dataset: PostgresDataset) -> dict[dg.AssetCheckKey, Judgement]:
    """The eight verdicts, from the newest fact. Raises `VaultError` when it can't be read or is tampered with."""
    fact = latest_fact(vault, dataset.name, "reconciliation")
    standing = judge_money(dataset, fact, vault.clock())
    return {area_key(dataset, area): _judge_area(dataset, area, fact, standing) for area in PROMISES}


def _judge_area(dataset: PostgresDataset, area: str, fact: Fact | None, standing: Judgement) -> Judgement:
    found = _mapping(_mapping(fact.body if fact else {}).get("areas")).get(area)
    if fact is None or not isinstance(found, Mapping):
        return Judgement(passed=False, reason=standing.reason if fact is None else f"{area} is not on record")
    values = {name: found.get(name) for name in ("checks", "breaks", "red", "aged")} | {"fact": str(fact.key)}
    why = "; ".join(str(one) for one in _sequence(found.get("not_run")))
    if not found.get("checks") and not found.get("breaks"):
        asked = area in _asked(dataset)
        reason = f"not checked: {why}" if asked else f"nobody asked for it: {why}"
        return Judgement(passed=not asked, reason=reason, values=values)
    if found.get("red"):
        return Judgement(passed=False, reason=f"{found['red']} red of {found['breaks']} breaks", values=values)
    if found.get("breaks"):
        reason = f"{found['breaks']} amber breaks, {found['aged']} of them aged"
        return Judgement(passed=False, reason=reason, values=values, is_warning=True)
    if not standing.passed and fact.body.get("outcome") == "passed":  # it is too old, or of the future
        return Judgement(passed=False, reason=standing.reason, values=values)
    left_out = f"; left out: {why}" if why else ""
    return Judgement(passed=True, reason=f"{found['checks']} checks without a break{left_out}", values=values)


def _asked(dataset: PostgresDataset) -> set[str]:
    """The areas that the dataset's declaration needs to be checked: a promise that nobody kept is not green."""
    asked = {"ledger", "balances"}
    declared = dataset.reconcile
    if declared is None:
        return asked
    asked |= {"payments", "withdrawals"} if declared.providers else set()
    asked |= {"outbox", "queues"} if declared.topics else set()
    return asked | ({"crm"} if declared.contacts_env else set())


def reconciled_metadata(vault: Vault, dataset: PostgresDataset) -> dict[str, dg.MetadataValue]:
    """Breaks by kind and currency, the accounts with the most at stake, and what matched: as tables."""
    fact = latest_fact(vault, dataset.name, "reconciliation")
    body = _mapping(fact.body if fact else {})
    kinds, worst = _sequence(body.get("kinds")), _sequence(body.get("worst_accounts"))
    matched = [
        {"check": check, **_mapping(row)}
        for check, rows in _mapping(body.get("matched")).items()
        for row in _sequence(rows)
    ]
    tables = {
        "breaks": (kinds, _KIND_COLUMNS),
        "worst_accounts": (worst, _WORST_COLUMNS),
        "matched": (matched, _MATCHED_COLUMNS),
    }
    file = _mapping(body.get("breaks_file"))
    found: dict[str, dg.MetadataValue] = {name: _table(*table) for name, table in tables.items() if table[0]}
    if file:
        found["breaks_file"] = dg.MetadataValue.text("\n".join(str(key) for key in _sequence(file.get("keys"))))
    return found


def _table(rows: Sequence[Any], columns: Sequence[tuple[str, str]]) -> dg.MetadataValue:
    """None is shown as nothing: a table's cell can't be empty otherwise."""
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({name: "" if row.get(name) is None else row[name] for name, _ in columns}) for row in rows
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in columns]),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
