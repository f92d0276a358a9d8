"""`--mapping NAME=FILE`: what a provider's columns mean, for files that the command line names.

What belongs here: taking these options apart, refusing what would be passed over. What stays out: reading a mapping.
"""

from collections.abc import Iterable
from pathlib import Path

from dr_assets.estate.errors import PolicyError


def mappings_of(given: Iterable[str], option: str, names: Iterable[str]) -> dict[str, Path]:
    """The file for each name. Raises PolicyError `cli.mapping` for a name that no given files have."""
    known, found = list(dict.fromkeys(names)), dict[str, Path]()
    for text in given:
        name, _, file = text.partition("=")
        if name not in known or not file:
            raise PolicyError(
                "cli.mapping",
                f"{option} '{text[:80]}' is for none of the files that are read",
                f"write {option} NAME=FILE; there are {', '.join(known) or 'none: --provider-files names them'}",
            )
        if name in found:
            raise PolicyError("cli.mapping", f"{option} names two files for {name}", "leave one of them out")
        found[name] = Path(file)
    return found
