"""Retention regimes, sampling and cold classes as declared: the strictest holds, and what can't be is refused."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dr_assets.cli.app import app
from dr_assets.components.labels import dataset_labels
from dr_assets.estate.declarations import check_estate, load_estate
from dr_assets.estate.keeping import needed_warm
from dr_assets.estate.model import Cold, PostgresDataset, Regime, Retention, Sampling
from dr_assets.estate.regimes import LOCK_CAP, longest_days, shipped_regimes, strictest
from dr_assets.vault.retention import LockRules
from dr_assets.vault.retention.cold_rule import cold_rule
from dr_assets_tests.unit.test_estate_declarations import ESTATE, LEDGER, changed, declare

DAY = timedelta(days=1)
OWN = '  regimes:\n    ours: {days: 90, mode: governance, source: "our own rule"}\n'


def declared(folder: Path, ledger: str, *, estate: str = ESTATE) -> Path:
    """A folder with these two."""
    return declare(folder, estate=estate, ledger=ledger)


def with_retention(text: str) -> str:
    """The ledger with another retention."""
    return changed(LEDGER, "{lock: compliance, days: 30}", text)


def test_what_ships_is_unconfirmed_and_names_its_source() -> None:
    """Nobody may take our reading of a law for advice."""
    for regime in shipped_regimes().values():
        assert regime.confirmed is None
        assert len(regime.source) > 20
        assert regime.days <= longest_days(DAY, followed=True)
    assert {"eu_aml", "mt_pmlftr", "pci_dss_logs"} <= shipped_regimes().keys()


@pytest.mark.parametrize(
    ("text", "days", "lock_days", "mode"),
    [
        ("{lock: governance, days: 30}", 30, 30, "governance"),
        ("{lock: governance, days: 30, regimes: [ours]}", 90, 90, "governance"),
        ("{lock: governance, days: 100, regimes: [ours]}", 100, 100, "governance"),
        ("{lock: compliance, days: 30, regimes: [ours]}", 90, 90, "compliance"),
        ("{lock: governance, days: 30, regimes: [ours, eu_aml]}", 1827, 1827, "compliance"),
        ("{lock: governance, days: 30, lock_days: 120, regimes: [ours]}", 90, 120, "governance"),
    ],
)
def test_the_strictest_of_all_holds(tmp_path: Path, text: str, days: int, lock_days: int, mode: str) -> None:
    """The most days and the stronger mode, of the dataset's own and of every regime that it names."""
    estate = load_estate(declared(tmp_path, with_retention(text), estate=ESTATE + OWN))
    kept = estate.postgres()["ledger"].retention
    assert (kept.days, kept.lock_days, kept.lock) == (days, lock_days, mode)
    assert LockRules.of(estate).length("ledger", "part") == timedelta(days=lock_days) + DAY + 7 * DAY


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("{lock: compliance, days: 30, regimes: [nonesuch]}", "policy.regime", "no regime `nonesuch`"),
        ("{lock: compliance, days: 30, lock_days: 60, regimes: [ours]}", "policy.lock", "(regime ours)"),
        ("{lock: compliance, days: 4376}", "policy.lock_cap", "at most 4375 days fit"),
        ("{lock: compliance, days: 30, lock_days: 4400}", "policy.lock_cap", "4384 days"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers(tmp_path: Path, text: str, code: str, told: str) -> None:
    """An unknown regime, a lock shorter than what a regime asks for, a lock over the cap."""
    (finding,) = check_estate(declared(tmp_path, with_retention(text), estate=ESTATE + OWN))
    assert finding.code == code
    assert told in finding.reason


def test_the_cap_leaves_room_for_what_fits() -> None:
    """The number in the message is the last that is accepted; incrementals cost an interval more."""
    assert longest_days(DAY, followed=False) == LOCK_CAP.days - 8
    assert longest_days(DAY, followed=True) == LOCK_CAP.days - 9
    rules = LockRules({"d": (Retention("compliance", 4375, 4375), DAY)})
    assert rules.length("d", "full") == LOCK_CAP


def test_a_shipped_regime_is_weakened_only_by_somebody_with_a_name(tmp_path: Path) -> None:
    """Fewer days or a weaker mode need `confirmed`; more days don't."""
    for own, passes in (
        ("eu_aml: {days: 1000, mode: compliance, source: x}", False),
        ("eu_aml: {days: 1827, mode: governance, source: x}", False),
        ('eu_aml: {days: 1000, mode: compliance, source: x, confirmed: "J. Borg, 2026-11-02"}', True),
        ("eu_aml: {days: 2000, mode: compliance, source: x}", True),
    ):
        found = check_estate(declared(tmp_path, LEDGER, estate=ESTATE + f"  regimes:\n    {own}\n"))
        assert [finding.code for finding in found] == ([] if passes else ["policy.regime"])


def test_days_and_modes_alone() -> None:
    """Pure: no regime changes nothing."""
    short, long = Regime("a", 10, "compliance", "x"), Regime("b", 99, "governance", "y")
    assert strictest(30, "governance", []) == (30, "governance")
    assert strictest(30, "governance", [short]) == (30, "compliance")
    assert strictest(30, "governance", [short, long]) == (99, "compliance")


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("  sampling: {every: 12h, whole_in: 10d}\n", []),
        ("  sampling: {every: 40d}\n", ["policy.sampling"]),
        ("  sampling: {every: 1m}\n", ["policy.sampling"]),
        ("  cold: {storage_class: DEEP_ARCHIVE, after: 90d}\n", []),
        ("  cold: {storage_class: DEEP_ARCHIVE, after: 9d}\n", ["policy.cold"]),
        ("  cold: {storage_class: GLACIER, after: 9d, thaw: Expedited}\n", []),
        ("  cold: {storage_class: DEEP_ARCHIVE, after: 90d, thaw: Expedited}\n", ["policy.cold"]),
        ("  cold: {storage_class: ICE, after: 90d}\n", ["policy.value"]),
    ],
)
def test_sampling_and_cold_are_judged(tmp_path: Path, line: str, codes: list[str]) -> None:
    """What nobody could keep up, and what would make the RTO a lie."""
    found = check_estate(declared(tmp_path, changed(LEDGER, "  rto: 15m\n", "  rto: 15m\n" + line)))
    assert [finding.code for finding in found] == codes


