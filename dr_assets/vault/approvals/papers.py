"""A request for approval and a signature on it: what they hold, what is signed, and as files.

What belongs here: pure values, their one encoding, and checking a file against itself. What stays out: who may sign and
what is on record (record.py).

What is signed is the canonical JSON of the request under a domain of its own, and the request holds the digest of the
list of objects with their version ids: whoever signs has signed that list and no other.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.signing import Signer

DOMAIN: Final = b"dr-assets-approval/1"
ID_DIGITS: Final = 32
PAPER_LIMIT_BYTES: Final = 64 << 20
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks to be allowed. Times are in the canonical text form, `digest` is hex, `objects` a count."""

    estate: str
    vault: str
    dataset: str
    action: str
    digest: str
    objects: int
    requester: str
    reason: str
    requested_at: str
    expires_at: str

    @property
    def request_id(self) -> str:
        """Names this request and no other: 32 hex digits over all of it."""
        return hashlib.sha256(self.encoded()).hexdigest()[:ID_DIGITS]

    def encoded(self) -> bytes:
        """What is signed."""
        return canonical.encode(self.to_json())

    def to_json(self) -> dict[str, Json]:
        """The fields by name."""
        return asdict(self)

    def has_expired(self, now: datetime) -> bool:
        """Whether nothing may be deleted on its strength any more."""
        return format_time(now) >= self.expires_at

    @classmethod
    def of(cls, body: Json) -> "Request":
        """The request that `to_json` wrote. Raises PolicyError `approvals.malformed`."""
        fields = {name: kind for name, kind in cls.__annotations__.items() if name in cls.__dataclass_fields__}
        if not isinstance(body, dict) or set(body) != set(fields):
            raise malformed("no request for approval")
        if not all(isinstance(body[name], kind) for name, kind in fields.items()):
            raise malformed("a field of the request has another type than it should")
        return cls(**body)  # type: ignore[arg-type]  # each field's type was compared above


@dataclass(frozen=True, slots=True)
class Signature:
    """One approver's word on one request: raw public key and Ed25519 signature, in hex."""

    request_id: str
    public_key: str
    signature: str

    def to_json(self) -> dict[str, Json]:
        """The fields by name."""
        return asdict(self)

    def is_of(self, request: Request) -> bool:
        """Whether this key signed this request."""
        message = DOMAIN + b"\0" + request.encoded()
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), message)
        except (ValueError, InvalidSignature):
            return False
        return self.request_id == request.request_id

    @classmethod
    def of(cls, body: Json) -> "Signature":
        """The signature that `to_json` wrote. Raises PolicyError `approvals.malformed`."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(body, dict) or not names <= set(body):
            raise malformed("no signature on a request for approval")
        return cls(**{name: str(body[name]) for name in names})


def digest_of(action: str, objects: Sequence[str]) -> str:
    """SHA-256 in hex over the action and the whole list; the order in which it is given doesn't matter."""
    return hashlib.sha256(canonical.encode({"action": action, "objects": sorted(objects)})).hexdigest()


def sign(request: Request, signer: Signer) -> Signature:
    """An approver's signature. Nothing but the request is asked for: neither the vault nor a network."""
    return Signature(request.request_id, signer.public_key.hex(), signer.sign(DOMAIN, request.encoded()).hex())


def papers(request: Request, objects: Sequence[str]) -> bytes:
    """The file that approvers get: the request, and the list that it is about, a line an object."""
    body = {"approval_request": _FORMAT, "request": request.to_json(), "objects": sorted(objects)}
    return json.dumps(body, indent=1, sort_keys=True).encode("ascii") + b"\n"


def open_papers(data: bytes) -> tuple[Request, list[str]]:
    """Request and list out of `papers`. Raises PolicyError `approvals.malformed`, `approvals.list_changed`."""
    body = read_json(data)
    objects = body.get("objects")
    if body.get("approval_request") != _FORMAT or not isinstance(objects, list):
        raise malformed("no request for approval of a version that this program knows")
    request, listed = Request.of(body.get("request")), [str(line) for line in objects]
    if digest_of(request.action, listed) != request.digest or len(listed) != request.objects:
        raise list_changed(f"the list in the file is not the one that {plain(request.requester)} asked for")
    return request, listed


def read_json(data: bytes) -> Mapping[str, Json]:
    """A JSON object out of a file. Raises PolicyError `approvals.malformed`."""
    try:
        body = json.loads(data[:PAPER_LIMIT_BYTES])
    except (ValueError, RecursionError):
        raise malformed("not JSON") from None
    if not isinstance(body, dict):
        raise malformed("not a JSON object")
    return body


def plain(text: str) -> str:
    """`text` for people's eyes: what moves the cursor, wipes a line or turns text round is spelled out.

    Whoever asks chooses the words that approvers read.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def malformed(what: str) -> PolicyError:
    """A paper that is none."""
    return PolicyError("approvals.malformed", what, "take the file as `dr-assets approvals request` or `sign` wrote it")


def list_changed(what: str) -> PolicyError:
    """The list is not the one that was agreed to."""
    return PolicyError("approvals.list_changed", what, "ask for approval anew: `dr-assets approvals request`")
