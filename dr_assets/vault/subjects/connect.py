"""From a declared ring of people's keys and the environment to an opened one.

What belongs here: reading the variables that the declaration names, and the first set-up. What stays out: what is done
with the ring.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Estate, Role, Subjects
from dr_assets.vault.connect import open_store, open_vault
from dr_assets.vault.keys.age_provider import AgeProvider
from dr_assets.vault.keys.life.escrow import parse_identity
from dr_assets.vault.keys.secret_file import read_secret, write_secret
from dr_assets.vault.subjects.ids import ID_KEY_BYTES, SubjectIds
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.records import DATASET
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.s3_shelf import S3Shelf


def open_ring(
    estate: Estate,
    env: Mapping[str, str],
    *,
    signing: bool = True,
    identity: str | None = None,
    patient: bool = False,
    role: Role | None = None,
) -> SubjectRing:
    """The declared ring; every bucket is asked whether it is fit, of which without `signing` one may be away.

    `role` is the duty it is opened for: a capture adds keys as the writer, a restore opens them as the reader; to
    delete, back up and wrap anew is for the vaults' own pairs. `patient`: one may be away though something is signed,
    for what goes on in the others (`finish`).
    `identity` is the text of the offline age identity, for the day on which no other provider opens anything.

    Raises PolicyError `subjects.undeclared`, `subjects.bucket_unfit`, and what `open_vault` raises.
    """
    declared = declared_of(estate)
    stores = [(name, open_store(estate, name, env, role=role)) for name in declared.vaults]
    vaults = tuple(open_vault(estate, name, env, store=store, signing=signing, role=role) for name, store in stores)
    shelves = tuple(S3Shelf(store.client, declared.bucket, name) for name, store in stores)
    require_fit(shelves, signing=signing and not patient)
    policy = ErasurePolicy(declared.erasure_grace, declared.most_at_once, declared.most_a_day)
    providers = (*vaults[0].keys.providers.of_dataset(DATASET), *_escrow_of(declared, identity))
    return SubjectRing(vaults, shelves, providers, policy)


def init_ring(estate: Estate, env: Mapping[str, str]) -> list[str]:
    """Create what is not there yet: the buckets, the key of subject ids; returns what it did."""
    declared = declared_of(estate)
    said: list[str] = []
    for shelf in _shelves(estate, declared, env):
        created = shelf.create_bucket()
        shelf.require_fit()
        said.append(
            f"bucket {shelf.bucket} of {shelf.region}: {'created' if created else 'there already'}, versioned, no lock"
        )
    path = _id_key_path(declared, env)
    if not path.exists():
        write_secret(path, os.urandom(ID_KEY_BYTES).hex().encode("ascii") + b"\n")
        said.append(f"key of subject ids: created in {path}; keep a copy, without it nobody finds a person's key")
    return said


class Askable(Protocol):
    """A bucket that says whether it may hold people's keys."""

    def require_fit(self) -> None:
        """Raise PolicyError `subjects.bucket_unfit`, or VaultError for one that is away."""
        ...


def require_fit(shelves: Sequence[Askable], *, signing: bool) -> None:
    """Ask each. Nothing is sealed while a region is away; what is sealed opens by any that answers."""
    away: list[VaultError] = []
    for shelf in shelves:
        try:
            shelf.require_fit()
        except VaultError as error:
            if signing or error.code != "vault.unreachable":
                raise
            away.append(error)
    if len(away) == len(shelves):
        raise away[0]


def subject_ids(estate: Estate, env: Mapping[str, str]) -> SubjectIds:
    """What turns personal identifiers into subject ids; raises PolicyError `subjects.bad_id_key`."""
    return SubjectIds(subject_id_key(estate, env))


def subject_id_key(estate: Estate, env: Mapping[str, str]) -> bytes:
    """The key of subject ids, for them and for the escrow; raises PolicyError `subjects.bad_id_key`."""
    path = _id_key_path(declared_of(estate), env)
    try:
        key = bytes.fromhex(read_secret(path, "key of subject ids").decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != ID_KEY_BYTES:
        raise PolicyError(
            "subjects.bad_id_key", f"{path} does not hold {2 * ID_KEY_BYTES} hex digits", "restore it from its copy"
        )
    return key


def declared_of(estate: Estate) -> Subjects:
    """The declaration; raises PolicyError `subjects.undeclared`."""
    if estate.subjects is None:
        raise PolicyError(
            "subjects.undeclared",
            f"estate {estate.name} declares no ring of people's keys",
            "declare `subjects: {vaults: […], bucket: …, id_key_env: …}`, see docs/keys.md",
        )
    return estate.subjects


def _escrow_of(declared: Subjects, identity: str | None) -> tuple[AgeProvider, ...]:
    """The offline recipient, by which every record is wrapped as well where one is declared."""
    if declared.escrow_recipient is None:
        return ()
    return (AgeProvider(declared.escrow_recipient, parse_identity(identity) if identity else None),)


def _shelves(estate: Estate, declared: Subjects, env: Mapping[str, str]) -> tuple[S3Shelf, ...]:
    return tuple(S3Shelf(open_store(estate, name, env).client, declared.bucket, name) for name in declared.vaults)


def _id_key_path(declared: Subjects, env: Mapping[str, str]) -> Path:
    value = env.get(declared.id_key_env, "")
    if not value:
        raise PolicyError(
            "vault.setting_missing",
            f"{declared.id_key_env} (the file with the key of subject ids) is not set",
            f"export {declared.id_key_env}=…",
        )
    return Path(value).expanduser()
