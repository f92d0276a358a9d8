"""Asking witnesses: show each the newest checkpoint, keep the cosignature that comes back.

What belongs here: one request to one witness, what an answer means, what is kept. What stays out: when to ask
(outside.py), the request's bytes (witness_protocol.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.cosignature import CosignatureVerifier
from dr_assets.vault.log.note import NoteSignature, parse_note, verify_note
from dr_assets.vault.log.outsider import PATIENCE_S, AnswerError, Heard, NoAnswerError, Standing, post
from dr_assets.vault.log.shelf import WITNESSED, Proof, ProofShelf, plain_name
from dr_assets.vault.log.witness_protocol import TEXT_TYPE, AddCheckpoint

SIZE_DIGITS_LIMIT: Final = 19
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


class _BadAnswerError(Exception):
    """A witness answered with no cosignature of its own. What is amiss with the log itself is never told like that."""


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
        return Heard(place.name, "vouched", size, "kept before")
    try:
        signature = _agree(place, signed, proof, min(known, size), patience_s)
    except AnswerError as answer:
        return _meaning(place, size, answer)
    except NoAnswerError as error:
        return Heard(place.name, "away", size, f"no answer: {error}")
    except _BadAnswerError as error:
        return Heard(place.name, "misbehaving", size, str(error))
    shelf.put(Proof(WITNESSED, size, place.shelf_name, signature.line().encode()))
    return Heard(place.name, "vouched", size, "cosigned now")


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
    except AnswerError as answer:
        known = _conflict_size(answer)
        if known > signed.checkpoint.size:
            raise
        return _ask(place, signed, proof, known, patience_s)


def _ask(place: WitnessPlace, signed: Signed, proof: ConsistencyProof, known: int, patience_s: float) -> NoteSignature:
    size = signed.checkpoint.size
    request = AddCheckpoint(known, tuple(proof(known, size)) if known else (), signed.note)
    address = f"{place.url.rstrip('/')}/add-checkpoint"
    line = post(address, request.to_bytes(), TEXT_TYPE, patience_s=patience_s)
    try:
        return verify_cosignature(signed, line, place.verifier)
    except VaultError as error:
        raise _BadAnswerError(error.found) from None


def _conflict_size(answer: AnswerError) -> int:
    """The size that the witness says it knows; raises the answer itself where it says no such thing."""
    known = _size_in(answer.body) if answer.status == HTTPStatus.CONFLICT else None
    if known is None:
        raise answer
    return known


def _size_in(body: bytes) -> int | None:
    text = body.decode("ascii", errors="replace").removesuffix("\n")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= SIZE_DIGITS_LIMIT else None


def _meaning(place: WitnessPlace, size: int, answer: AnswerError) -> Heard:
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
