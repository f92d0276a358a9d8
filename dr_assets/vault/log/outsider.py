"""Talking to those outside who vouch for the log: one bounded POST, and what came of asking.

What belongs here: the request's limits, the outcome's words. What stays out: what is asked (witness_client.py,
timestamp.py, anchor.py).
"""

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from dr_assets.estate.errors import VaultError

# `forked` and `rolled_back` say that our log is not what it was; the others speak of the outsider.
Standing = Literal["vouched", "waiting", "away", "misbehaving", "forked", "rolled_back"]
ANSWER_LIMIT_BYTES: Final = 64 * 1024
PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of asking `who` about the checkpoint of `size`."""

    who: str
    standing: Standing
    size: int
    detail: str


class AnswerError(Exception):
    """An HTTP answer other than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class NoAnswerError(Exception):
    """Nobody answered, or nothing that HTTP knows."""


def post(url: str, body: bytes, content_type: str, *, patience_s: float = PATIENCE_S) -> bytes:
    """The answer's body, 64 KiB of it at most. Raises AnswerError, NoAnswerError, VaultError `log.bad_url`.

    A redirect is an answer like any other: it would turn the POST into a GET elsewhere.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise VaultError("log.bad_url", "the address is no http(s) URL", "see docs/witness.md")
    request = urllib.request.Request(url, data=body, method="POST")  # noqa: S310 - the scheme was looked at
    request.add_header("Content-Type", content_type)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=patience_s) as answer:
            return bytes(answer.read(ANSWER_LIMIT_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise AnswerError(error.code, error.read(ANSWER_LIMIT_BYTES)) from None
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(type(error).__name__) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
