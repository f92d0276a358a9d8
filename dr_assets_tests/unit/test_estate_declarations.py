from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.declarations import Finding, check_estate, default_defs_dir, load_estate
from dr_assets.estate.documents import read_documents
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Spool, ZeroLoss
from dr_assets.estate.rules import judge
from dr_assets.estate.schema import ESTATE_TYPE, POSTGRES_TYPE

DATASETS = ["game_events", "kyc", "ledger"]
ESTATE = """\
type: dr_assets.components.ProtectedEstate
attributes:
  estate: casino
  licence: {authority: MGA, jurisdictions: [MT, FR, DE]}
  vaults:
    primary:
      location: {provider: ovh, region: gra, jurisdiction: FR}
      bucket: vault-a
      endpoint_env: A_ENDPOINT
      access_key_env: A_ACCESS
      secret_key_env: A_SECRET
    standby:
      location: {provider: hetzner, region: fsn1, jurisdiction: DE}
      bucket: vault-b
      endpoint_env: B_ENDPOINT
      access_key_env: B_ACCESS
      secret_key_env: B_SECRET
  keys: {dir_env: KEYS, trust_file_env: TRUST, signing_key_env: SIGNER}
  owners: ["team:platform"]
"""
LEDGER = """\
type: dr_assets.components.ProtectedPostgres
attributes:
  dataset: ledger
  tier: player_ledger
  dsn_env: LEDGER_DSN
  rpo: 30s
  rto: 15m
  snapshot: {every: 24h, incremental_every: 1h}
  retention: {lock: compliance, days: 30}
  location: {provider: ovh, region: waw, jurisdiction: MT}
  replicas: [standby]
  restore_test: {cron: "0 3 * * *", contract: casino_ledger}
  drill: {cron: "0 4 1 * *", overdue_after: 35d}
  owners: ["team:platform"]
"""


def declare(folder: Path, **texts: str) -> Path:
    """Write one defs.yaml per name."""
    for name, text in texts.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "defs.yaml").write_text(text)
    return folder


def changed(text: str, old: str, new: str) -> str:
    """The sample with its one `old` replaced."""
    assert text.count(old) == 1, f"{old!r} must name one place of the sample"
    return text.replace(old, new)


def shown(findings: list[Finding]) -> list[tuple[str, int, str]]:
    """Folder, line and code: what a person looks for first."""
    return [(finding.path.parent.name, finding.line, finding.code) for finding in findings]


def test_the_packaged_estate_is_accepted() -> None:
    """The declarations that ship with the package pass every rule and name no value, only variables."""
    estate = load_estate(default_defs_dir())
    assert (estate.name, list(estate.vaults), list(estate.datasets)) == ("casino", ["primary", "standby"], DATASETS)
    ledger = estate.datasets["ledger"]
    assert (ledger.rpo, ledger.rto) == (timedelta(seconds=30), timedelta(minutes=15))
    assert ledger.slot == "dr_assets_ledger"
    assert ledger.line == 4
    assert "LEDGER_DSN" in estate.env_names()
    of_sources = {name for dataset in estate.datasets.values() for name in dataset.env_names()}
    assert of_sources == {"LEDGER_DSN", "GAME_EVENTS_BOOTSTRAP", "KYC_ENDPOINT", "KYC_ACCESS_KEY", "KYC_SECRET_KEY"}
    assert (
        len(set(estate.env_names()) - of_sources) == 12 + 2 * 5 * 2
    )  # two vaults, five roles each with a pair of keys


