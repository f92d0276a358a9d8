"""Wrapping to an offline age recipient: one more way in, for the day on which every other provider is lost.

What belongs here: a KeyProvider that everybody can wrap with and only the offline identity opens. What stays out: who
declares it (the ring of people's keys does), and the escrow of data keys (life/escrow.py).

Each record carries its own such wrapping, so whoever erases the record erases this with it: a file with all people's
keys, as the escrow of data keys is one, could not forget anybody.
"""

import hashlib
from typing import Final

import pyrage
from pyrage import x25519

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.refusals import wrong_key

NAME: Final = "age"
_KEK_ID_LABEL: Final = b"dr_assets v1 age kek id\0"


class AgeProvider:
    """A KeyProvider over one recipient (`age1…`); it opens only with the text of the `identity`."""

    def __init__(self, recipient: str, identity: x25519.Identity | None = None) -> None:
        try:
            self._to = x25519.Recipient.from_str(recipient)
        except pyrage.RecipientError:
            raise PolicyError(
                "escrow.bad_recipient",
                "that is no age X25519 recipient",
                "`age-keygen` on an offline machine prints one that begins with age1",
            ) from None
        self._identity = identity
        self.name = NAME
        self.kek_id = hashlib.sha256(_KEK_ID_LABEL + recipient.encode("ascii")).hexdigest()[:32]

    @property
    def opens(self) -> bool:
        """Whether the identity is at hand."""
        return self._identity is not None

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says; the context lies beside the secret, since age binds nothing else."""
        return Wrapping(self.kek_id, pyrage.encrypt(context.encoded() + b"\0" + secret, [self._to]))

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says."""
        if self._identity is None:
            raise PolicyError(
                "keys.offline", "the age identity is kept offline", "`dr-assets keys subjects rewrap --identity FILE`"
            )
        try:
            opened = bytes(pyrage.decrypt(wrapping.wrapped, [self._identity]))
        except pyrage.DecryptError:
            raise wrong_key(context, "the age identity does not open it") from None
        bound, _, secret = opened.partition(b"\0")
        if bound != context.encoded():
            raise wrong_key(context, "it was wrapped for something else")
        return secret
