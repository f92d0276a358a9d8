"""What may be said about a feed of a known format: the few things that differ from account to account.

What belongs here: reading that YAML. What stays out: the mapping of a CSV of one's own (mapping.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.providers.times import known_zone

_KEYS: Final = {"zone", "reference", "payouts"}


@dataclass(frozen=True)
class Options:
    """What differs from account to account.

    `zone`: of dates that don't say theirs. `reference`: the column by which the ledger knows a payment, if it isn't the
    provider's own id. `payouts`: what the provider calls money that goes to one customer, if its names don't say so.
    """

    zone: str = "UTC"
    reference: str | None = None
    payouts: tuple[str, ...] = ()


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping's YAML. Raises PolicyError (`reconciliation.mapping`)."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise invalid(path, f"it cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise invalid(path, "it is no YAML mapping")
    return content


def invalid(path: Path, why: str) -> PolicyError:
    """A mapping that is none."""
    return PolicyError(
        "reconciliation.mapping", f"{path.name}: {why}", "docs/provider-files.md describes every key, with an example"
    )


def load_options(path: Path | None) -> Options:
    """The options in a file; without one, none. Raises PolicyError (`reconciliation.mapping`)."""
    if path is None:
        return Options()
    content = read_yaml(path)
    if set(content) - _KEYS:
        raise invalid(path, f"there is no key {', '.join(sorted(set(content) - _KEYS))} (there are {', '.join(_KEYS)})")
    payouts = content.get("payouts", [])
    if not isinstance(payouts, list) or not all(isinstance(each, str) for each in payouts):
        raise invalid(path, "payouts must be a list of names")
    return Options(known_zone(str(content.get("zone", "UTC"))), content.get("reference"), tuple(payouts))
