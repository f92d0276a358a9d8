"""The providers of an estate, and which of them each dataset is wrapped by.

What belongs here: who wraps, and who is asked to unwrap. What stays out: any one provider, key objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dr_assets.vault.keys.provider import KeyProvider


@dataclass(frozen=True, slots=True)
class Providers:
    """Every provider at hand, and by dataset the names (as key objects have them) of those that wrap.

    A dataset without an entry is wrapped by all. Opening asks any that may know: a dataset's choice may have changed.
    """

    every: tuple[KeyProvider, ...]
    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, *providers: KeyProvider) -> "Providers":
        """These, for every dataset."""
        return cls(providers)

    def of_dataset(self, dataset: str) -> tuple[KeyProvider, ...]:
        """Those that have to hold a wrapping of each of the dataset's data keys."""
        names = self.chosen.get(dataset)
        return self.every if names is None else tuple(one for one in self.every if one.name in names)

    def able(self, name: str) -> tuple[KeyProvider, ...]:
        """Those that may open what `name` wrapped: itself, then others of its kind (a provider may be renamed)."""
        kind = kind_of(name)
        same = [one for one in self.every if kind_of(one.name) == kind]
        return tuple(sorted(same, key=lambda one: one.name != name))


def kind_of(name: str) -> str:
    """`openbao` of `openbao/second`: what the wrapped bytes are, by docs/format.md §4."""
    return name.partition("/")[0]


def provider_name(kind: str, declared: str) -> str:
    """A provider's name in key objects: its kind, and its declared name where that says more."""
    return kind if declared in {"", kind} else f"{kind}/{declared}"