def test_the_designs_example_is_accepted_with_the_tiers_defaults(tmp_path: Path) -> None:
    """The plan's YAML loads as shown; without rpo and rto the tier's apply, and the lock is the retention."""
    ledger = changed(changed(LEDGER, "  rpo: 30s\n", ""), "  rto: 15m\n", "")
    dataset = load_estate(declare(tmp_path, estate=ESTATE, ledger=ledger)).datasets["ledger"]
    assert (dataset.rpo, dataset.rto) == (dataset.tier.rpo, dataset.tier.rto)
    assert dataset.retention.lock_days == 30
    assert dataset.snapshot.incremental_every == timedelta(hours=1)
    assert dataset.linger == timedelta(milliseconds=500)


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ("  rpo: 30s\n", "  rpo: 31s\n", 6, "policy.rpo"),
        ("  rto: 15m\n", "  rto: 1h\n", 7, "policy.rto"),
        ("  rpo: 30s\n", "  rpo: 30\n", 6, "policy.value"),
        ("  rpo: 30s\n", '  rpo: "30"\n', 6, "policy.value"),
        ("  rpo: 30s\n", "  rpo: 30s\n  rpo: 29s\n", 7, "policy.yaml"),
        ("  rpo: 30s\n", "  rpoo: 30s\n", 6, "policy.unknown_key"),
        ("days: 30", "days: 30, day: 1", 9, "policy.unknown_key"),
        ("attributes:\n", "attribute: 1\nattributes:\n", 2, "policy.unknown_key"),
        ("days: 30", "days: 30, lock_days: 29", 9, "policy.lock"),
        ("days: 30", "days: 0", 9, "policy.value"),
        ("  rpo: 30s\n", "  durability: zero_loss\n", 6, "policy.on_capture_loss"),
        ("  rpo: 30s\n", "  on_capture_loss: block\n", 6, "policy.on_capture_loss"),
        ("  rpo: 30s\n", "  spool: {dir_env: SPOOL, max: 2GB}\n", 6, "policy.value"),
        ("lock: compliance", "lock: none", 9, "policy.value"),
        ("tier: player_ledger", "tier: players", 4, "policy.tier"),
        ("LEDGER_DSN", "postgresql://127.0.0.1/db", 5, "policy.value"),
        ("incremental_every: 1h", "incremental_every: 24h", 8, "policy.snapshot"),
        ("jurisdiction: MT", "jurisdiction: US", 10, "policy.jurisdiction"),
        ("jurisdiction: MT", "jurisdiction: NO", 10, "policy.value"),
        ("region: waw", "region: FSN1", None, None),
        ("provider: ovh, region: waw", "provider: Hetzner, region: FSN1", 11, "policy.failure_domain"),
        ("[standby]", "[primary]", 11, "policy.vault_twice"),
        ("[standby]", "[standby, standby]", 11, "policy.vault_twice"),
        ("[standby]", "[elsewhere]", 11, "policy.vault"),
        ("replicas: [standby]", "vault: elsewhere", 11, "policy.vault"),
        ("0 3 * * *", "0 3 * * * *", 12, "policy.cron"),
        ("0 4 1 * *", "0 0 31 2 *", 13, "policy.cron"),
        ("overdue_after: 35d", "overdue_after: 30d", 13, "policy.drill_overdue"),
        ('["team:platform"]', "[]", 14, "policy.owners"),
        ('["team:platform"]', "[platform]", 14, "policy.value"),
        ('  owners: ["team:platform"]\n', "", 2, "policy.missing"),
        ("dataset: ledger", "dataset: Ledger", 3, "policy.value"),
        ("dataset: ledger", "dataset: estate", 3, "policy.reserved_name"),
        ("dsn_env: LEDGER_DSN", 'dsn_env: "{{ env.LEDGER_DSN }}"', 5, "policy.template"),
        ("  rpo: 30s\n", "  rpo: 30s\n  linger: 2s\n", 7, "policy.linger"),
        ("  rpo: 30s\n", '  rpo: 30s\n  exception: " "\n', 7, "policy.exception"),
        ("attributes:\n", "attributes: [\n", 4, "policy.yaml"),
        ("ProtectedPostgres\n", "ProtectedPostgre\n", 1, "policy.type"),
        ("type: ", "kind: ", 1, "policy.type"),
    ],
)
def test_each_refusal_names_file_and_line(
    tmp_path: Path, old: str, new: str, line: int | None, code: str | None
) -> None:
    """A declaration that breaks one rule is refused at the line to change; a harmless change is not."""
    findings = check_estate(declare(tmp_path, estate=ESTATE, ledger=changed(LEDGER, old, new)))
    assert [found for found in shown(findings) if found[2] == code] == ([("ledger", line, code)] if line else [])
    assert bool(findings) == (line is not None)


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ("jurisdictions: [MT, FR, DE]", "jurisdictions: [MT, FR]", 13, "policy.jurisdiction"),
        ("jurisdictions: [MT, FR, DE]", "jurisdictions: []", 4, "policy.value"),
        ("endpoint_env: A_ENDPOINT", "endpoint_env: http://s3.example.net", 9, "policy.transport"),
        ("endpoint_env: B_ENDPOINT", "endpoint_env: A_ENDPOINT", None, None),
        ("vault-b", "vault_b", 14, "policy.value"),
        ("  estate: casino\n", "", 2, "policy.missing"),
        ("keys: {", "keys: {dir: /keys, ", 18, "policy.unknown_key"),
    ],
)
def test_the_estates_own_refusals(tmp_path: Path, old: str, new: str, line: int | None, code: str | None) -> None:
    """Vaults outside the licence, endpoints in the open and malformed heads are refused at their line."""
    findings = check_estate(declare(tmp_path, estate=changed(ESTATE, old, new), ledger=LEDGER))
    assert [found for found in shown(findings) if found[2] == code] == ([("estate", line, code)] if line else [])


