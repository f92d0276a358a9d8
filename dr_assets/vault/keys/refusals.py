"""What every key provider says in the same words.

What belongs here: one function an error. What stays out: deciding which it is. No message holds a key, a PIN, a token
or what a server answered beyond its own code.
"""

from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.keys.provider import WrapContext

UNREACHABLE: Final = "keys.unreachable"
WRONG_KEY: Final = "vault.wrong_key"


def wrong_key(context: WrapContext, why: str) -> VaultError:
    """The provider answered, and this is not a wrapping that it opens in this context."""
    return VaultError(
        WRONG_KEY,
        f"data key {context.key_id} of {context.dataset} can't be unwrapped: {why}",
        "the keys folder, token or key service must be the one of the estate that wrote this vault",
    )


def unreachable(provider: str, why: str) -> VaultError:
    """The provider gave no answer, or none in time: it says nothing about any key."""
    return VaultError(
        UNREACHABLE,
        f"key provider {provider} does not answer: {why}",
        "check that it runs and can be reached from here; another provider of the dataset opens the same keys",
    )


def refused(provider: str, why: str) -> PolicyError:
    """The provider knows us and says no, or lacks what the declaration names."""
    return PolicyError(
        "keys.refused", f"key provider {provider} refuses: {why}", "docs/keys.md says what each provider has to allow"
    )


def extra_missing(kind: str, package: str, extra: str) -> PolicyError:
    """The library that talks to this kind of provider isn't installed."""
    return PolicyError(
        "keys.extra_missing",
        f"a key provider of kind {kind} needs {package}, which is not installed",
        f"pip install 'dr_assets[{extra}]'",
    )


def retired(provider: str, kek_id: str) -> PolicyError:
    """A key-encryption key that must not wrap anything any more."""
    return PolicyError(
        "keys.kek_retired",
        f"key-encryption key {kek_id} of provider {provider} is retired",
        "give the provider a new key-encryption key, then `dr-assets keys rotate`",
    )


def not_everywhere(dataset: str, key_id: str, why: str) -> VaultError:
    """A data key that isn't wrapped by every provider and read back in every region: nothing is sealed under it."""
    return VaultError(
        "keys.not_everywhere",
        f"data key {key_id} of {dataset} is not stored everywhere it has to be: {why}",
        "data keys in use go on; for a new one every provider and region of the dataset has to answer",
    )
