"""Which vault is copied into which, as the datasets declare it.

What belongs here: reading that off the estate. What stays out: opening vaults.
"""

from dataclasses import dataclass
from typing import Final

from dr_assets.estate.model import Estate

# What belongs to no single dataset and is opened, or believed, by nobody without it.
SHARED: Final = ("vault", "subjects")


@dataclass(frozen=True, slots=True)
class Route:
    """From vault `source` to vault `replica`: the declared datasets among them, sorted."""

    source: str
    replica: str
    datasets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source} to {self.replica}"


def routes_of(estate: Estate) -> tuple[Route, ...]:
    """Every pair of vaults of which a dataset declares the second as a replica, sorted."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for name, dataset in sorted(estate.datasets.items()):
        for replica in dataset.replicas:
            pairs.setdefault((dataset.vault, replica), []).append(name)
    return tuple(Route(source, replica, tuple(names)) for (source, replica), names in sorted(pairs.items()))
