"""Unwrapping by whichever provider answers.

What belongs here: whom to ask, in which order, and telling a dead provider from a wrong key. What stays out: reading
the wrappings, caching what they hold.
"""

from collections.abc import Sequence

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.keys.derive import KEY_BYTES, DataKey
from dr_assets.vault.keys.provider import KeyProvider
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.refusals import UNREACHABLE, WRONG_KEY, wrong_key
from dr_assets.vault.keys.wrappings import Stored


class Opener:
    """Asks providers, and remembers which gave no answer so that others are asked first; threads may share it."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._silent: set[str] = set()

    def in_order(self, stored: Sequence[Stored]) -> list[Stored]:
        """One data key's wrappings as to be tried: newest first, those of providers that gave no answer last."""
        return sorted(stored, key=lambda one: (self._is_silent(one.held.provider), -one.held.context.generation))

    def _is_silent(self, name: str) -> bool:
        able = self._providers.able(name)
        return bool(able) and all(one.name in self._silent for one in able)

    def prove(self, stored: Sequence[Stored], data_key: DataKey) -> None:
        """Raise unless every wrapping opens to this data key.

        A provider that lets us wrap only is believed, as long as another one opens.
        """
        refusals: list[DrError] = []
        for one in stored:
            try:
                opened = self.open(one)
            except PolicyError as refusal:
                refusals.append(refusal)
                continue
            if opened != data_key:
                raise VaultError("vault.not_stored", f"{one.key} holds another key", "don't trust this store")
        if len(refusals) == len(stored):
            raise refusals[0]

    def open(self, stored: Stored) -> DataKey:
        """The data key that it holds.

        Raises VaultError `vault.wrong_key` when nobody at hand opens it, `keys.unreachable` when somebody who might
        gave no answer, PolicyError when somebody who might won't, or isn't set up on this host.
        """
        refusals: list[DrError] = []
        for provider in self._providers.able(stored.held.provider):
            try:
                return self._ask(provider, stored)
            except DrError as refusal:
                refusals.append(refusal)
        if refusals:
            raise weightiest(refusals)
        names = ", ".join(one.name for one in self._providers.every)
        raise wrong_key(stored.held.context, f"{stored.held.provider} wrapped it, declared is {names}")

    def _ask(self, provider: KeyProvider, stored: Stored) -> DataKey:
        try:
            secret = provider.unwrap(stored.held.wrapping, stored.held.context)
        except VaultError as error:
            (self._silent.add if error.code == UNREACHABLE else self._silent.discard)(provider.name)
            raise
        self._silent.discard(provider.name)
        data_key = DataKey.of(secret) if len(secret) == KEY_BYTES else None
        if data_key is None or data_key.key_id != stored.key.system_id:
            raise VaultError(WRONG_KEY, f"{stored.key} wraps another key than it says", "its writer was faulty")
        return data_key


def weightiest(refusals: Sequence[DrError]) -> DrError:
    """The refusal to tell, of several: no answer says that it may open later, then what an operator can mend."""

    def weight(refusal: DrError) -> int:
        return 0 if refusal.code == UNREACHABLE else 1 if isinstance(refusal, PolicyError) else 2

    return min(refusals, key=weight)
