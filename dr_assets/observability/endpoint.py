"""The HTTP endpoint that Prometheus scrapes.

What belongs here: serving one registry on loopback. What stays out: what is in the registry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.transport import is_loopback


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the metrics are served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What to give to Prometheus."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"


@contextmanager
def metrics_endpoint(registry: CollectorRegistry, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Endpoint]:
    """Serve `registry` until the context ends; port 0 takes a free one.

    It speaks plain HTTP without a login, so only loopback is served. Raises PolicyError `metrics.not_loopback`,
    `metrics.port_taken`.
    """
    if not is_loopback(host):
        raise PolicyError(
            "metrics.not_loopback",
            f"metrics were to be served on {host}",
            "serve them on 127.0.0.1 and let an agent on this host, or a proxy with TLS and a login, pass them on",
        )
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise PolicyError(
            "metrics.port_taken",
            f"port {port} of {host}: {error.strerror}",
            "choose another port, or 0 for any free one",
        ) from None
    try:
        yield Endpoint(host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
