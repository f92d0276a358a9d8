"""Changes of policy: each promise knows in which direction it is weaker, and what changed is on record."""

import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.cli.capture import note_policy
from dr_assets.estate.approvals import ApprovalRule, Approver
from dr_assets.estate.commit import COMMIT_ENV, commit_of
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.key_places import FileKeys, HsmKeys, KeyProviderPlace
from dr_assets.estate.model import Cold, Estate, PostgresDataset, Retention, Sampling, Subjects, ZeroLoss
from dr_assets.estate.promises import WEAKER, changes, is_weaker, promises_of
from dr_assets.vault.retention.policy_change import (
    acknowledge_policy,
    policy_history,
    record_policy,
    unacknowledged,
)
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def estate() -> Estate:
    """The one that ships."""
    return load_estate(default_defs_dir()).only("ledger")


@pytest.fixture
def vault() -> Vault:
    """Empty."""
    return throwaway_vault()


def altered(estate: Estate, **more: Any) -> Estate:
    """With another ledger."""
    return replace(estate, datasets={"ledger": replace(estate.postgres()["ledger"], **more)})


STRONG: dict[str, Any] = {
    "rpo": timedelta(seconds=30), "rto": timedelta(minutes=15), "retention": Retention("compliance", 30, 40),
    "replicas": ("standby",), "sampling": Sampling(DAY, 30 * DAY), "zero_loss": ZeroLoss(None), "exception": None,
    "key_providers": ("hsm", "kms"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "weaker"),
    [
        ("rpo_ms", {"rpo": timedelta(seconds=31)}),
        ("rto_ms", {"rto": timedelta(minutes=16)}),
        ("retention_days", {"retention": Retention("compliance", 29, 40)}),
        ("lock_days", {"retention": Retention("compliance", 30, 39)}),
        ("lock", {"retention": Retention("governance", 30, 40)}),
        ("replicas", {"replicas": ()}),
        ("key_providers", {"key_providers": ("hsm",)}),
        ("sampling_every_ms", {"sampling": Sampling(2 * DAY, 30 * DAY)}),
        ("sampling_whole_in_ms", {"sampling": Sampling(DAY, 31 * DAY)}),
        ("durability", {"zero_loss": None}),
        ("degrade_after_ms", {"zero_loss": ZeroLoss(timedelta(seconds=10))}),
        ("exception", {"exception": "the board agreed"}),
        ("cold_after_ms", {"cold": Cold("DEEP_ARCHIVE", 90 * DAY)}),
    ],
)
def test_each_weakening_is_told_and_its_reverse_is_none(estate: Estate, what: str, weaker: dict[str, Any]) -> None:
    """One promise at a time: the change is named, weaker one way, a strengthening the other."""
    strong = promises_of(altered(estate, **STRONG))
    weak = promises_of(altered(estate, **(STRONG | weaker)))
    there = {change.what: change.is_weaker for change in changes(strong, weak)}
    back = {change.what: change.is_weaker for change in changes(weak, strong)}
    assert there[f"ledger.{what}"]
    assert not back[f"ledger.{what}"]
    assert {name.rpartition(".")[2] for name in there} <= {what, "degrade_after_ms"}


def test_what_comes_and_goes_is_told_as_one(estate: Estate) -> None:
    """A dataset that is gone is one weakening, not one for each of its promises; a new one is none."""
    alone = replace(estate, datasets={})
    (gone,) = changes(promises_of(estate), promises_of(alone))
    assert (gone.what, gone.was, gone.now, gone.is_weaker) == ("datasets", ["ledger"], [], True)
    (come,) = changes(promises_of(alone), promises_of(estate))
    assert not come.is_weaker


def test_every_promise_has_a_direction_or_is_known_to_have_none(estate: Estate) -> None:
    """Who adds a promise says in which direction it is weaker."""
    full = promises_of(altered(estate, **STRONG, cold=Cold("GLACIER", DAY)))
    names = {name.rpartition(".")[2] for name in full}
    assert names - WEAKER.keys() == {"tier", "vault", "place"}
    assert is_weaker("x.lock", "compliance", "something new")
    assert not is_weaker("x.tier", "player_ledger", "kyc_aml")


def test_a_weakening_is_recorded_once_and_listed_until_somebody_stands_for_it(estate: Estate, vault: Vault) -> None:
    """What, from, to, by which commit; the same policy again is no fact; an acknowledgement has a name and a reason."""
    assert record_policy(vault, altered(estate, **STRONG), "c0") == ()
    assert record_policy(vault, altered(estate, **STRONG), "c0") is None
    assert unacknowledged(vault) == []
    weak = altered(estate, **(STRONG | {"rpo": timedelta(seconds=60), "replicas": ()}))
    told = record_policy(vault, weak, "c1")
    assert told is not None
    assert [str(change) for change in told] == [
        "ledger.replicas: from standby to nothing", "ledger.rpo_ms: from 30000 to 60000",
    ]  # fmt: skip
    (waiting,) = unacknowledged(vault)
    assert (waiting.commit, waiting.weakenings) == ("c1", told)
    with pytest.raises(PolicyError, match="nobody's name"):
        acknowledge_policy(vault, acknowledged_by=" ", reason="x")
    assert acknowledge_policy(vault, acknowledged_by="ann", reason="second region moves") == 2
    assert unacknowledged(vault) == []
    assert record_policy(vault, weak, "c1") is None
    with pytest.raises(PolicyError, match="no weakening"):
        acknowledge_policy(vault, acknowledged_by="ann", reason="again")
    assert [is_seen for _, is_seen in policy_history(vault)] == [True, True]


