"""Which commit the declarations are of: told by whoever deployed them, else asked of git.

What belongs here: that one question. What stays out: what a commit is needed for.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

COMMIT_ENV: Final = "DR_ASSETS_COMMIT"
_TIMEOUT_S: Final = 10


def commit_of(defs_dir: Path, env: Mapping[str, str]) -> str | None:
    """The commit named by DR_ASSETS_COMMIT, else the newest that touched the folder; None where nobody knows.

    What lies in the folder and isn't committed is told by `+uncommitted` behind it.
    """
    if env.get(COMMIT_ENV):
        return env[COMMIT_ENV]
    commit = _git(defs_dir, "log", "-1", "--format=%H", "--", ".")
    if not commit:
        return None
    return f"{commit}+uncommitted" if _git(defs_dir, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *arguments: str) -> str:
    """What git says, "" where there is no git, no repository or no answer."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
