"""From a declared signer and the environment to one that signs.

What belongs here: which kind of key it is, and making a new vault's. What stays out: the kinds themselves.
"""

from collections.abc import Mapping

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.key_places import BaoKeys, HsmKeys
from dr_assets.estate.model import Estate
from dr_assets.vault.keys.places import kms_of, session_of, token_of
from dr_assets.vault.settings import path_setting
from dr_assets.vault.signing import Signer, SigningKey
from dr_assets.vault.signing.kms_key import KmsSigningKey
from dr_assets.vault.signing.openbao_key import OpenBaoSigningKey
from dr_assets.vault.signing.pkcs11_key import Pkcs11SigningKey

_WHO = "the signer"


def signer_of(estate: Estate, env: Mapping[str, str]) -> Signer:
    """This host's signer. One in a token or service is asked for its public key now.

    Raises PolicyError for a setting or key that lacks, VaultError `keys.unreachable`.
    """
    place = estate.signer
    if place is None:
        return Signer.load(path_setting(env, estate.signing_key_env, "the signing key"))
    key: SigningKey
    if isinstance(place, HsmKeys):
        key = Pkcs11SigningKey(token_of(place, env, _WHO), place.key)
    elif isinstance(place, BaoKeys):
        key = OpenBaoSigningKey(session_of(place, env, _WHO), place.key)
    else:
        key = KmsSigningKey(kms_of(place, env, _WHO), place.key)
    return Signer(key)


def init_signer(estate: Estate, env: Mapping[str, str]) -> str | None:
    """Make a new vault's signing key where that is ours to do (a file, a token); what was done, None if it is there."""
    place = estate.signer
    if place is None:
        path = path_setting(env, estate.signing_key_env, "the signing key")
        if path.exists():
            return None
        Signer.generate().save(path)
        return f"signing key: created in {path}"
    try:
        signer_of(estate, env)
    except PolicyError as error:
        if error.code != "keys.no_signing_key" or not isinstance(place, HsmKeys):
            raise
        Pkcs11SigningKey.create(token_of(place, env, _WHO), place.key)
        return f"signing key: {place.key} created in token {place.token}"
    return None