def test_a_strengthening_is_recorded_and_waits_for_nobody(estate: Estate, vault: Vault) -> None:
    """And taking a weakening back does not take it off the list: it was so for a while."""
    record_policy(vault, altered(estate, **STRONG), None)
    longer = Retention("compliance", 60, 60)
    record_policy(vault, altered(estate, **(STRONG | {"retention": longer})), None)
    assert unacknowledged(vault) == []
    record_policy(vault, altered(estate, **STRONG), "oops")
    record_policy(vault, altered(estate, **(STRONG | {"retention": longer})), "back")
    assert [one.commit for one in unacknowledged(vault)] == ["oops"]
    assert len(policy_history(vault)) == 4


def git(folder: Path, *arguments: str) -> None:
    """As somebody."""
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, check=True)


def test_the_commit_is_told_or_asked_of_git(tmp_path: Path) -> None:
    """The variable wins; else the newest commit of the folder, with what isn't committed said; else nobody knows."""
    assert commit_of(tmp_path, {COMMIT_ENV: "abc"}) == "abc"
    assert commit_of(tmp_path, {}) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "defs.yaml").write_text("x")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "y")
    commit = commit_of(tmp_path, {})
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "defs.yaml").write_text("z")
    assert commit_of(tmp_path, {}) == f"{commit}+uncommitted"


def test_datasets_keep_their_own_promises(estate: Estate) -> None:
    """One dataset's change names that dataset alone."""
    ledger: PostgresDataset = estate.postgres()["ledger"]
    two = replace(estate, datasets={"ledger": ledger, "kyc": replace(ledger, name="kyc")})
    other = replace(two, datasets=dict(two.datasets) | {"kyc": replace(ledger, name="kyc", rto=timedelta(hours=9))})
    assert [change.what for change in changes(promises_of(two), promises_of(other))] == ["kyc.rto_ms"]


def test_a_capture_puts_a_changed_policy_on_record_and_waits_for_nothing(
    estate: Estate, vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is weaker is in its log; a vault that is away is a line there, and no end of the capture."""
    monkeypatch.setenv(COMMIT_ENV, "c7")
    note_policy(vault, altered(estate, **STRONG), Path())
    note_policy(vault, altered(estate, **(STRONG | {"replicas": ()})), Path())
    assert "WEAKER: ledger.replicas: from standby to nothing" in caplog.text
    assert [one.commit for one in unacknowledged(vault)] == ["c7"]

    def away(*_: object, **__: object) -> None:
        raise VaultError("vault.unreachable", "nobody there", "start it")

    monkeypatch.setattr(vault.store, "list_versions", away)
    monkeypatch.setattr(vault.store, "put", away)
    note_policy(vault, altered(estate, **STRONG), Path())
    assert "the policy is not recorded" in caplog.text


def test_who_may_approve_and_where_keys_lie_are_promises_too(estate: Estate) -> None:
    """Another key under an approver's name, a folder in an HSM's place, more deletions a day: never unseen."""
    rule = ApprovalRule((Approver("ana", "aa" * 32), Approver("boris", "bb" * 32)), 2, timedelta(hours=24))
    hsm = KeyProviderPlace("main", HsmKeys("MODULE", "token", "PIN", "kek"))
    ring = Subjects(("primary", "standby"), "people-keys", "ID_KEY")
    strong = replace(estate, approvals=rule, providers=(hsm,), subjects=ring)
    swapped = replace(rule, approvers=(rule.approvers[0], Approver("boris", "cc" * 32)))
    plain = KeyProviderPlace("main", FileKeys("DIR"))
    for weak, what in (
        (replace(strong, approvals=swapped), {"approvers"}),
        (replace(strong, approvals=replace(rule, valid_for=timedelta(hours=25))), {"approval_valid_for_ms"}),
        (replace(strong, providers=(plain,)), {"key_providers", "open_key_providers"}),
        (replace(strong, providers=(hsm, replace(plain, name="spare"))), {"open_key_providers"}),
        (replace(strong, subjects=replace(ring, most_a_day=10_000)), {"subjects_most_a_day"}),
    ):
        told = changes(promises_of(strong), promises_of(weak))
        assert {change.what for change in told if change.is_weaker} == what
    first = changes(promises_of(replace(strong, approvals=None, subjects=None)), promises_of(strong))
    assert first
    assert not any(change.is_weaker for change in first)
