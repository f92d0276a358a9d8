"""What a witness is asked and when it may cosign (C2SP tlog-witness): bytes in, a verdict out.

What belongs here: the request's bytes and the rules, in their order. What stays out: remembering (witness_book.py),
HTTP (witness_server.py), asking (witness_client.py).
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.merkle import EMPTY_ROOT, verify_consistency
from dr_assets.vault.log.note import Note, NoteVerifier, parse_note, strict_base64, verify_note

Evidence = Literal["fork", "unproven"]
PROOF_LINES_LIMIT: Final = 63
REQUEST_LIMIT_BYTES: Final = 1 << 20
HASH_BYTES: Final = 32
SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")


class RefusedError(Exception):
    """A witness doesn't cosign: the answer's HTTP status, why, and its own size where that would help the asker.

    `evidence` is of what a key of the log signed: `fork` proves that the log shows two histories, `unproven` may.
    """

    def __init__(
        self, status: HTTPStatus, why: str, *, size: int | None = None, evidence: Evidence | None = None
    ) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.size = size
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size that the witness is thought to know, the proof from it on, and the new signed checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old_size}", *(base64.b64encode(node).decode("ascii") for node in self.proof), "", ""]
        return "\n".join(lines).encode("ascii") + self.note

    @classmethod
    def parse(cls, body: bytes) -> "AddCheckpoint":
        """Raises RefusedError (400)."""
        head, blank, note = body.partition(b"\n\n")
        try:
            first, *nodes = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise _bad_request("the lines before the checkpoint are not ASCII") from None
        old = _OLD.fullmatch(first)
        proof = [strict_base64(node) for node in nodes]
        if not blank or old is None or len(proof) > PROOF_LINES_LIMIT:
            raise _bad_request("expected `old SIZE`, at most 63 lines of proof, an empty line and a checkpoint")
        whole = tuple(node for node in proof if node is not None and len(node) == HASH_BYTES)
        if len(whole) != len(proof):
            raise _bad_request("a line of the proof is no hash")
        return cls(int(old[1]), whole, note)


@dataclass(frozen=True, slots=True)
class Acceptable:
    """What may be cosigned, since it continues what was cosigned before; `note` has the log's verified signature."""

    checkpoint: Checkpoint
    note: Note


def judge(
    request: AddCheckpoint,
    logs: Mapping[str, Sequence[NoteVerifier]],
    cosigned: Callable[[str], Checkpoint | None],
) -> Acceptable:
    """What the request asks for, if it may be had; raises RefusedError. `logs` are the keys by origin.

    The caller holds a lock from `cosigned` until the new checkpoint is remembered.
    """
    claimed = _checkpoint(request.note)
    verifiers = logs.get(claimed.origin)
    if verifiers is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, f"this witness knows no log {claimed.origin!r}")
    note = _signed(request.note, verifiers)
    if request.old_size > claimed.size:
        raise _bad_request("the old size is above the checkpoint's")
    known = cosigned(claimed.origin)
    known_size = known.size if known else 0
    if request.old_size != known_size:
        raise RefusedError(
            HTTPStatus.CONFLICT,
            f"cosigned up to {known_size}",
            size=known_size,
            evidence=_fork(known, claimed),
        )
    _require_consistent(known, claimed, request.proof)
    return Acceptable(claimed, note)


def _checkpoint(data: bytes) -> Checkpoint:
    try:
        return Checkpoint.parse(parse_note(data).text)
    except VaultError as error:
        raise _bad_request(error.found) from None


def _signed(data: bytes, verifiers: Sequence[NoteVerifier]) -> Note:
    try:
        return verify_note(data, verifiers)
    except VaultError as error:
        raise RefusedError(HTTPStatus.FORBIDDEN, error.found) from None


def _require_consistent(known: Checkpoint | None, claimed: Checkpoint, proof: Sequence[bytes]) -> None:
    size, root = (known.size, known.root) if known else (0, EMPTY_ROOT)
    try:
        verify_consistency(size, root, claimed.size, claimed.root, proof)
    except VaultError as error:
        evidence = _fork(known, claimed) or "unproven"
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, error.found, evidence=evidence) from None
    if claimed.size == 0 and claimed.root != EMPTY_ROOT:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "an empty tree has another root", evidence="fork")


def _fork(known: Checkpoint | None, claimed: Checkpoint) -> Evidence | None:
    """Two roots at one size need no proof: whatever the asker sends along, the log signed both."""
    return "fork" if known and known.size == claimed.size and known.root != claimed.root else None


def _bad_request(why: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, why)
