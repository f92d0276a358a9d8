"""An Ed25519 signing key in OpenBao's (or Vault's) transit engine.

What belongs here: version 1 of a transit key of type ed25519. What stays out: entering the server (bao_client.py).
"""

import base64
from typing import Any, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.bao_client import BaoSession
from dr_assets.vault.keys.refusals import refused

_VERSION: Final = 1


class OpenBaoSigningKey:
    """A SigningKey over one transit key.

    A rotated key would be another signer, so version 1 is asked for always: declare a new key instead.
    """

    def __init__(self, session: BaoSession, key: str) -> None:
        self._session = session
        self._key = key
        about = self._run(lambda transit: transit.read_key(name=key, mount_point=session.mount))["data"]
        if about.get("type") != "ed25519" or str(_VERSION) not in about["keys"]:
            raise PolicyError(
                "keys.bad_signing_key", f"transit key {key} is no ed25519 key with version {_VERSION}", "make one"
            )
        self.public_key: bytes = base64.b64decode(about["keys"][str(_VERSION)]["public_key"])

    def __repr__(self) -> str:
        return f"OpenBaoSigningKey({self._key}, {self.public_key.hex()})"

    def sign(self, message: bytes) -> bytes:
        """As the port says."""
        answer = self._run(
            lambda transit: transit.sign_data(
                name=self._key,
                hash_input=base64.b64encode(message).decode("ascii"),
                key_version=_VERSION,
                mount_point=self._session.mount,
            )
        )
        return base64.b64decode(str(answer["data"]["signature"]).rsplit(":", 1)[1])

    def _run(self, work: Any) -> Any:
        try:
            from hvac import exceptions  # noqa: PLC0415 - an extra
        except ImportError:
            return self._session.run(f"signer {self._key}", work)  # says which extra lacks
        try:
            return self._session.run(f"signer {self._key}", work)
        except exceptions.InvalidRequest:
            raise refused(f"signer {self._key}", "the server does not sign with it") from None
