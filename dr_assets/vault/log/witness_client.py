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
from dr_assets.vault.log.shelf import WITNESSED, Proof, ProofShelf, plain_name
from dr_assets.vault.log.witness_protocol import AddCheckpoint

Standing = Literal["cosigned", "away", "forked", "rolled_back", "misbehaving"]
ANSWER_LIMIT_BYTES: Final = 64 * 1024
SIZE_DIGITS_LIMIT: Final = 19
PATIENCE_S: Final = 5.0
ConsistencyProof = Callable[[int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class WitnessPlace:
    """A witness: what the estate calls it, where it listens, whose cosignatures are believed."""

    name: str
    url: str
    verifier: CosignatureVerifier

    @property
    def shelf_name(self) -> str:
        """What its cosignatures are called on the shelf."""
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
    known: int = 0,
    patience_s: float = PATIENCE_S,
) -> Heard:
    """Get the checkpoint cosigned and the cosignature shelved, unless one lies there already.

    `known` is the size that the witness is thought to know; if it isn't, the witness says so. Never raises for what a
    witness does or fails to do; raises what `shelf` and `proof` raise.
    """
    size = signed.checkpoint.size
    if cosignature_held(shelf, signed, place):
        return Heard(place.name, "cosigned", size, "kept before")
    try:
        signature = _agree(place, signed, proof, min(known, size), patience_s)
    except _AnswerError as answer:
        return _meaning(place, size, answer)
    except (OSError, http.client.HTTPException) as error:
        return Heard(place.name, "away", size, f"no answer: {type(error).__name__}")
    except VaultError as error:
        return Heard(place.name, "misbehaving", size, error.found)
    shelf.put(Proof(WITNESSED, size, place.shelf_name, signature.line().encode()))
    return Heard(place.name, "cosigned", size, "cosigned now")


def cosignature_held(shelf: ProofShelf, signed: Signed, place: WitnessPlace) -> NoteSignature | None:
    """This witness's cosignature of the checkpoint, if one that holds is on the shelf."""
    for proof in shelf.held(WITNESSED, signed.checkpoint.size):
        if proof.name == place.shelf_name:
            try:
                return verify_cosignature(signed, proof.data, place.verifier)
            except VaultError:  # whoever may write to the store can lay anything beside it
                continue
    return None


def verify_cosignature(signed: Signed, line: bytes, verifier: CosignatureVerifier) -> NoteSignature:
    """The witness's cosignature among the lines of an answer or a file.

    Raises VaultError `log.malformed_note`, `log.bad_note_signature`, `log.unsigned_note`.
    """
    own = parse_note(signed.note).text.encode()
    return verify_note(own + b"\n" + line, [verifier]).signatures[-1]


def _agree(
    place: WitnessPlace, signed: Signed, proof: ConsistencyProof, known: int, patience_s: float
) -> NoteSignature:
    """Ask; when the witness knows another size than thought, ask once more with the proof from there."""
    try:
        return _ask(place, signed, proof, known, patience_s)
    except _AnswerError as answer:
        known = _conflict_size(answer)
        if known > signed.checkpoint.size:
            raise
        return _ask(place, signed, proof, known, patience_s)


def _ask(place: WitnessPlace, signed: Signed, proof: ConsistencyProof, known: int, patience_s: float) -> NoteSignature:
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
    known = _size_in(answer.body) if answer.status == HTTPStatus.CONFLICT else None
    if known is None:
        raise answer
    return known


def _size_in(body: bytes) -> int | None:
    text = body.decode("ascii", errors="replace").removesuffix("\n")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= SIZE_DIGITS_LIMIT else None


def _meaning(place: WitnessPlace, size: int, answer: _AnswerError) -> Heard:
    if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return Heard(place.name, "forked", size, "it cosigned another history of this log, and refuses this one")
    if answer.status == HTTPStatus.CONFLICT and (known := _size_in(answer.body)) is not None and known > size:
        detail = f"it cosigned {known} leaves of this log, which now has {size}: the log was set back, or has a double"
        return Heard(place.name, "rolled_back", size, detail)
    if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}:
        what = "doesn't know this log" if answer.status == HTTPStatus.NOT_FOUND else "doesn't believe this log's key"
        return Heard(place.name, "misbehaving", size, f"it {what}: its operator has to add the log's verifier key")
    standing: Standing = "away" if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "misbehaving"
    return Heard(place.name, standing, size, f"it answered {answer.status}")
