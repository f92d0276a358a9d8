"""From a declared place of keys and the environment to what talks to it: tokens, clients, sessions.

What belongs here: what key providers and signers over one kind of place share. What stays out: wrapping, signing.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dr_assets.estate.key_places import BaoKeys, HsmKeys, KmsKeys
from dr_assets.estate.transport import require_tls
from dr_assets.vault.keys.bao_client import BaoSession, Entry
from dr_assets.vault.keys.kms_provider import kms_client
from dr_assets.vault.keys.pkcs11_token import Token, token_at
from dr_assets.vault.settings import path_setting, setting

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient


def token_of(place: HsmKeys, env: Mapping[str, str], who: str) -> Token:
    """The token, not asked yet; raises PolicyError `vault.setting_missing`."""
    for name in place.library_envs:
        # The vendor's library reads the process's own environment, whatever mapping we were given.
        os.environ.setdefault(name, setting(env, name, f"what the library of {who} reads"))
    module = path_setting(env, place.module_env, f"the PKCS#11 library of {who}")
    return token_at(module, place.token, setting(env, place.pin_env, f"the PIN of {who}"))


def kms_of(place: KmsKeys, env: Mapping[str, str], who: str) -> "KMSClient":
    """A client of KMS; raises PolicyError `vault.setting_missing`, `policy.transport`."""
    endpoint = setting(env, place.endpoint_env, f"the endpoint of {who}") if place.endpoint_env else None
    if endpoint is not None:
        require_tls(endpoint, str(place.endpoint_env))
    access_key = setting(env, place.access_key_env, f"the access key of {who}") if place.access_key_env else None
    secret_key = setting(env, place.secret_key_env, f"the secret key of {who}") if place.secret_key_env else None
    return kms_client(place.region, endpoint=endpoint, access_key=access_key, secret_key=secret_key)


def session_of(place: BaoKeys, env: Mapping[str, str], who: str) -> BaoSession:
    """A session that enters at its first use; raises PolicyError `vault.setting_missing`, `policy.transport`."""
    address = setting(env, place.address_env, f"the address of {who}")
    require_tls(address, place.address_env)

    def secret(name: str | None, what: str) -> str | None:
        return None if name is None else setting(env, name, f"the {what} of {who}")

    entry = Entry(
        secret(place.token_env, "token"), secret(place.role_id_env, "role id"), secret(place.secret_id_env, "secret id")
    )
    ca = str(path_setting(env, place.ca_env, f"the certificates of {who}")) if place.ca_env else None
    return BaoSession(address, entry, mount=place.mount, ca=ca)
