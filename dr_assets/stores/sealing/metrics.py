"""Where a capture counts, whatever its source is.

What belongs here: the port, and the one that counts nothing. What stays out: serving the numbers (observability/) and
the reports themselves (each store's report.py).
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

_Report_contra = TypeVar("_Report_contra", contravariant=True)


class PutMetrics(Protocol):
    """Where puts are counted; calls come from several threads and must not raise."""

    def stored(self, dataset: str, size_bytes: int, stored_bytes: int) -> None:
        """A piece was read back under its lock: its plaintext's size and the object's."""

    def upload_failed(self, dataset: str) -> None:
        """A put failed; it will be tried again or the capture gives up."""


class CaptureMetrics(PutMetrics, Protocol[_Report_contra]):
    """Where a capture counts; calls come from several threads and must not raise."""

    def received(self, dataset: str, size_bytes: int) -> None:
        """Bytes of the stream came in."""

    def lags(self, dataset: str, lags_s: Sequence[float]) -> None:
        """Pieces of the stream became part of the stored prefix, so many seconds after they arrived."""

    def reported(self, report: _Report_contra) -> None:
        """A new report is out."""


class NoMetrics:
    """Counts nothing."""

    def received(self, dataset: str, size_bytes: int) -> None:
        """Nothing."""

    def stored(self, dataset: str, size_bytes: int, stored_bytes: int) -> None:
        """Nothing."""

    def lags(self, dataset: str, lags_s: Sequence[float]) -> None:
        """Nothing."""

    def upload_failed(self, dataset: str) -> None:
        """Nothing."""

    def reported(self, report: object) -> None:
        """Nothing."""
