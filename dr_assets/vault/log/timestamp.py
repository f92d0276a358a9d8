"""Time stamps (RFC 3161) on checkpoints: an authority signs that the checkpoint's bytes existed at a time.

What belongs here: asking for a token, judging one without a network. What stays out: when to ask (outside.py). Wants
the extra `timestamp`; so it is imported only where time stamps are declared or found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import rfc3161_client
from cryptography import x509

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.outsider import PATIENCE_S, AnswerError, Heard, NoAnswerError, post
from dr_assets.vault.log.shelf import TIMESTAMP, Proof, ProofShelf, plain_name

WHO = "timestamp"
_QUERY_TYPE = "application/timestamp-query"


@dataclass(frozen=True, slots=True)
class StampPlace:
    """A time-stamping authority: its address and the roots that are believed."""

    url: str
    roots: Sequence[x509.Certificate]

    @property
    def shelf_name(self) -> str:
        """What its tokens are called on the shelf."""
        return plain_name("tsa", self.url.encode())


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a token proves: the checkpoint existed at `at` (aware UTC), says the authority `by`."""

    at: datetime
    by: str


def load_roots(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file; raises PolicyError `log.bad_roots`."""
    try:
        roots = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        roots = []
    if not roots:
        raise PolicyError(
            "log.bad_roots", f"{path} holds no certificates", "a PEM file with the time-stamping authority's roots"
        )
    return roots


def stamp_checkpoint(place: StampPlace, signed: Signed, shelf: ProofShelf, *, patience_s: float = PATIENCE_S) -> Heard:
    """Get a token for the signed checkpoint's bytes and shelve it, unless one that holds lies there.

    The whole answer is kept, as `openssl ts -verify` reads it. Never raises for what the authority does.
    """
    size = signed.checkpoint.size
    if stamp_held(shelf, signed, place.roots):
        return Heard(WHO, "vouched", size, "kept before")
    request = (
        rfc3161_client.TimestampRequestBuilder()
        .data(signed.note)
        .hash_algorithm(rfc3161_client.HashAlgorithm.SHA256)
        .nonce(nonce=True)
        .cert_request(cert_request=True)
        .build()
    )
    try:
        answer = post(place.url, request.as_bytes(), _QUERY_TYPE, patience_s=patience_s)
        stamp = verify_stamp(answer, signed.note, place.roots, nonce=request.nonce)
    except NoAnswerError as error:
        return Heard(WHO, "away", size, f"no answer: {error}")
    except AnswerError as error:
        return Heard(WHO, "away", size, f"it answered {error.status}")
    except VaultError as error:
        return Heard(WHO, "misbehaving", size, error.found)
    shelf.put(Proof(TIMESTAMP, size, place.shelf_name, answer))
    return Heard(WHO, "vouched", size, f"stamped at {stamp.at.isoformat()}")


def stamp_held(shelf: ProofShelf, signed: Signed, roots: Sequence[x509.Certificate]) -> Stamp | None:
    """What a token on the shelf proves of the checkpoint; None if none does, whatever else lies there."""
    for proof in shelf.held(TIMESTAMP, signed.checkpoint.size):
        try:
            return verify_stamp(proof.data, signed.note, roots)
        except VaultError:
            continue
    return None


def verify_stamp(answer: bytes, note: bytes, roots: Sequence[x509.Certificate], *, nonce: int | None = None) -> Stamp:
    """What the token proves of these bytes; certificates are judged at the token's own time. Needs no network.

    Raises VaultError `log.bad_timestamp`.
    """
    try:
        token = rfc3161_client.decode_timestamp_response(answer)
        builder = rfc3161_client.VerifierBuilder(roots=list(roots))
        verifier = (builder if nonce is None else builder.nonce(nonce)).build()
        verifier.verify_message(token, note)
        at, by = token.tst_info.gen_time, _authority(token)
    except (ValueError, rfc3161_client.VerificationError) as error:
        raise VaultError(
            "log.bad_timestamp",
            f"no time stamp of this checkpoint by an authority that is believed here: {str(error)[:200]}",
            "name the authority's root certificate, or take the token from another copy",
        ) from None
    return Stamp(at if at.tzinfo else at.replace(tzinfo=UTC), by)


def _authority(token: rfc3161_client.TimeStampResponse) -> str:
    """The signer's name, from the certificate that the verified signature names."""
    for info in token.signed_data.signer_infos:
        for raw in token.signed_data.certificates:
            certificate = x509.load_der_x509_certificate(bytes(raw))
            if (certificate.issuer, certificate.serial_number) == (info.issuer, info.serial_number):
                return certificate.subject.rfc4514_string()
    return "unnamed"
