"""An Ed25519 signing key that never leaves a PKCS#11 token.

What belongs here: finding it by its label, making it, EdDSA in the token. What stays out: sessions (pkcs11_token.py).
"""

import os
from typing import TYPE_CHECKING, Any, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.pkcs11_token import Token
from dr_assets.vault.keys.refusals import refused

if TYPE_CHECKING:
    from collections.abc import Callable

    import pkcs11

PUBLIC_BYTES: Final = 32
_ED25519_OID: Final = "1.3.101.112"


class Pkcs11SigningKey:
    """A SigningKey over the key pair labelled `label`."""

    def __init__(self, token: Token, label: str) -> None:
        self._token = token
        self._label = label
        # Asked once: all that is signed names it.
        self.public_key: bytes = self._run(lambda session: _public_bytes(self._find(session, private=False)))

    def __repr__(self) -> str:
        return f"Pkcs11SigningKey({self._token.label}, {self._label}, {self.public_key.hex()})"

    @classmethod
    def create(cls, token: Token, label: str) -> "Pkcs11SigningKey":
        """Make the pair, its private half never to be read out."""

        def work(session: "pkcs11.Session") -> None:
            import pkcs11  # noqa: PLC0415 - an extra
            from pkcs11.util.ec import encode_named_curve_parameters  # noqa: PLC0415 - as above

            curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_ED25519_OID)}
            domain = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, curve, local=True)
            domain.generate_keypair(
                mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                id=os.urandom(16),
                label=label,
                store=True,
                private_template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
            )

        _ran(token, label, work)
        return cls(token, label)

    def sign(self, message: bytes) -> bytes:
        """As the port says."""
        import pkcs11  # noqa: PLC0415 - an extra

        signature: bytes = self._run(
            lambda session: bytes(self._find(session, private=True).sign(message, mechanism=pkcs11.Mechanism.EDDSA))
        )
        return signature

    def _run(self, work: "Callable[[pkcs11.Session], bytes]") -> Any:
        return _ran(self._token, self._label, work)

    def _find(self, session: "pkcs11.Session", *, private: bool) -> Any:
        import pkcs11  # noqa: PLC0415 - an extra

        kind = pkcs11.ObjectClass.PRIVATE_KEY if private else pkcs11.ObjectClass.PUBLIC_KEY
        found = list(session.get_objects({pkcs11.Attribute.CLASS: kind, pkcs11.Attribute.LABEL: self._label}))
        if len(found) != 1:
            raise PolicyError(
                "keys.no_signing_key",
                f"token {self._token.label} holds {len(found)} keys labelled {self._label}, expected 1",
                "`dr-assets vault init` makes one for a new vault",
            )
        return found[0]


def _ran(token: Token, label: str, work: "Callable[[pkcs11.Session], Any]") -> Any:
    who = f"signer {label}"
    try:
        from pkcs11 import exceptions  # noqa: PLC0415 - an extra
    except ImportError:
        return token.run(who, work)  # says which extra lacks
    try:
        return token.run(who, work)
    except exceptions.PKCS11Error as error:
        raise refused(who, f"token {token.label}: {type(error).__name__}") from None


def _public_bytes(public: Any) -> bytes:
    """The point, which tokens wrap in an OCTET STRING (PKCS#11 v3.0 §2.3.3), or give as it is."""
    import pkcs11  # noqa: PLC0415 - an extra

    return bytes(public[pkcs11.Attribute.EC_POINT])[-PUBLIC_BYTES:]
