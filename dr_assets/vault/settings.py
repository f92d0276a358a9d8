"""Reading the variables that declarations name: the one way to a value, a path, an address.

What belongs here: saying which variable lacks and what it is for. What stays out: what is done with the values.
"""

from collections.abc import Mapping
from pathlib import Path

from dr_assets.estate.errors import PolicyError


def setting(env: Mapping[str, str], name: str, what: str) -> str:
    """The variable's value; raises PolicyError `vault.setting_missing` where it is unset or empty."""
    value = env.get(name, "")
    if not value:
        hint = f"export {name}=… (for the embedded estate of `make up`: set -a; . .demo/env; set +a)"
        raise PolicyError("vault.setting_missing", f"{name} ({what}) is not set", hint)
    return value


def path_setting(env: Mapping[str, str], name: str, what: str) -> Path:
    """The variable's value as a path."""
    return Path(setting(env, name, what)).expanduser()
