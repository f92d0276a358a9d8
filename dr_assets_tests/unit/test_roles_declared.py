"""Roles and approvals as declared: which keys a duty is done with, and what a declaration may not say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dr_assets.cli.doctor import roles as roles_probe
from dr_assets.cli.doctor.patient import Patient, secrets_of
from dr_assets.estate.declarations import check_estate, default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import ROLES, Estate, Role
from dr_assets.vault.connect import client_of, credentials_of

OWN = {"DR_VAULT_PRIMARY_ACCESS_KEY": "own", "DR_VAULT_PRIMARY_SECRET_KEY": "own-secret"}
ENDPOINT = {"DR_VAULT_PRIMARY_ENDPOINT": "https://s3.example.net"}
WRITER = {"DR_VAULT_PRIMARY_WRITER_KEY": "writer", "DR_VAULT_PRIMARY_WRITER_SECRET": "writer-secret"}


@pytest.fixture
def estate() -> Estate:
    """The packaged one, which declares every role."""
    return load_estate(default_defs_dir()).only("ledger")


def test_a_duty_is_done_with_its_own_keys(estate: Estate) -> None:
    """The role's where it is declared and this host has them; the vault's own otherwise, or without a role."""
    place = estate.vaults["primary"]

    def key(env: dict[str, str], role: Role | None) -> str:
        return env.get(credentials_of(place, env, role).access_key_env, "")

    assert key(OWN | WRITER, "writer") == "writer"
    assert key(OWN | WRITER, None) == "own"
    assert key(OWN, "writer") == "own"
    bare = replace(place, roles={})
    assert {credentials_of(bare, OWN | WRITER, role).access_key_env for role in ROLES} == {place.access_key_env}


def test_a_host_without_the_administrators_keys_is_told_which_role_lacks(estate: Estate) -> None:
    """It isn't asked for the administrator's; half a pair is an error, never a reason to take other keys."""
    place = estate.vaults["primary"]
    with pytest.raises(PolicyError, match=r"DR_VAULT_PRIMARY_EXPIRER_KEY .*for its expirer"):
        client_of(place, ENDPOINT | WRITER, "expirer")
    half = {name: value for name, value in WRITER.items() if name.endswith("_KEY")}
    with pytest.raises(PolicyError, match="DR_VAULT_PRIMARY_WRITER_SECRET"):
        client_of(place, ENDPOINT | OWN | half, "writer")


def test_every_roles_variables_are_asked_for_and_masked(estate: Estate) -> None:
    """What a resident process is given names them all, and no output shows one."""
    assert {"DR_VAULT_STANDBY_EXPIRER_KEY", "DR_VAULT_PRIMARY_WRITER_SECRET"} <= set(estate.env_names())
    assert {"own-secret", "writer-secret"} <= set(secrets_of(estate, OWN | WRITER))


@pytest.mark.parametrize(
    ("env", "verdict", "found"),
    [
        (OWN, "warn", "administrator's keys"),
        (WRITER, "ok", "keys of writer on this host"),
        ({}, "warn", "no role's keys"),
        (WRITER | {"DR_VAULT_PRIMARY_EXPIRER_KEY": "writer"}, "bad", "writer and expirer have the same keys"),
        (WRITER | {"DR_VAULT_PRIMARY_READER_KEY": "loose"}, "bad", "may delete versions: reader"),
    ],
)
def test_doctor_says_whether_duties_are_apart(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], verdict: str, found: str
) -> None:
    """Shared keys, a role that may delete, the administrator's keys on a host: each is a line with a hint."""

    class Asked:
        def __init__(self, role: Role) -> None:
            self.role = role

        def delete_version(self, key: str, version_id: str) -> None:
            if env.get(f"DR_VAULT_PRIMARY_{self.role.upper()}_KEY") != "loose":
                raise VaultError("vault.refused_credentials", f"{key} {version_id}", "")

    monkeypatch.setattr(roles_probe, "open_store", lambda *_, role, **__: Asked(role))
    dataset = replace(estate.datasets["ledger"], replicas=())
    (line,) = roles_probe.roles(Patient(estate, dataset, env))
    assert (line.verdict, found in line.found) == (verdict, True), line
    bare = replace(estate, vaults={"primary": replace(estate.vaults["primary"], roles={})})
    (line,) = roles_probe.roles(Patient(bare, dataset, env))
    assert line.verdict == "warn"
    assert "writer, reader" in line.found


APPROVER = "      - {name: NAME, public_key: KEY}\n"
KEYS = {"ana": "a" * 64, "boris": "b" * 64, "short": "c" * 63}


@pytest.mark.parametrize(
    ("approvers", "needed", "valid_for", "finding"),
    [
        (("ana", "boris"), 2, "72h", None),
        (("ana",), 2, "72h", "policy.value"),
        (("ana", "boris"), 1, "72h", "policy.value"),
        (("ana", "boris"), 3, "72h", "policy.approvals"),
        (("ana", "ana"), 2, "72h", "policy.approvals"),
        (("ana", "boris=ana"), 2, "72h", "policy.approvals"),
        (("ana", "short"), 2, "72h", "policy.value"),
        (("ana", "boris"), 2, "31d", "policy.approvals"),
    ],
)
def test_approvals_that_one_person_could_give_are_refused(
    tmp_path: Path, approvers: tuple[str, ...], needed: int, valid_for: str, finding: str | None
) -> None:
    """One approver, one signature, one key under two names: m of n would be an empty word."""
    rows = [APPROVER.replace("NAME", one.split("=")[0]).replace("KEY", KEYS[one.split("=")[-1]]) for one in approvers]
    declared = f"  approvals:\n    needed: {needed}\n    valid_for: {valid_for}\n    approvers:\n{''.join(rows)}"
    assert codes(tmp_path, lambda text: text + declared) == ([finding] if finding else [])


def test_a_role_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """A typo must not leave a duty with the administrator's keys."""
    assert codes(tmp_path, lambda text: text.replace("        roller:", "        rollr:", 1)) == ["policy.unknown_key"]
    value = lambda text: text.replace("DR_VAULT_PRIMARY_WRITER_KEY", "s3cr3t-value")  # noqa: E731 - beside its use
    assert codes(tmp_path, value) == ["policy.value"]


def codes(folder: Path, change: Callable[[str], str]) -> list[str]:
    """What is refused of the packaged declarations after a change of the estate's."""
    for path in default_defs_dir().glob("*/defs.yaml"):
        target = folder / path.parent.name / "defs.yaml"
        target.parent.mkdir(exist_ok=True)
        target.write_text(change(path.read_text()) if path.parent.name == "estate" else path.read_text())
    return sorted({finding.code for finding in check_estate(folder)})