def test_a_cold_class_is_refused_with_hours_against_the_rto(tmp_path: Path) -> None:
    """The age that the newest recovery point may need, the thaw, the objective."""
    text = changed(LEDGER, "  rto: 15m\n", "  rto: 15m\n  cold: {storage_class: GLACIER, after: 9d}\n")
    (finding,) = check_estate(declared(tmp_path, text))
    assert needed_warm(DAY, followed=True) == 9 * DAY
    assert all(word in finding.reason for word in ("GLACIER", "of 9d", "up to 5 h", "rto of 15m"))


def test_defaults_and_the_lifecycle_rule(tmp_path: Path) -> None:
    """A day and a month without a word; a rule for base backups' parts alone, in whole days, that deletes nothing."""
    ledger: PostgresDataset = load_estate(declared(tmp_path, LEDGER)).datasets["ledger"]
    assert (ledger.sampling, ledger.cold) == (Sampling(DAY, 30 * DAY), None)
    assert cold_rule("casino", ledger) is None
    text = changed(LEDGER, "  rto: 15m\n", "  rto: 15m\n  cold: {storage_class: DEEP_ARCHIVE, after: 90d}\n")
    cold = load_estate(declared(tmp_path, text)).datasets["ledger"]
    assert cold.cold == Cold("DEEP_ARCHIVE", 90 * DAY)
    rule = cold_rule("casino", cold)
    assert rule is not None
    assert rule["Filter"] == {"Prefix": "casino/ledger/base-"}
    assert rule["Transitions"] == [{"StorageClass": "DEEP_ARCHIVE", "Days": 90}]
    assert not {key for key in rule if "Expiration" in key}


def test_the_command_shows_who_confirmed_what(tmp_path: Path) -> None:
    """UNCONFIRMED is in capitals for people, null for machines; a dataset's effective days stand beside its regimes."""
    own = '  regimes:\n    ours: {days: 90, mode: governance, source: x, confirmed: "J. Borg"}\n'
    folder = declared(
        tmp_path, with_retention("{lock: governance, days: 30, regimes: [ours, eu_aml]}"), estate=ESTATE + own
    )
    told = CliRunner().invoke(app, ["estate", "regimes", "--defs", str(folder)])
    assert told.exit_code == 0
    assert "UNCONFIRMED" in told.output
    assert "ledger: 1827 days" in told.output
    rows = json.loads(CliRunner().invoke(app, ["estate", "regimes", "--defs", str(folder), "--json"]).output)
    by_name = {row["name"]: row for row in rows["regimes"]}
    assert (by_name["ours"]["confirmed"], by_name["eu_aml"]["confirmed"]) == ("J. Borg", None)
    assert by_name["eu_aml"]["datasets"] == ["ledger"]
    assert rows["datasets"]["ledger"]["unconfirmed"] == ["eu_aml"]
    checked = CliRunner().invoke(app, ["estate", "check", "--defs", str(folder)])
    assert "eu_aml (1827 d, UNCONFIRMED)" in checked.output
    tags = dataset_labels(load_estate(folder).postgres()["ledger"]).tags
    assert (tags["dr_assets/regime_eu_aml"], tags["dr_assets/regime_ours"]) == ("unconfirmed", "confirmed")
