"""One connection to one broker: TCP or TLS, SASL, requests and their responses, one at a time.

What belongs here: the socket, the handshakes, frames, which version of a request both sides speak, throttling. What
stays out: which broker to ask (wire.py), what a request means.

The protocol's classes are kafka-python's, generated from Kafka's own schemas, and so are its SASL mechanisms; its
event loop is left alone (decision 0140 has the measurement: three times the CPU, a third of the throughput). Neither
is promised to stay as it is, so the version is pinned, and nothing outside line.py, wire.py and their neighbours in
this folder imports it.
"""

import socket
import ssl
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.api_message import ApiMessage
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.refusals import BrokerError, name_of

CLIENT_ID: Final = "dr-assets"
FRAME_LIMIT_BYTES: Final = 256 << 20
KEPT_BYTES: Final = 16 << 20
_API_VERSIONS_KEY: Final = 18
_UNSUPPORTED_VERSION: Final = 35
# A connection that has been silent for longer may have been closed by the broker, which is no error.
_SILENT_S: Final = 1.0
_OLDEST_API_VERSIONS: Final = 3
_SESSION_PART: Final = 0.8


@dataclass(frozen=True, slots=True)
class Security:
    """How to reach a broker, and as whom. `ca_file` None means the system's authorities."""

    protocol: str = "PLAINTEXT"
    ca_file: str | None = None
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_tls(self) -> bool:
        """Whether the bytes are encrypted on their way."""
        return self.protocol in {"SSL", "SASL_SSL"}

    @property
    def is_sasl(self) -> bool:
        """Whether the broker asks who we are."""
        return self.protocol.startswith("SASL_")


