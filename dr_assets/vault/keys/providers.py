"""From declared key providers and the environment to providers that wrap and unwrap.

What belongs here: one maker a kind, and what a host without some provider's settings can still do. What stays out: the
declaration's rules (estate/key_rules.py), the providers themselves.
"""

from collections.abc import Mapping
from typing import NoReturn

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.key_places import BaoKeys, FileKeys, HsmKeys, KeyProviderPlace
from dr_assets.estate.model import Estate
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.kms_provider import KmsKeyProvider
from dr_assets.vault.keys.openbao_provider import OpenBaoKeyProvider
from dr_assets.vault.keys.pkcs11_provider import Pkcs11KeyProvider
from dr_assets.vault.keys.places import kms_of, session_of, token_of
from dr_assets.vault.keys.provider import KeyProvider, WrapContext, Wrapping
from dr_assets.vault.keys.provider_set import Providers, provider_name
from dr_assets.vault.settings import path_setting


class LackingProvider:
    """A declared provider that this host can't use, and why: others go on opening, nothing new is wrapped."""

    def __init__(self, name: str, why: PolicyError) -> None:
        self.name = name
        self.why = why

    @property
    def kek_id(self) -> str:
        """Raises why this host can't use it."""
        self._refuse()

    def wrap(self, _secret: bytes, _context: WrapContext) -> Wrapping:
        """As `kek_id`."""
        self._refuse()

    def unwrap(self, _wrapping: Wrapping, _context: WrapContext) -> bytes:
        """As `kek_id`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise PolicyError(self.why.code, f"key provider {self.name}: {self.why.found}", self.why.hint)


def providers_of(estate: Estate, env: Mapping[str, str]) -> Providers:
    """Every declared provider, and each dataset's choice; none is asked anything yet.

    One that this host has no settings for stays silent as long as another is usable: a second region's host may hold
    its own region's secrets only. Raises PolicyError of the first when none is usable.
    """
    every = [_usable_or_lacking(declared, env) for declared in estate.key_providers]
    lacking = [one for one in every if isinstance(one, LackingProvider)]
    if len(lacking) == len(every):
        raise lacking[0].why
    names = {one.name: name_of(one) for one in estate.key_providers}
    chosen = {
        dataset.name: tuple(names[name] for name in dataset.key_providers)
        for dataset in estate.datasets.values()
        if dataset.key_providers is not None
    }
    return Providers(tuple(every), chosen)


def name_of(declared: KeyProviderPlace) -> str:
    """How key objects name a declared provider."""
    return provider_name(declared.place.kind, declared.name)


def provider_of(declared: KeyProviderPlace, env: Mapping[str, str]) -> KeyProvider:
    """One provider, not asked yet; raises PolicyError for a setting that lacks, and those of the key files."""
    name, place = name_of(declared), declared.place
    who = f"key provider '{declared.name}'"
    if isinstance(place, FileKeys):
        return FileKeyProvider(path_setting(env, place.dir_env, "the key-encryption keys"), name=name)
    if isinstance(place, HsmKeys):
        return Pkcs11KeyProvider(token_of(place, env, who), place.key, name=name)
    if isinstance(place, BaoKeys):
        return OpenBaoKeyProvider(session_of(place, env, who), place.key, name=name)
    return KmsKeyProvider(kms_of(place, env, who), place.key, name=name)


def init_providers(estate: Estate, env: Mapping[str, str]) -> list[str]:
    """Make a new vault's first key-encryption keys where that is ours to do: in folders and in tokens.

    Keys of services are made with their policies, by whoever runs them (docs/keys.md). Nothing that exists is changed.
    """
    said: list[str] = []
    for declared in estate.key_providers:
        place = declared.place
        if isinstance(place, FileKeys):
            folder = path_setting(env, place.dir_env, "the key-encryption keys")
            if not any(folder.glob("kek-*.hex")):
                FileKeyProvider.create(folder)
                said.append(f"key-encryption key: created in {folder}")
        elif isinstance(place, HsmKeys):
            provider = Pkcs11KeyProvider(token_of(place, env, declared.name), place.key, name=name_of(declared))
            if not provider.has_kek():
                said.append(f"key-encryption key: {provider.renew()} created in token {place.token}")
        else:
            said.append(f"key-encryption key: {provider_of(declared, env).kek_id} of {name_of(declared)} answers")
    return said


def _usable_or_lacking(declared: KeyProviderPlace, env: Mapping[str, str]) -> KeyProvider:
    try:
        return provider_of(declared, env)
    except PolicyError as why:
        return LackingProvider(name_of(declared), why)
