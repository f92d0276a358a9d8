"""From a declared vault and the environment to an opened one.

What belongs here: reading the variables that the declaration names, and the first set-up. What stays out: what is
done with the vault.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.key_rules import demo_only
from dr_assets.estate.model import Credentials, Estate, Role, VaultPlace
from dr_assets.estate.transport import require_tls
from dr_assets.vault.keys.life.choice import follow_facts
from dr_assets.vault.keys.providers import init_providers, providers_of
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.keys.wrappings import Replica
from dr_assets.vault.retention import MICRO_LOCK, LockRules
from dr_assets.vault.settings import path_setting, setting
from dr_assets.vault.signing import Trust
from dr_assets.vault.signing.declared import init_signer, signer_of
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.refusals import unprotected
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.vault import Vault

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CA_ENV: Final = "DR_ASSETS_S3_CA"


def utc_now() -> datetime:
    """The host's clock, in UTC."""
    return datetime.now(UTC)


def open_vault(
    estate: Estate,
    vault_name: str,
    env: Mapping[str, str],
    *,
    client: "S3Client | None" = None,
    store: ObjectStore | None = None,
    signing: bool = True,
    role: Role | None = None,
) -> Vault:
    """The declared vault; the store is not asked anything yet.

    `role` is the duty it is opened for, whose identity is used where one is declared (docs/roles.md); None is the
    vault's own. `client` replaces the one made from the environment, `store` the place itself (a bundle, say). Without
    `signing` nothing can be sealed, and the signing key isn't read. Raises PolicyError `vault.setting_missing`,
    `vault.bad_endpoint`, `vault.bad_ca`, `policy.transport` and those of the key files.
    """
    store = store or open_store(estate, vault_name, env, role=role, client=client)
    signer = signer_of(estate, env) if signing else None
    trust = Trust.load(path_setting(env, estate.trust_file_env, "the trusted signers"))
    locks = LockRules.of(estate)
    keys = KeyRing(
        store=store,
        estate=estate.name,
        providers=providers_of(estate, env),
        trust=trust,
        signer=signer,
        locks=locks,
        clock=utc_now,
        replicas=_replicas(estate, vault_name, env, role),
    )
    vault = Vault(
        store=store,
        estate=estate.name,
        name=vault_name,
        keys=keys,
        trust=trust,
        signer=signer,
        locks=locks,
        clock=utc_now,
    )
    return follow_facts(vault)


def _replicas(
    estate: Estate, vault_name: str, env: Mapping[str, str], role: Role | None
) -> Callable[[str], Sequence[Replica]]:
    """The other regions that a dataset's keys have to lie in, as long as this vault is its first region."""

    @cache
    def opened(name: str) -> Replica:
        return Replica(name, cache(lambda: open_store(estate, name, env, role=role)))

    def of(dataset: str) -> Sequence[Replica]:
        declared = estate.datasets.get(dataset)
        mine = [declared] if declared else list(estate.datasets.values())  # facts of the estate go wherever data goes
        names = [name for one in mine if one.vault == vault_name for name in one.replicas]
        return [opened(name) for name in dict.fromkeys(names)]

    return of


def init_vault(
    estate: Estate, vault_name: str, env: Mapping[str, str], *, client: "S3Client | None" = None
) -> list[str]:
    """Create what is not there yet: bucket, key-encryption key, signing key, trust file; returns what it did.

    Nothing that exists is changed. Raises VaultError `vault.bucket_unprotected` for a bucket without Object Lock.
    """
    store = open_store(estate, vault_name, env, client=client)
    strictest = any(dataset.retention.lock == "compliance" for dataset in estate.datasets.values())
    created = store.create_bucket("COMPLIANCE" if strictest else "GOVERNANCE", MICRO_LOCK.days)
    state = store.bucket_state()
    if not (state.versioned and state.object_lock):
        raise unprotected(store.bucket)
    said = [f"bucket {store.bucket}: {'created' if created else 'there already'}, versioned, Object Lock on"]
    if state.default_lock_days is None:
        said.append(f"bucket {store.bucket}: has NO default lock as a net under every put")
    return said + _init_keys(estate, env)


