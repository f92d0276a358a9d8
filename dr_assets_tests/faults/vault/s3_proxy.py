"""An S3 proxy that lies: it stands before a real store and hands out other bytes, or hides what is there.

What belongs here: HTTP. What stays out: what to lie about (damage.py). The store's locks never notice: this is what a
damaged disk or a hand beneath the S3 door looks like from outside.
"""

import http.client
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})
ROW = re.compile(rb"<(Version|DeleteMarker)>.*?</\1>", re.DOTALL)
KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


class LyingProxy:
    """Forwards everything to `upstream` except for what `lies` names: other bytes, or None for "never heard of it"."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.lies: Mapping[str, bytes | None] = {}
        self.hiccups: list[str] = []  # "busy" (503) or "cut" (the body breaks off), each used up by one request
        self.requests = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(proxy: "LyingProxy") -> type[BaseHTTPRequestHandler]:  # noqa: N805 - inside, self is the request
        class Forward(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def forward(self) -> None:
                """One request through, its answer altered if it is to be."""
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: text for name, text in self.headers.items() if name.lower() != "expect"}
                upstream = http.client.HTTPConnection(proxy.upstream.hostname or "", proxy.upstream.port, timeout=60)
                try:
                    upstream.request(self.command, self.path, body or None, headers)
                    answer = upstream.getresponse()
                    data = answer.read()
                finally:
                    upstream.close()
                proxy.requests += 1
                hiccup = proxy.hiccups.pop(0) if proxy.hiccups else ""
                if hiccup == "busy":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                status, data, altered = proxy.alter(self.command, self.path, answer.status, data)
                self.send_response(status)
                for name, text in answer.getheaders():
                    if name.lower() not in HOP_HEADERS:
                        self.send_header(name, text)
                length = answer.getheader("Content-Length") if self.command == "HEAD" and not altered else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                if hiccup == "cut":
                    data, self.close_connection = data[: len(data) // 2], True
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - the base class's names

        return Forward

    def alter(self, method: str, path: str, status: int, data: bytes) -> tuple[int, bytes, bool]:
        """Status and body as this proxy tells them, and whether it lied."""
        parts = urlsplit(path)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        query = parse_qs(parts.query, keep_blank_values=True)
        if "versions" in query:
            return status, self._hide(data), False
        if key not in self.lies or method not in {"GET", "HEAD"}:
            return status, data, False
        lie = self.lies[key]
        if lie is None:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>" if method == "GET" else b"", True
        return status, lie if method == "GET" else b"", method == "GET"

    def _hide(self, listing: bytes) -> bytes:
        gone = {name for name, data in self.lies.items() if data is None}

        def keep(row: re.Match[bytes]) -> bytes:
            found = KEY.search(row[0])
            return b"" if found and unquote(found[1].decode()) in gone else row[0]

        return ROW.sub(keep, listing) if gone else listing
