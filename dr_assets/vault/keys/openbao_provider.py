"""Key-encryption keys in OpenBao's (or Vault's) transit engine: aes256-gcm96, the context as associated data.

What belongs here: wrap, unwrap, which version of the key it was. What stays out: entering the server (bao_client.py).
"""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from dr_assets.vault.keys.bao_client import BaoSession, hvac_exceptions
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.refusals import refused, wrong_key

_KEK_ID_LABEL: Final = b"dr_assets v1 openbao kek id\0"
_CIPHERTEXT: Final = re.compile(r"vault:v(\d{1,9}):[A-Za-z0-9+/=]+", re.ASCII)


class OpenBaoKeyProvider:
    """A KeyProvider over one transit key. Its newest version wraps, all that the server keeps unwrap."""

    def __init__(self, session: BaoSession, key: str, *, name: str = "openbao") -> None:
        self.name = name
        self._session = session
        self._key = key

    def __repr__(self) -> str:
        return f"OpenBaoKeyProvider({self.name}, {self._key})"

    @property
    def kek_id(self) -> str:
        """As the port says: an HMAC by the newest version of the key. Needs `update` on hmac."""
        return self._id_of(None)

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says."""
        exceptions = hvac_exceptions()
        try:
            answer = self._session.run(
                self.name,
                lambda transit: transit.encrypt_data(
                    name=self._key,
                    plaintext=base64.b64encode(secret).decode("ascii"),
                    associated_data=base64.b64encode(context.encoded()).decode("ascii"),
                    mount_point=self._session.mount,
                ),
            )
        except exceptions.InvalidRequest:
            raise refused(self.name, f"key {self._key} does not encrypt with associated data") from None
        text = str(answer["data"]["ciphertext"])
        found = _CIPHERTEXT.fullmatch(text)
        if found is None:
            raise refused(self.name, "what it encrypts isn't transit's ciphertext")
        return Wrapping(self._id_of(int(found[1])), text.encode("ascii"))

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says."""
        exceptions = hvac_exceptions()
        found = _CIPHERTEXT.fullmatch(wrapping.wrapped.decode("ascii", errors="replace"))
        if found is None:
            raise wrong_key(context, "the wrapping isn't transit's ciphertext")
        try:
            answer = self._session.run(
                self.name,
                lambda transit: transit.decrypt_data(
                    name=self._key,
                    ciphertext=found[0],
                    associated_data=base64.b64encode(context.encoded()).decode("ascii"),
                    mount_point=self._session.mount,
                ),
            )
        except exceptions.InvalidRequest:
            raise wrong_key(context, f"the server's key {self._key} does not open it in this context") from None
        return base64.b64decode(answer["data"]["plaintext"])

    def renew(self) -> str:
        """Give the transit key its next version and wrap with it from now on: its id. Needs `update` on rotate."""
        self._asked(lambda transit: transit.rotate_key(name=self._key, mount_point=self._session.mount))
        return self.kek_id

    def _id_of(self, version: int | None) -> str:
        """What only this version of this key can make; a server in another place with a key of that name other."""
        answer = self._asked(
            lambda transit: transit.generate_hmac(
                name=self._key,
                hash_input=base64.b64encode(_KEK_ID_LABEL).decode("ascii"),
                key_version=version,
                mount_point=self._session.mount,
            )
        )
        return hashlib.sha256(_KEK_ID_LABEL + str(answer["data"]["hmac"]).encode()).hexdigest()[:32]

    def _asked(self, work: Callable[[Any], Any]) -> Any:
        exceptions = hvac_exceptions()
        try:
            return self._session.run(self.name, work)
        except exceptions.InvalidRequest:
            raise refused(self.name, f"the server has no key {self._key} that this can be done with") from None