def _init_keys(estate: Estate, env: Mapping[str, str]) -> list[str]:
    said = init_providers(estate, env)
    note = demo_only(estate)
    said += [f"NOTE: {note}"] if note else []
    made = init_signer(estate, env)
    said += [made] if made else []
    signer = signer_of(estate, env)
    trust_file = path_setting(env, estate.trust_file_env, "the trusted signers")
    if not trust_file.exists():
        trust_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Trust.of(signer).save(trust_file, name=f"{estate.name} writer")
        said.append(f"trust file: created in {trust_file}, lists {signer.signer_id}")
    if signer.signer_id not in Trust.load(trust_file).public_keys:
        said.append(f"NOTE: {trust_file} does not list this host's signer {signer.signer_id}")
    return said


def open_store(
    estate: Estate,
    vault_name: str,
    env: Mapping[str, str],
    *,
    role: Role | None = None,
    client: "S3Client | None" = None,
) -> S3Store:
    """The declared vault's bucket alone, for one duty; nothing is asked yet. Raises as `open_vault`."""
    place = estate.vaults.get(vault_name)
    if place is None:
        raise PolicyError(
            "vault.unknown",
            f"the estate declares no vault '{vault_name}'",
            f"declared: {', '.join(sorted(estate.vaults))}",
        )
    return S3Store(client or client_of(place, env, role), place.bucket)


def ca_file(env: Mapping[str, str]) -> str | None:
    """The file of certificates to believe instead of the system's, None unless one is set and not empty.

    Raises PolicyError `vault.bad_ca` for a file that cannot be read or holds no certificate.
    """
    path = env.get(CA_ENV) or None
    if path is not None:
        try:
            ssl.create_default_context(cafile=path)
        except OSError:
            raise PolicyError(
                "vault.bad_ca", f"{CA_ENV} names {path}, which holds no certificates", "name a PEM file, or unset it"
            ) from None
    return path


def credentials_of(place: VaultPlace, env: Mapping[str, str], role: Role | None) -> Credentials:
    """The identity for a duty: the role's, or the vault's own where none is declared or this host was given none.

    To fall back on the vault's own gives nobody a right that its environment does not hold already; `doctor` says so.
    """
    own = Credentials(place.access_key_env, place.secret_key_env)
    declared = None if role is None else place.roles.get(role)
    if declared is None:
        return own
    given = any(env.get(name) for name in (declared.access_key_env, declared.secret_key_env))
    return declared if given or not env.get(own.access_key_env) else own


def client_of(place: VaultPlace, env: Mapping[str, str], role: Role | None) -> "S3Client":
    """A client with the identity for a duty. Raises PolicyError as `open_vault` does."""
    pair, whose = credentials_of(place, env, role), f"vault '{place.name}'" + (f" for its {role}" if role else "")
    endpoint = setting(env, place.endpoint_env, f"the endpoint of vault '{place.name}'")
    if not endpoint.lower().startswith(("http://", "https://")):
        raise _bad_endpoint(place)
    require_tls(endpoint, place.endpoint_env)  # the declaration names the variable only; its value shows here
    try:
        return make_client(
            endpoint,
            setting(env, pair.access_key_env, f"the access key of {whose}"),
            setting(env, pair.secret_key_env, f"the secret key of {whose}"),
            region=place.s3_region,
            ca=ca_file(env),
        )
    except ValueError:
        raise _bad_endpoint(place) from None


def _bad_endpoint(place: VaultPlace) -> PolicyError:
    return PolicyError(
        "vault.bad_endpoint",
        f"{place.endpoint_env} holds no address of an S3 store",
        "for example https://s3.example.com",
    )
