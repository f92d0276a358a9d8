"""Statements: a leaf says one thing of the vault, as an in-toto Statement v1 in a DSSE envelope, signed.

What belongs here: the bytes of leaves, making and believing them. What stays out: what is worth a leaf (feed.py).

A leaf is canonical JSON of at most 1 KiB. Its subject is an object's name with the SHA-256 of its bytes, or a place
with the SHA-256 over the sorted names of the objects that a batch found there.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, parse_hex
from dr_assets.vault.log.checkpoint import malformed
from dr_assets.vault.log.note import strict_base64
from dr_assets.vault.log.tiles import ENTRY_LIMIT_BYTES
from dr_assets.vault.signing import Signer, Trust

STATEMENT: Final = "https://in-toto.io/Statement/v1"
IN_TOTO: Final = "application/vnd.in-toto+json"
OBJECT: Final = "urn:dr-assets:log:object:v1"
NAMES: Final = "urn:dr-assets:log:names:v1"

SAYS: Final = "says"
STORED_AT: Final = "stored_at"
_SAID_TEXT_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Statement:
    """What a leaf says: `kind` is `OBJECT` or `NAMES`, `sha256` hex, `predicate` the rest by name."""

    kind: str
    name: str
    sha256: str
    predicate: Mapping[str, Json] = field(default_factory=dict)

    def payload(self) -> bytes:
        """The in-toto Statement, canonical."""
        return canonical.encode(
            {
                "_type": STATEMENT,
                "predicate": dict(self.predicate),
                "predicateType": self.kind,
                "subject": [{"digest": {"sha256": self.sha256}, "name": self.name}],
            }
        )


def make_leaf(statement: Statement, signer: Signer) -> bytes:
    """The signed leaf. What the predicate holds beyond 1 KiB is left out: of `says` from its end, then `stored_at`."""
    for predicate in _shorter(statement.predicate):
        payload = Statement(statement.kind, statement.name, statement.sha256, predicate).payload()
        leaf = seal_envelope(payload, IN_TOTO, signer)
        if len(leaf) <= ENTRY_LIMIT_BYTES:
            return leaf
    raise ValueError(f"{statement.name}: no leaf of {ENTRY_LIMIT_BYTES} bytes can say that")


def _shorter(predicate: Mapping[str, Json]) -> Iterable[Mapping[str, Json]]:
    yield predicate
    said = predicate.get(SAYS)
    rest = {name: value for name, value in predicate.items() if name != SAYS}
    if isinstance(said, dict):
        rows = list(said.items())
        while rows:
            rows.pop()
            yield rest | {SAYS: dict(rows)} if rows else rest
    yield {name: value for name, value in rest.items() if name != STORED_AT}


def plain_words(body: Mapping[str, Json]) -> dict[str, Json]:
    """The short scalars of a fact's body: what a leaf may say in clear, the shortest first."""
    short: dict[str, Json] = {
        name: value
        for name, value in body.items()
        if isinstance(value, int | bool) or (isinstance(value, str) and len(value) <= _SAID_TEXT_CHARS)
    }
    return dict(sorted(short.items(), key=lambda row: (len(str(row[1])), row[0])))


def parse_leaf(leaf: bytes, trust: Trust | None) -> Statement:
    """What a leaf says; with `trust` only if one of the trusted signers said it.

    Raises VaultError `log.malformed`, `log.bad_leaf`.
    """
    if len(leaf) > ENTRY_LIMIT_BYTES:
        raise malformed(f"a leaf of {len(leaf)} bytes")
    payload = open_envelope(leaf, IN_TOTO, trust, limit_bytes=ENTRY_LIMIT_BYTES)
    try:
        body = canonical.decode(payload, limit_bytes=ENTRY_LIMIT_BYTES, what="a leaf")
        (subject,) = _list(body["subject"])
        name, kind, predicate = _dict(subject)["name"], body["predicateType"], body["predicate"]
        sha256 = parse_hex(_dict(_dict(subject)["digest"])["sha256"], 32, "a leaf's digest")
    except (KeyError, TypeError, ValueError, VaultError):
        raise malformed("a leaf is no statement of the log") from None
    if body["_type"] != STATEMENT or not isinstance(kind, str) or not isinstance(name, str):
        raise malformed("a leaf is no statement of the log")
    return Statement(kind, name, sha256, _dict(predicate))


def seal_envelope(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """Canonical JSON of a DSSE envelope with one signature; `keyid` is the signer's id."""
    message = _signed_over(payload, payload_type)
    signature = base64.b64encode(signer.sign_raw(message)).decode("ascii")
    # As `canonical.encode` writes it; nothing in here wants escaping, and this is what a million leaves wait for.
    encoded = base64.b64encode(payload).decode("ascii")
    return (
        f'{{"payload":"{encoded}","payloadType":"{payload_type}",'
        f'"signatures":[{{"keyid":"{signer.signer_id}","sig":"{signature}"}}]}}'
    ).encode("ascii")


def open_envelope(data: bytes, payload_type: str, trust: Trust | None, *, limit_bytes: int) -> bytes:
    """An envelope's payload; with `trust` only if signed by one of the trusted.

    Raises VaultError `log.malformed`, `log.bad_leaf`.
    """
    try:
        if len(data) > limit_bytes:
            raise malformed(f"an envelope of {len(data)} bytes")
        body = json.loads(data.decode("ascii"))
        (row,) = body["signatures"]
        payload, signature = strict_base64(body["payload"]), strict_base64(row["sig"])
        signer_id = row["keyid"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise malformed("no DSSE envelope with one signature") from None
    if payload is None or signature is None or canonical.encode(body) != data or body.keys() != _FIELDS:
        raise malformed("a DSSE envelope that is not canonical")
    if body["payloadType"] != payload_type or not isinstance(signer_id, str):
        raise malformed("a DSSE envelope of another type")
    if trust is not None:
        _verify(_signed_over(payload, payload_type), signature, trust.public_keys.get(signer_id), signer_id)
    return payload


_FIELDS: Final = {"payload", "payloadType", "signatures"}


def _signed_over(payload: bytes, payload_type: str) -> bytes:
    """What DSSE signs: payload and type, each with its length."""
    # It brings every key service's SDK along, which no other start of a command should pay for.
    from securesystemslib.dsse import Envelope  # noqa: PLC0415 - see above

    return Envelope(payload, payload_type, {}).pae()


def _verify(message: bytes, signature: bytes, public_key: bytes | None, signer_id: str) -> None:
    if public_key is None:
        raise VaultError(
            "log.bad_leaf",
            f"a statement is signed by {signer_id[:64]}, which the trust file does not list",
            "if that writer is yours, add its public key to the trust file; else a stranger wrote it",
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        raise VaultError(
            "log.bad_leaf", f"a statement's signature by {signer_id} does not hold", "it was altered: take another copy"
        ) from None


def _dict(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError
    return value