def test_two_names_for_one_vault_are_refused(tmp_path: Path) -> None:
    """The same endpoint and bucket under two names would count one copy twice."""
    estate = changed(changed(ESTATE, "B_ENDPOINT", "A_ENDPOINT"), "vault-b", "vault-a")
    assert ("estate", 12, "policy.vault_twice") in shown(check_estate(declare(tmp_path, estate=estate, ledger=LEDGER)))


@pytest.mark.parametrize("cron", ["0 4 1 1,5,9 *", "0 4 1 1 *", "0 4 29 2 *"])
def test_a_drill_rarer_than_quarterly_is_refused(tmp_path: Path, cron: str) -> None:
    """Cadence is counted over actual fires: four months, a year or only leap days are too rare."""
    ledger = changed(changed(LEDGER, "0 4 1 * *", cron), "35d", "1500d")
    findings = check_estate(declare(tmp_path, estate=ESTATE, ledger=ledger))
    assert shown(findings) == [("ledger", 13, "policy.drill_cadence")]


@pytest.mark.parametrize(("loss", "degrade_after"), [("block", None), ("{degrade_after: 10s}", timedelta(seconds=10))])
def test_zero_loss_says_what_commits_do_without_the_capture(
    tmp_path: Path, loss: str, degrade_after: timedelta | None
) -> None:
    """Both answers are accepted as declared; without `durability` nothing is synchronous."""
    ledger = changed(LEDGER, "rpo: 30s", f"rpo: 30s\n  durability: zero_loss\n  on_capture_loss: {loss}")
    dataset = load_estate(declare(tmp_path, estate=ESTATE, ledger=ledger)).datasets["ledger"]
    assert dataset.zero_loss == ZeroLoss(degrade_after)
    assert load_estate(declare(tmp_path, ledger=LEDGER)).datasets["ledger"].zero_loss is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("on_capture_loss: blok", "`on_capture_loss`: `blok` is neither `block` (commits wait"),
        ("on_capture_loss: [10s]", "`on_capture_loss`: `['10s']` is neither `block` (commits wait"),
        ("on_capture_loss: {degrade_after: 10}", "`on_capture_loss.degrade_after` must be text; a duration"),
        ("durability: zeroloss", "`durability`: `zeroloss` is not one of `asynchronous` or `zero_loss`"),
        ("spool: somewhere", "`spool`: must be a mapping: {key: value}"),
        ("wal_volume: 100", "`wal_volume` must be text; a duration or a size needs its unit"),
    ],
)
def test_a_wrong_shape_is_told_once_and_in_the_words_of_the_file(tmp_path: Path, line: str, reason: str) -> None:
    """One mistake is one finding, about what was written: no class, no union's branch, no validator's own words."""
    folder = declare(tmp_path, estate=ESTATE, ledger=changed(LEDGER, "  rpo: 30s\n", f"  {line}\n"))
    (finding,) = [each for each in check_estate(folder) if each.code == "policy.value"]
    assert finding.line == 6
    assert finding.reason.startswith(reason)
    assert not any(word in finding.reason for word in ("Declaration", "literal", "Input", "dictionary"))


def test_a_misspelt_key_within_an_either_or_is_told_with_its_name(tmp_path: Path) -> None:
    """A mapping was meant, so what is wrong with it is told, and not that it isn't the other branch."""
    line = "  durability: zero_loss\n  on_capture_loss: {degrade_aftr: 10s}\n"
    findings = check_estate(declare(tmp_path, estate=ESTATE, ledger=changed(LEDGER, "  rpo: 30s\n", line)))
    assert {(each.line, each.code, each.reason.split(" is ")[0]) for each in findings} == {
        (7, "policy.missing", "`on_capture_loss.degrade_after`"),
        (7, "policy.unknown_key", "`on_capture_loss.degrade_aftr`"),
    }


def test_a_spool_has_a_place_and_a_size(tmp_path: Path) -> None:
    """The place is a variable's name that the resident process is given, the size is in bytes."""
    ledger = changed(LEDGER, "rpo: 30s", "rpo: 30s\n  spool: {dir_env: SPOOL, max: 2GiB}\n  patroni_env: PATRONI")
    estate = load_estate(declare(tmp_path, estate=ESTATE, ledger=ledger))
    assert estate.datasets["ledger"].spool == Spool("SPOOL", 2 << 30)
    assert {"SPOOL", "PATRONI"} <= set(estate.env_names())