PLAINTEXT: Final = Security()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Line:
    """A connection that is made when it is first needed and made anew when it broke. Threads may share it, in turn."""

    def __init__(self, address: Address, security: Security = PLAINTEXT, *, timeout_s: float = 30.0) -> None:
        self.address = address
        self._security = security
        self._timeout_s = timeout_s
        self._mutex = threading.Lock()
        self._socket: socket.socket | None = None
        self._versions: dict[int, tuple[int, int]] = {}
        self._correlation = 0
        self._pending: deque[tuple[int, Any]] = deque()
        self._used_at_s = 0.0
        self._expires_at_s: float | None = None
        self._hold_until_s = 0.0
        self.throttled_s = 0.0
        self._kept = bytearray()
        # Whether topics have to be named in fetches, although the broker's versions know their ids (fetching.py).
        self.by_names = False

    def call(self, request: ApiMessage, *, timeout_s: float | None = None) -> Any:
        """The broker's answer, whatever error codes are in it.

        `timeout_s` is how long the answer may take; what the broker itself waits comes on top and is the caller's to
        add. Raises SourceError `kafka.unreachable`, `kafka.timeout`, `kafka.tls`, `kafka.auth`, `kafka.unsupported`,
        `kafka.protocol`. After any of them the connection is made anew; whether the broker did what was asked is not
        known unless it was never sent.
        """
        with self._mutex:
            self._wait_out_throttle()
            self._connect_if_needed()
            response = self._exchange(request, timeout_s or self._timeout_s)
            self._note_throttle(response)
            return response

    def post(self, request: ApiMessage, *, timeout_s: float | None = None) -> None:
        """Send a request and leave its answer for `take`: several may be under way, answered in the order of sending.

        For who has the line alone. Raises as `call` does; then all that was under way is lost.
        """
        with self._mutex:
            self._wait_out_throttle()
            if not self._pending:
                self._connect_if_needed()
            self._sent(request, timeout_s or self._timeout_s)

    def take(self, *, timeout_s: float | None = None) -> Any:
        """The answer to the oldest request that was posted. Raises as `call` does."""
        with self._mutex:
            response = self._answered(timeout_s or self._timeout_s)
            self._note_throttle(response)
            return response

    @property
    def pending(self) -> int:
        """Requests that were posted and whose answers were not taken yet."""
        return len(self._pending)

    def version_of(self, request_class: type[ApiMessage]) -> int:
        """The newest version of a request that both sides speak; connects where need be. Raises as `call` does."""
        with self._mutex:
            # An answer that has come already would pass for bytes that nobody asked for, and end the connection.
            if not self._pending:
                self._connect_if_needed()
            return self._version(request_class)

    def close(self) -> None:
        """End the connection; the next call makes a new one. A call that waits in another thread fails."""
        ended, self._socket = self._socket, None
        self._pending.clear()
        if ended is not None:
            with suppress(OSError):
                ended.shutdown(socket.SHUT_RDWR)
            ended.close()

    # -- connecting -------------------------------------------------------------------------------------------------

    def _connect_if_needed(self) -> None:
        if self._socket is not None and self._is_stale():
            self.close()
        if self._socket is not None:
            return
        try:
            self._socket = self._dialled()
            self._learn_versions()
            if self._security.is_sasl:
                self._authenticate()
        except BaseException:
            self.close()
            raise

    def _is_stale(self) -> bool:
        """Whether the broker closed it, or is about to: nothing was sent yet, so to connect anew harms nobody."""
        now_s = time.monotonic()
        if self._expires_at_s is not None and now_s > self._expires_at_s:
            return True
        if now_s - self._used_at_s < _SILENT_S or self._socket is None:
            return False
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        return True  # an end, or bytes that nobody asked for

    def _dialled(self) -> socket.socket:
        address = self.address
        try:
            plain = socket.create_connection((address.host, address.port), timeout=self._timeout_s)
        except TimeoutError:
            raise self._error("kafka.unreachable", "no answer to a connection attempt") from None
        except OSError as error:
            raise self._error("kafka.unreachable", f"can't connect: {error.strerror or error}") from None
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not self._security.is_tls:
            return plain
        try:
            context = ssl.create_default_context(cafile=self._security.ca_file)
            return context.wrap_socket(plain, server_hostname=address.host)
        except (OSError, ssl.SSLError) as error:
            plain.close()
            why = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error.strerror or error
            raise SourceError(
                "kafka.tls", f"{address}: the TLS handshake failed: {why}",
                "check `ca_file_env`, that the certificate names this host, and that the port speaks TLS",
            ) from None  # fmt: skip

    def _learn_versions(self) -> None:
        request = ApiVersionsRequest(client_software_name=CLIENT_ID, client_software_version="1")
        for version in (_OLDEST_API_VERSIONS, 0):
            self._versions = {_API_VERSIONS_KEY: (version, version)}
            response = self._exchange(request, self._timeout_s)
            if response.error_code != _UNSUPPORTED_VERSION:
                break
        if response.error_code:
            raise BrokerError(response.error_code, f"{self.address}, asked for its versions")
        self._versions |= {each.api_key: (each.min_version, each.max_version) for each in response.api_keys}

    def _authenticate(self) -> None:
        security = self._security
        shake = self._exchange(SaslHandshakeRequest(mechanism=security.mechanism), self._timeout_s)
        if shake.error_code:
            offered = ", ".join(sorted(shake.mechanisms)) or "none"
            raise self._refused(f"it does not speak SASL {security.mechanism}; it offers {offered}")
        mechanism = get_sasl_mechanism(security.mechanism)(
            host=self.address.host, sasl_mechanism=security.mechanism, sasl_plain_username=security.username,
            sasl_plain_password=security.password,
        )  # fmt: skip
        lifetime_ms = 0
        while not mechanism.is_done():
            answer = self._exchange(SaslAuthenticateRequest(auth_bytes=mechanism.auth_bytes()), self._timeout_s)
            if answer.error_code:
                raise self._refused("user name or password are wrong, or the user may not log in")
            lifetime_ms = getattr(answer, "session_lifetime_ms", 0) or 0
            try:
                mechanism.receive(bytes(answer.auth_bytes))
            except (ValueError, KeyError):
                raise self._refused("its own proof is wrong: it does not know our password") from None
        if not mechanism.is_authenticated():
            raise self._refused("the exchange did not end as it should")
        self._expires_at_s = time.monotonic() + lifetime_ms / 1000 * _SESSION_PART if lifetime_ms else None

    def _refused(self, why: str) -> SourceError:
        return SourceError(
            "kafka.auth", f"{self.address} refuses the SASL login: {why}",
            "check mechanism, `username_env` and `password_env` of the dataset",
        )  # fmt: skip

    # -- one exchange -----------------------------------------------------------------------------------------------

    def _version(self, request_class: Any) -> int:
        offered = self._versions.get(request_class.API_KEY)
        lowest = getattr(request_class, "_min_version", None)
        highest = getattr(request_class, "_max_version", None)
        newest = min(request_class.max_version, highest if isinstance(highest, int) else 1 << 15)
        oldest = max(request_class.min_version, lowest if isinstance(lowest, int) else 0)
        if offered is None or offered[0] > newest or offered[1] < oldest:
            spoken = "not at all" if offered is None else f"in versions {offered[0]} to {offered[1]}"
            raise SourceError(
                "kafka.unsupported",
                f"{self.address} speaks {request_class.name} {spoken}; needed is {oldest} to {newest}",
                "capture and restore are made for Kafka 2.8 and newer",
            )
        return int(min(newest, offered[1]))

    def _exchange(self, request: Any, timeout_s: float) -> Any:
        self._sent(request, timeout_s)
        return self._answered(timeout_s) if request.expect_response() else None

    def _sent(self, request: Any, timeout_s: float) -> None:
        if request.API_VERSION is None or request.API_KEY == _API_VERSIONS_KEY:
            request.API_VERSION = self._version(request)
        self._correlation = (self._correlation + 1) % (1 << 31)
        request.with_header(correlation_id=self._correlation, client_id=CLIENT_ID)
        try:
            self._send(request.encode(framed=True, header=True), timeout_s)
        except BaseException:
            self.close()
            raise
        if request.expect_response():
            self._pending.append((self._correlation, request))

    def _answered(self, timeout_s: float) -> Any:
        if not self._pending:
            raise self._error("kafka.unreachable", "closed the connection")
        try:
            correlation, request = self._pending.popleft()
            return self._decoded(request, correlation, self._receive(timeout_s))
        except BaseException:
            self.close()
            raise

    def _send(self, data: bytes, timeout_s: float) -> None:
        line = self._require_socket()
        try:
            line.settimeout(timeout_s)
            line.sendall(data)
        except TimeoutError:
            raise self._error("kafka.timeout", f"took no request within {timeout_s:g} s") from None
        except OSError as error:
            raise self._error("kafka.unreachable", f"connection lost: {error.strerror or error}") from None

    def _receive(self, timeout_s: float) -> memoryview:
        deadline_s = time.monotonic() + timeout_s
        (size_bytes,) = struct.unpack(">i", self._read(4, deadline_s, memoryview(bytearray(4))))
        if not 0 <= size_bytes <= FRAME_LIMIT_BYTES:
            raise self._error("kafka.protocol", f"answers with a frame of {size_bytes} bytes")
        frame = self._read(size_bytes, deadline_s, self._room(size_bytes))
        self._used_at_s = time.monotonic()
        return frame

    def _room(self, size_bytes: int) -> memoryview:
        """Memory for a frame: the same for all but the largest, since fresh memory costs more than what is received.

        A decoded response holds copies, so the next frame may lie where this one lay.
        """
        if size_bytes > KEPT_BYTES:
            return memoryview(bytearray(size_bytes))
        if size_bytes > len(self._kept):
            self._kept = bytearray(min(2 * size_bytes, KEPT_BYTES))
        return memoryview(self._kept)[:size_bytes]

    def _read(self, size_bytes: int, deadline_s: float, whole: memoryview) -> memoryview:
        done, line = 0, self._require_socket()
        while done < size_bytes:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise self._error("kafka.timeout", "gave no answer in time")
            try:
                line.settimeout(left_s)
                count = line.recv_into(whole[done:])
            except TimeoutError:
                continue
            except OSError as error:
                raise self._error("kafka.unreachable", f"connection lost: {error.strerror or error}") from None
            if not count:
                raise self._error("kafka.unreachable", "closed the connection")
            done += count
        return whole

    def _require_socket(self) -> socket.socket:
        if self._socket is None:
            raise self._error("kafka.unreachable", "the connection was closed meanwhile")
        return self._socket

    def _decoded(self, request: Any, correlation: int, frame: memoryview) -> Any:
        """The response; its header is read here, since the library would copy the whole frame for it."""
        response_class, version = request.header.get_response_class(), request.API_VERSION
        flexible = response_class.flexible_version_q(version) and request.API_KEY != _API_VERSIONS_KEY
        try:
            if struct.unpack_from(">i", frame) != (correlation,):
                raise self._error("kafka.protocol", "answers another request than the one that was sent")
            if flexible and frame[4]:
                raise self._error("kafka.protocol", "sends tagged fields in a response's header")
            return response_class.decode(frame[5 if flexible else 4 :])
        except (ValueError, IndexError, KeyError, TypeError, struct.error, AssertionError):
            raise self._error("kafka.protocol", f"sent a {response_class.name} that can't be read") from None

    # -- throttling -------------------------------------------------------------------------------------------------

    def _note_throttle(self, response: object) -> None:
        """A quota was exceeded: the broker answers at once and expects us to stay away for so long (KIP-219)."""
        throttle_ms = getattr(response, "throttle_time_ms", 0) or 0
        if throttle_ms:
            self.throttled_s += throttle_ms / 1000
            self._hold_until_s = time.monotonic() + throttle_ms / 1000

    def _wait_out_throttle(self) -> None:
        left_s = self._hold_until_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)

    def _error(self, code: str, what: str) -> SourceError:
        return SourceError(
            code, f"the broker at {self.address} {what}",
            "check that the broker runs, its address, its listener's protocol and the network between",
        )  # fmt: skip


__all__ = ["PLAINTEXT", "Address", "Line", "Security", "name_of"]
