"""Asking witnesses: show each the newest checkpoint, keep the cosignature that comes back.

What belongs here: one request to one witness, what an answer means, what is kept. What stays out: when to ask
(outside.py), the request's bytes (witness_protocol.py).
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import urlsplit

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.cosignature import CosignatureVerifier
from dr_assets.vault.log.note import NoteSignature, parse_note, verify_note
from dr_assets.vault.log.shelf import WITNESSED, ProofShelf, parse_proof_path, plain_name, proof_path
from dr_assets.vault.log.witness_protocol import AddCheckpoint

Standing = Literal["cosigned", "away", "forked", "rolled_back", "misbehaving"]
ANSWER_LIMIT_BYTES: Final = 64 * 1024
PATIENCE_S: Final = 5.0
ConsistencyProof = Callable[[int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class WitnessPlace:
    """A witness: what the estate calls it, where it listens, whose cosignatures are believed."""

    name: str
    url: str
    verifier: CosignatureVerifier

    @property
    def file_name(self) -> str:
        """How its cosignatures are called on the shelf."""
        return plain_name(self.verifier.name, self.verifier.key_id)


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of asking one witness. Only `forked` and `rolled_back` say something about our log."""

    witness: str
    standing: Standing
    size: int
    detail: str


class _AnswerError(Exception):
    """An HTTP answer that is no cosignature."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def ask_witness(
    place: WitnessPlace,
    signed: Signed,
    proof: ConsistencyProof,
    shelf: ProofShelf,
    *,
    patience_s: float = PATIENCE_S,
) -> Heard:
    """Get the checkpoint cosigned and the cosignature shelved, unless it lies there already.

    Never raises for what a witness does or fails to do; raises what `shelf` and `proof` raise.
    """
    size = signed.checkpoint.size
    path = proof_path(WITNESSED, size, place.file_name)
    if shelf.get(path) is not None:
        return Heard(place.name, "cosigned", size, "kept before")
    known = newest_cosigned(shelf, place, below=size)
    try:
        try:
            signature = _ask(place, signed, known, proof, patience_s)
        except _AnswerError as answer:
            known = _conflict_size(answer)
            if known > size:
                return _rolled_back(place, size, known)
            signature = _ask(place, signed, known, proof, patience_s)
    except _AnswerError as answer:
        return _meaning(place, size, answer)
    except (OSError, http.client.HTTPException) as error:
        return Heard(place.name, "away", size, f"no answer: {type(error).__name__}")
    except VaultError as error:
        return Heard(place.name, "misbehaving", size, error.found)
    shelf.put(path, signature.line().encode())
    return Heard(place.name, "cosigned", size, "cosigned now")


def newest_cosigned(shelf: ProofShelf, place: WitnessPlace, *, below: int | None = None) -> int:
    """The largest size (below a limit) that this witness's cosignature is kept of; 0 without any."""
    found = [parse_proof_path(path) for path in shelf.names(f"{WITNESSED}/")]
    sizes = [proof[1] for proof in found if proof and proof[2] == place.file_name]
    return max((size for size in sizes if below is None or size < below), default=0)


def verify_cosignature(signed: Signed, line: bytes, verifier: CosignatureVerifier) -> NoteSignature:
    """The witness's cosignature among the lines of an answer or a file.

    Raises VaultError `log.malformed_note`, `log.bad_note_signature`, `log.unsigned_note`.
    """
    own = parse_note(signed.note).text.encode()
    return verify_note(own + b"\n" + line, [verifier]).signatures[-1]


def _ask(place: WitnessPlace, signed: Signed, known: int, proof: ConsistencyProof, patience_s: float) -> NoteSignature:
    size = signed.checkpoint.size
    request = AddCheckpoint(known, tuple(proof(known, size)) if known else (), signed.note)
    return verify_cosignature(signed, _post(place.url, request.to_bytes(), patience_s), place.verifier)


def _post(url: str, body: bytes, patience_s: float) -> bytes:
    address = f"{url.rstrip('/')}/add-checkpoint"
    if urlsplit(address).scheme not in {"http", "https"}:
        raise VaultError("log.bad_witness_url", "a witness's address is no http(s) URL", "see docs/witness.md")
    request = urllib.request.Request(address, data=body, method="POST")  # noqa: S310 - the scheme was looked at
    request.add_header("Content-Type", "text/plain; charset=utf-8")
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=patience_s) as answer:
            return bytes(answer.read(ANSWER_LIMIT_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise _AnswerError(error.code, error.read(ANSWER_LIMIT_BYTES)) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET elsewhere; a witness has one address."""

    def redirect_request(self, *_: object) -> None:
        return None


def _conflict_size(answer: _AnswerError) -> int:
    """The size that the witness says it knows; raises the answer itself where it says no such thing."""
    text = answer.body.decode("ascii", errors="replace").removesuffix("\n")
    if answer.status != HTTPStatus.CONFLICT or not (text.isascii() and text.isdigit()) or len(text) > len("9" * 19):
        raise answer
    return int(text)


def _rolled_back(place: WitnessPlace, size: int, known: int) -> Heard:
    detail = f"it cosigned {known} leaves of this log, which now has {size}: the log was set back, or has a double"
    return Heard(place.name, "rolled_back", size, detail)


def _meaning(place: WitnessPlace, size: int, answer: _AnswerError) -> Heard:
    if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return Heard(place.name, "forked", size, "it cosigned another history of this log, and refuses this one")
    if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}:
        what = "doesn't know this log" if answer.status == HTTPStatus.NOT_FOUND else "doesn't believe this log's key"
        return Heard(place.name, "misbehaving", size, f"it {what}: its operator has to add the log's verifier key")
    standing: Standing = "away" if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "misbehaving"
    return Heard(place.name, standing, size, f"it answered {answer.status}")