def test_a_written_exception_allows_a_slower_objective(tmp_path: Path) -> None:
    """With a reason in writing, objectives above the tier's are accepted and the reason is kept."""
    ledger = changed(LEDGER, "rpo: 30s", 'rpo: 5m\n  exception: "agreed with the regulator until 2027-01"')
    dataset = load_estate(declare(tmp_path, estate=ESTATE, ledger=ledger)).datasets["ledger"]
    assert dataset.rpo == timedelta(minutes=5)
    assert dataset.exception == "agreed with the regulator until 2027-01"


def test_dataset_names_and_slots_are_unique(tmp_path: Path) -> None:
    """A name or a slot taken by another dataset is refused at the second one's line."""
    twin = changed(LEDGER, "dataset: ledger", "dataset: ledger\n  slot: another")
    thief = changed(LEDGER, "dataset: ledger", "dataset: thief\n  slot: dr_assets_ledger")
    findings = check_estate(declare(tmp_path, estate=ESTATE, ledger=LEDGER, zz_thief=thief, zz_twin=twin))
    assert shown(findings) == [("zz_thief", 4, "policy.slot_twice"), ("zz_twin", 3, "policy.dataset_twice")]


def test_an_estate_is_declared_once(tmp_path: Path) -> None:
    """No estate at all and a second one are both findings."""
    assert [finding.code for finding in check_estate(declare(tmp_path, ledger=LEDGER))] == ["policy.estate"]
    assert shown(check_estate(declare(tmp_path, estate=ESTATE, other=ESTATE))) == [("other", 2, "policy.estate")]


def test_all_findings_come_at_once_and_sorted(tmp_path: Path) -> None:
    """One run shows everything there is to fix: a typo hides no other rule, files and lines are in order."""
    ledger = changed(changed(LEDGER, "rpo: 30s", "rpo: 45s"), "days: 30", "days: 30, dayz: 1, lock_days: 7")
    estate = changed(ESTATE, "jurisdictions: [MT, FR, DE]", "jurisdictions: [MT, FR]")
    folder = declare(tmp_path, estate=estate, ledger=ledger)
    expected = [
        ("estate", 13, "policy.jurisdiction"),
        ("ledger", 6, "policy.rpo"),
        ("ledger", 9, "policy.lock"),
        ("ledger", 9, "policy.unknown_key"),
    ]
    assert shown(check_estate(folder)) == expected
    with pytest.raises(PolicyError) as refused:
        load_estate(folder)
    assert all(f"/{name}/defs.yaml:{line}: {code}: " in str(refused.value) for name, line, code in expected)


def test_somebody_elses_components_are_left_alone(tmp_path: Path) -> None:
    """A defs.yaml of another component type is no business of ours, whatever it holds."""
    other = "type: elsewhere.Thing\nattributes: {dataset: ledger, whatever: 1}\n"
    assert check_estate(declare(tmp_path, estate=ESTATE, ledger=LEDGER, other=other)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rpo: 30s", "rpo: !thing 30s"),
        ("rpo: 30s", "rpo: 2026-13-45"),
        ("rpo: 30s", "rpo: &me [*me]"),
        ("rpo: 30s", "? [a, b]\n  : 1"),
        ("attributes:\n", "attributes: []\nother:\n"),
        ("dataset: ledger", "dataset: [ledger]"),
        ("dataset: ledger", "dataset: \x00"),
        ("snapshot: {every: 24h, incremental_every: 1h}", "snapshot: 24h"),
        ('owners: ["team:platform"]', "owners: team:platform"),
        ("days: 30", "days: 30.5"),
        ("days: 30", "days: true"),
    ],
)
def test_whatever_yaml_can_hold_ends_in_findings(tmp_path: Path, old: str, new: str) -> None:
    """Tags, impossible dates, aliases of themselves, wrong shapes: findings with a line, never a crash."""
    findings = check_estate(declare(tmp_path, estate=ESTATE, ledger=changed(LEDGER, old, new)))
    assert findings
    assert all(finding.line >= 1 for finding in findings)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_a_declaration_crashes_the_check(data: st.DataObject) -> None:
    """Cut, overwrite or insert anywhere: the verdict is findings or an estate, never an exception of ours."""
    position = data.draw(st.integers(0, len(LEDGER)))
    cut = data.draw(st.integers(0, 30))
    piece = data.draw(st.text(alphabet="{}[]:,&*!|>-#?\"' \n\tab1\x00\ufffe", max_size=8))
    text = LEDGER[:position] + piece + LEDGER[position + cut :]
    documents, findings = read_documents(Path("defs.yaml"), text, frozenset({POSTGRES_TYPE, ESTATE_TYPE}))
    head, _ = read_documents(Path("estate.yaml"), ESTATE, frozenset({ESTATE_TYPE}))
    estate, refused = judge(Path(), [*head, *documents])
    assert findings or refused or estate is not None
