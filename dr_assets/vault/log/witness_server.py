"""A witness: it cosigns what continues the history it knows, and nothing else. Over HTTP, to run elsewhere.

What belongs here: one request at a time from bytes to answer, and the small HTTP server around it. What stays out: the
rules (witness_protocol.py) and the files (witness_book.py).
"""

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.cosignature import CosignatureSigner
from dr_assets.vault.log.note import Note, NoteSignature, NoteVerifier, verify_note
from dr_assets.vault.log.witness_book import WitnessBook, origin_hash
from dr_assets.vault.log.witness_protocol import (
    REQUEST_LIMIT_BYTES,
    SIZE_TYPE,
    TEXT_TYPE,
    AddCheckpoint,
    RefusedError,
    judge,
)

IDLE_LIMIT_S: Final = 10.0
CONNECTIONS_LIMIT: Final = 64
# How much of a request that was refused unread is still taken in, and for how long.
UNREAD_LIMIT_BYTES: Final = 8 * REQUEST_LIMIT_BYTES
UNREAD_LIMIT_S: Final = 10.0
_LATEST: Final = re.compile(r"/([0-9a-f]{64})/checkpoint")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT_TYPE


@dataclass(slots=True)
class Cosigner:
    """A witness without its HTTP. `logs` are the keys it believes, by origin; threads may share it."""

    signer: CosignatureSigner
    logs: Mapping[str, Sequence[NoteVerifier]]
    book: WitnessBook
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def require_memory(self) -> None:
        """Raise VaultError `witness.forgot` unless everything remembered is whole."""
        for named in self.book.names():
            self._remembered(named)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Judge, remember durably, cosign. Raises VaultError `witness.forgot`, and OSError when it can't remember."""
        try:
            request = AddCheckpoint.parse(body)
            # Between looking and remembering nobody else may: or a slow asker would roll the history back.
            with self._one_at_a_time:
                accepted = judge(request, self.logs, self._cosigned)
                cosignature = NoteSignature(
                    self.signer.name, self.signer.key_id, self.signer.sign(accepted.note.text.encode())
                )
                cosigned = Note(accepted.note.text, (*accepted.note.signatures, cosignature))
                self.book.write(origin_hash(accepted.checkpoint.origin), cosigned.to_bytes())
        except RefusedError as refused:
            return self._refuse(refused, body)
        return Answer(HTTPStatus.OK, cosignature.line().encode())

    def latest(self, named: str) -> Answer:
        """The newest checkpoint cosigned of the log with that origin hash, with the log's signature and ours."""
        if self.book.read(named) is None:
            return Answer(HTTPStatus.NOT_FOUND, b"no checkpoint of that log was cosigned here\n")
        return Answer(HTTPStatus.OK, self._remembered(named).to_bytes())

    def _cosigned(self, origin: str) -> Checkpoint | None:
        named = origin_hash(origin)
        if self.book.read(named) is None:
            return None
        return Checkpoint.parse(self._remembered(named).text)

    def _remembered(self, named: str) -> Note:
        """What we cosigned ourselves; a file that doesn't show that was altered or is another witness's."""
        try:
            note = verify_note(self.book.read(named) or b"", [self.signer.verifier])
            fits = origin_hash(Checkpoint.parse(note.text).origin) == named
        except VaultError:
            fits = False
        if not fits:
            raise VaultError(
                "witness.forgot",
                f"the file of log {named} is not what this witness cosigned",
                "put it back from a copy that is no older, or retire this witness and its key",
            )
        return note

    def _refuse(self, refused: RefusedError, body: bytes) -> Answer:
        if refused.evidence:
            path = self.book.keep_evidence(refused.evidence, body)
            said = "A LOG SHOWS TWO HISTORIES" if refused.evidence == "fork" else "a history that nothing proves"
            _log.error("%s: %s; the request is kept in %s", said, refused.why, path)
        if refused.size is not None:
            return Answer(refused.status, f"{refused.size}\n".encode("ascii"), SIZE_TYPE)
        return Answer(refused.status, f"{refused.why}\n".encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_LIMIT_S
    server: "WitnessServer"
    server_version = "dr-assets-witness"
    sys_version = ""

    def do_POST(self) -> None:
        if self.path != "/add-checkpoint":
            self._send(Answer(HTTPStatus.NOT_FOUND, b"there is /add-checkpoint\n"), close=True)
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._send(Answer(HTTPStatus.LENGTH_REQUIRED, b"Content-Length is missing\n"), close=True)
            return
        if len(length) > len(str(REQUEST_LIMIT_BYTES)) or int(length) > REQUEST_LIMIT_BYTES:
            self._send(Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"too large\n"), close=True)
            return
        body = self.rfile.read(int(length))
        if len(body) == int(length):
            self._answer(lambda: self.server.cosigner.add_checkpoint(body))

    def do_GET(self) -> None:
        asked = _LATEST.fullmatch(self.path)
        if asked is None:
            self._send(Answer(HTTPStatus.NOT_FOUND, b"there is /<origin hash>/checkpoint\n"))
            return
        self._answer(lambda: self.server.cosigner.latest(asked[1]))

    def _answer(self, ask: Callable[[], Answer]) -> None:
        try:
            answer = ask()
        except (OSError, VaultError):
            # Nothing was answered, so nothing was promised. The details are for who runs the witness.
            _log.exception("the witness can't remember")
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the witness can't remember: see its own messages\n")
        self._send(answer)

    def _send(self, answer: Answer, *, close: bool = False) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if close:  # what was not read of the request would be taken for the next one
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)
        if close:
            self._let_it_finish()

    def _let_it_finish(self) -> None:
        """Read what the asker still sends: closing on unread bytes resets the connection, and our answer is lost."""
        left, deadline = UNREAD_LIMIT_BYTES, time.monotonic() + UNREAD_LIMIT_S
        with contextlib.suppress(OSError):  # it has gone, or fell silent
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < deadline and (data := self.rfile.read1(1 << 16)):
                left -= len(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name for it
        _log.info(format, *args)


class WitnessServer(ThreadingHTTPServer):
    """Listens on `address`; `serve_forever` until `shutdown`. At most 64 connections at once, idle ones are cut."""

    daemon_threads = True
    request_queue_size = CONNECTIONS_LIMIT  # who asks meanwhile waits; the library's five would be reset beyond that

    def __init__(self, address: tuple[str, int], cosigner: Cosigner) -> None:
        super().__init__(address, _Handler)
        self.cosigner = cosigner
        self._places = threading.BoundedSemaphore(CONNECTIONS_LIMIT)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a place, then answer in a thread of its own."""
        self._places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class; gives the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()
