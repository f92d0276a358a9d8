"""Key-encryption keys that never leave a hardware security module: AES-256 in a PKCS#11 token.

What belongs here: `{key}-0001`, `{key}-0002` … in one token; the highest number wraps, all unwrap, none can be read.
What stays out: sessions and PINs (pkcs11_token.py), signing keys.
"""

import hashlib
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.aead_wrap import NONCE_BYTES
from dr_assets.vault.keys.pkcs11_token import Token, pkcs11_exceptions
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.refusals import refused, unreachable, wrong_key

if TYPE_CHECKING:
    import pkcs11

ID_BYTES: Final = 16
KEY_BITS: Final = 256
TAG_BITS: Final = 128
Result = TypeVar("Result")
_KEK_ID_LABEL: Final = b"dr_assets v1 pkcs11 kek id\0"


class Pkcs11KeyProvider:
    """A KeyProvider over the AES keys of one token whose labels are `{key}-NNNN`."""

    def __init__(self, token: Token, key: str, *, name: str = "pkcs11") -> None:
        self.name = name
        self.token = token
        self._key = key
        self._label = re.compile(rf"{re.escape(key)}-(\d{{4}})", re.ASCII)

    def __repr__(self) -> str:
        return f"Pkcs11KeyProvider({self.name}, {self.token.label}, {self._key})"

    @property
    def kek_id(self) -> str:
        """As the port says: from the CKA_ID of the key with the highest number."""
        return self._ran(lambda session: _kek_id(self._current(session)))

    def has_kek(self) -> bool:
        """Whether the token holds any key of ours."""
        return self._ran(lambda session: bool(self._keks(session)))

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says: AES-GCM in the token, the context as associated data."""

        def work(session: "pkcs11.Session") -> Wrapping:
            kek = self._current(session)
            nonce = os.urandom(NONCE_BYTES)
            return Wrapping(_kek_id(kek), nonce + bytes(kek.encrypt(secret, **_gcm(nonce, context))))

        return self._ran(work)

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says."""
        exceptions = pkcs11_exceptions()
        nonce, sealed = wrapping.wrapped[:NONCE_BYTES], wrapping.wrapped[NONCE_BYTES:]

        def work(session: "pkcs11.Session") -> bytes:
            kek = next((one for one in self._keks(session) if _kek_id(one) == wrapping.kek_id), None)
            if kek is None:
                raise wrong_key(context, f"token {self.token.label} holds no key {wrapping.kek_id}")
            return bytes(kek.decrypt(sealed, **_gcm(nonce, context)))

        try:
            return self.token.run(self.name, work)
        except exceptions.PKCS11Error as error:
            # Tokens have no common answer to a bad tag (SoftHSM: a general error), so ask whether they live.
            if self.token.lives(self.name):
                raise wrong_key(context, f"the wrapping fails authentication ({type(error).__name__})") from None
            raise unreachable(self.name, f"token {self.token.label}: {type(error).__name__}") from None

    def renew(self) -> str:
        """Make the token's next key-encryption key, never to be read out, and wrap with it from now on: its id."""

        def work(session: "pkcs11.Session") -> str:
            import pkcs11  # noqa: PLC0415 - an extra

            numbers = [int(found[1]) for one in _secret_keys(session) if (found := self._label.fullmatch(one.label))]
            made = session.generate_key(
                pkcs11.KeyType.AES,
                KEY_BITS,
                label=f"{self._key}-{max(numbers, default=0) + 1:04d}",
                id=os.urandom(ID_BYTES),
                store=True,
                template={
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                    pkcs11.Attribute.ENCRYPT: True,
                    pkcs11.Attribute.DECRYPT: True,
                    pkcs11.Attribute.WRAP: False,
                    pkcs11.Attribute.UNWRAP: False,
                },
            )
            return _kek_id(made)

        return self._ran(work)

    def _ran(self, work: "Callable[[pkcs11.Session], Result]") -> Result:
        exceptions = pkcs11_exceptions()
        try:
            return self.token.run(self.name, work)
        except exceptions.PKCS11Error as error:
            raise refused(self.name, f"token {self.token.label}: {type(error).__name__}") from None

    def _current(self, session: "pkcs11.Session") -> Any:
        keks = self._keks(session)
        if not keks:
            raise PolicyError(
                "keys.no_kek",
                f"token {self.token.label} holds no key {self._key}-0001",
                "`dr-assets vault init` makes one for a new vault; an old one's must come back from the HSM's backup",
            )
        return keks[-1]

    def _keks(self, session: "pkcs11.Session") -> list[Any]:
        """Ours in the token, by number; one that could be read out is refused."""
        import pkcs11  # noqa: PLC0415 - an extra

        found = sorted(
            (one for one in _secret_keys(session) if self._label.fullmatch(one.label)), key=lambda one: str(one.label)
        )
        for one in found:
            if one[pkcs11.Attribute.EXTRACTABLE] or not one[pkcs11.Attribute.SENSITIVE]:
                raise PolicyError(
                    "keys.extractable",
                    f"{one.label} in token {self.token.label} can be read out of it",
                    "make a sensitive key that is not extractable, and rotate to it",
                )
        return found


def _secret_keys(session: "pkcs11.Session") -> list[Any]:
    import pkcs11  # noqa: PLC0415 - an extra

    wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES}
    return list(session.get_objects(wanted))


def _kek_id(kek: Any) -> str:
    return hashlib.sha256(_KEK_ID_LABEL + bytes(kek.id)).hexdigest()[:32]


def _gcm(nonce: bytes, context: WrapContext) -> dict[str, Any]:
    import pkcs11  # noqa: PLC0415 - an extra

    return {
        "mechanism": pkcs11.Mechanism.AES_GCM,
        "mechanism_param": pkcs11.GCMParams(nonce, context.encoded(), TAG_BITS),
    }
