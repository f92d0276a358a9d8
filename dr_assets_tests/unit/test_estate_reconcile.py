"""The `reconcile:` stanza of a database: what it comes to, what is refused, and that asking fewer is a weakening."""

from pathlib import Path

import pytest

from dr_assets.estate.declarations import check_estate, load_estate
from dr_assets.estate.model import Estate
from dr_assets.estate.promises import changes, promises_of
from dr_assets.estate.reconcile import ProviderFeed, Reconcile

_ESTATE = """\
type: dr_assets.components.ProtectedEstate
attributes:
  estate: casino
  licence: {authority: MGA, jurisdictions: [MT, FR]}
  vaults:
    primary:
      location: {provider: ovh, region: gra, jurisdiction: FR}
      bucket: vault-a
      endpoint_env: A_ENDPOINT
      access_key_env: A_ACCESS
      secret_key_env: A_SECRET
  keys: {dir_env: KEYS, trust_file_env: TRUST, signing_key_env: SIGNER}
  owners: ["team:platform"]
"""
_COMMON = """\
  retention: {lock: compliance, days: 30}
  location: {provider: ovh, region: waw, jurisdiction: MT}
  drill: {cron: "0 4 1 * *", overdue_after: 35d}
  owners: ["team:platform"]
"""
_TOPICS = f"""\
type: dr_assets.components.ProtectedTopics
attributes:
  dataset: game_events
  tier: game_event_stream
  bootstrap_env: BOOTSTRAP
  topics: ["ledger.*"]
  restore_test: {{cron: "30 3 * * *"}}
{_COMMON}"""
_LEDGER = f"""\
type: dr_assets.components.ProtectedPostgres
attributes:
  dataset: ledger
  tier: player_ledger
  dsn_env: LEDGER_DSN
  snapshot: {{every: 24h}}
  restore_test: {{cron: "0 3 * * *", contract: casino_ledger}}
{_COMMON}"""
_CARDS = "{name: cards, format: stripe, dir_env: CARDS_DIR}"


def _declare(folder: Path, reconcile: str) -> Path:
    for name, text in (("estate", _ESTATE), ("events", _TOPICS), ("ledger", _LEDGER + reconcile)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "defs.yaml").write_text(text)
    return folder


def _load(folder: Path, reconcile: str) -> Estate:
    return load_estate(_declare(folder, reconcile))


def test_who_else_knows_is_declared_by_the_names_of_variables(tmp_path: Path) -> None:
    """Folders and files are found by variable, a mapping beside the declaration; both are asked for at run time."""
    bank = "{name: wire, format: csv, dir_env: WIRE_DIR, mapping: wire.yaml}"
    stanza = f"  reconcile: {{providers: [{_CARDS}, {bank}], topics: game_events, contacts_env: CRM_FILE}}\n"
    estate = _load(tmp_path, stanza)
    ledger = estate.postgres()["ledger"]
    assert ledger.reconcile == Reconcile(
        (
            ProviderFeed("cards", "stripe", "CARDS_DIR"),
            ProviderFeed("wire", "csv", "WIRE_DIR", tmp_path / "ledger" / "wire.yaml"),
        ),
        topics="game_events",
        contacts_env="CRM_FILE",
    )
    assert {"CARDS_DIR", "WIRE_DIR", "CRM_FILE"} <= set(estate.env_names())


def test_nothing_is_asked_of_anybody_by_default(tmp_path: Path) -> None:
    """Without the stanza there are no feeds."""
    assert _load(tmp_path, "").postgres()["ledger"].reconcile is None


@pytest.mark.parametrize(
    ("stanza", "code", "said"),
    [
        (f"{{providers: [{_CARDS}, {_CARDS}]}}", "policy.value", "twice"),
        (f"{{providers: [{_CARDS}, {_CARDS.replace('cards', 'other')}]}}", "policy.value", "another provider's"),
        ("{providers: [{name: x, format: csv, dir_env: X}]}", "policy.mapping", "needs a `mapping`"),
        ("{providers: [{name: x, format: camt053, dir_env: X, mapping: y}]}", "policy.mapping", "standard"),
        ("{providers: [{name: x, format: paper, dir_env: X}]}", "policy.value", "format"),
        ("{topics: payments}", "policy.topics", "game_events"),
        ("{contacts: CRM}", "policy.unknown_key", "contacts"),
    ],
)
def test_what_nobody_could_read_is_refused(tmp_path: Path, stanza: str, code: str, said: str) -> None:
    """Each refusal has its code and its line."""
    findings = check_estate(_declare(tmp_path, f"  reconcile: {stanza}\n"))
    assert {finding.code for finding in findings} == {code}
    assert said in findings[0].reason
    assert findings[0].line == _LEDGER.count("\n") + 1


def test_topics_of_another_vault_are_refused_when_they_are_declared(tmp_path: Path) -> None:
    """A restore test reads one vault: topics that lie elsewhere would be missing in it; a replica in it will do."""
    stanza = "  reconcile: {topics: game_events}\n"
    other = (
        "    other:\n      location: {provider: aws, region: mil, jurisdiction: FR}\n      bucket: vault-b\n"
        "      endpoint_env: B_ENDPOINT\n      access_key_env: B_ACCESS\n      secret_key_env: B_SECRET\n"
    )
    _declare(tmp_path, stanza)
    (tmp_path / "estate" / "defs.yaml").write_text(_ESTATE.replace("  keys:", other + "  keys:"))
    (tmp_path / "events" / "defs.yaml").write_text(_TOPICS + "  vault: other\n")
    (finding,) = check_estate(tmp_path)
    assert (finding.code, finding.line) == ("policy.topics", _LEDGER.count("\n") + 1)
    assert "lies in vault other" in finding.reason
    assert "primary alone" in finding.reason
    (tmp_path / "events" / "defs.yaml").write_text(_TOPICS + "  vault: other\n  replicas: [primary]\n")
    assert check_estate(tmp_path) == []


def test_asking_fewer_is_a_weaker_promise(tmp_path: Path) -> None:
    """Whoever drops a provider from the declaration needs what every weakening needs."""
    before = promises_of(_load(tmp_path, f"  reconcile: {{providers: [{_CARDS}], topics: game_events}}\n"))
    for less in (f"  reconcile: {{providers: [{_CARDS}]}}\n", ""):
        (change,) = changes(before, promises_of(_load(tmp_path, less)))
        assert change.is_weaker
        assert change.what == "ledger.reconciled_with"
