"""Probes of the roles: whose keys this host holds, whether duties are apart, whether a store refuses what it should.

What belongs here: asking with each role's keys. What stays out: the matrix of all calls (docs/roles.md), which is
tested elsewhere: here one harmless call stands for it, the deletion of something that isn't there.
"""

from collections.abc import Iterator
from typing import Final

from dr_assets.cli.doctor.line import Line
from dr_assets.cli.doctor.patient import Patient
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import ROLES, Role, VaultPlace
from dr_assets.vault.connect import open_store

NOTHING: Final = "doctor-asks-whether-this-could-be-deleted"
NO_VERSION: Final = "null"  # the id that every store knows, of an object from before versioning


def roles(patient: Patient) -> Iterator[Line]:
    """One line a vault of the dataset. Raises VaultError when the store is away."""
    for name in (patient.dataset.vault, *patient.dataset.replicas):
        yield _roles_of(patient, patient.estate.vaults[name])


def _roles_of(patient: Patient, place: VaultPlace) -> Line:
    check = f"roles {place.name}"
    held = _held(patient, place)
    apart = [role for role in ROLES if role in place.roles]
    if len(apart) < len(ROLES):
        lacking = ", ".join(role for role in ROLES if role not in place.roles)
        hint = "make an identity for each duty and declare `roles`: docs/roles.md"
        return Line(check, "warn", f"not apart, done with the vault's own keys: {lacking}", hint)
    shared = _shared(patient, place, held)
    if shared:
        return Line(check, "bad", f"{' and '.join(shared)} have the same keys", "give each duty an identity of its own")
    loose = [role for role in held if role != "expirer" and _may_delete(patient, place, role)]
    if loose:
        hint = "give it the policy that `dr-assets roles policy` prints, and no other"
        return Line(check, "bad", f"may delete versions: {', '.join(loose)}", hint)
    own = patient.env.get(place.access_key_env)
    if own:
        found = "the administrator's keys are set on this host, which can do everything that a lock doesn't refuse"
        return Line(check, "warn", found, f"unset {place.access_key_env}; only `vault init` and legal holds need it")
    if not held:
        return Line(check, "warn", "this host has no role's keys", "set those of its duties: docs/roles.md")
    return Line(check, "ok", f"apart; keys of {', '.join(held)} on this host; deletions refused to all but the expirer")


def _held(patient: Patient, place: VaultPlace) -> list[Role]:
    return [role for role in ROLES if role in place.roles and patient.env.get(place.roles[role].access_key_env)]


def _shared(patient: Patient, place: VaultPlace, held: list[Role]) -> list[Role]:
    """The first two or more duties that one identity does."""
    by_key: dict[str, list[Role]] = {}
    for role in held:
        by_key.setdefault(patient.env[place.roles[role].access_key_env], []).append(role)
    return next((same for same in by_key.values() if len(same) > 1), [])


def _may_delete(patient: Patient, place: VaultPlace, role: Role) -> bool:
    store = open_store(patient.estate, place.name, patient.env, role=role)
    try:
        store.delete_version(f"{patient.estate.name}/{NOTHING}", NO_VERSION)
    except VaultError as error:
        if error.code == "vault.refused_credentials":
            return False
        raise
    return True
