"""A throwaway software HSM: SoftHSM2 tokens in a folder, for demonstrations and tests.

What belongs here: finding the library, making tokens. What stays out: keys in them, and any claim of safety: its keys
lie in files.

The library reads `SOFTHSM2_CONF` once a process and sees the tokens of that moment: make all of them first.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dr_assets.engines.errors import EngineError
from dr_assets.estate.errors import PolicyError

MODULE_SETTING: Final = "DR_ASSETS_SOFTHSM"
CONF_ENV: Final = "SOFTHSM2_CONF"
_MODULES: Final = ("softhsm/libsofthsm2.so", "x86_64-linux-gnu/softhsm/libsofthsm2.so", "pkcs11/libsofthsm2.so")
_ROOTS: Final = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"))


def find_module(env: Mapping[str, str] | None = None) -> Path:
    """The library: by setting, or where distributions put it; raises PolicyError `engine.no_programs`."""
    env = os.environ if env is None else env
    named = env.get(MODULE_SETTING)
    candidates = [Path(named)] if named else [root / name for root in _ROOTS for name in _MODULES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None or shutil.which("softhsm2-util") is None:
        raise PolicyError(
            "engine.no_programs",
            "no SoftHSM2 found (libsofthsm2.so and softhsm2-util)",
            f"install your distribution's softhsm2, or set {MODULE_SETTING} to its library",
        )
    return found


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """Tokens below `folder`, which only its owner can enter; `pin` opens each."""

    folder: Path
    module: Path
    pin: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    @property
    def conf(self) -> Path:
        """What `SOFTHSM2_CONF` has to name in the process that uses the library."""
        return self.folder / "softhsm2.conf"

    def make(self, *labels: str) -> None:
        """Make these tokens; raises EngineError `engine.failed`."""
        tokens = self.folder / "tokens"
        tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        for label in labels:
            # A throwaway token's PIN may be seen in a process list: whoever sees it can read the token's files too.
            made = subprocess.run(
                ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", self.pin, "--pin", self.pin],  # noqa: S607 - found on PATH, as find_module says
                env={**os.environ, CONF_ENV: str(self.conf)},
                capture_output=True,
                text=True,
                check=False,
                timeout=180,
            )
            if made.returncode != 0:
                raise EngineError("engine.failed", f"no token {label}: {made.stderr.strip()}", "see SoftHSM2's manual")
