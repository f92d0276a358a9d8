"""From a provider's folder to one stream of its lines.

What belongs here: which files there are, that none is there twice, the stream over all of them. What stays out: the
formats.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa

from dr_assets.estate.errors import DrError, PolicyError, SourceError
from dr_assets.reconciliation.providers.adyen import adyen_lines
from dr_assets.reconciliation.providers.camt import Statements
from dr_assets.reconciliation.providers.lines import BANK_LINES, PROVIDER_LINES, broken
from dr_assets.reconciliation.providers.mapping import load_mapping, mapped_lines
from dr_assets.reconciliation.providers.options import load_options
from dr_assets.reconciliation.providers.stripe import stripe_lines

FeedFormat = Literal["stripe", "adyen", "camt053", "csv"]
BANK: Final = "camt053"


@dataclass(frozen=True)
class Feed:
    """What one provider sent: `place` is a folder, or one file. `mapping` says what its columns mean."""

    name: str
    format: FeedFormat
    place: Path
    mapping: Path | None = None

    def files(self) -> list[Path]:
        """The files by name; hidden ones are not a provider's. Raises SourceError (`reconciliation.file`)."""
        if self.place.is_file():
            return [self.place]
        found = sorted(path for path in self.place.glob("*") if path.is_file() and not path.name.startswith("."))
        if not found:
            raise SourceError(
                "reconciliation.file",
                f"provider {self.name}: there is no file in its folder",
                "put the provider's files there, or take the provider out of `reconcile:`",
            )
        _refuse_twice(found)
        return found


@contextmanager
def provider_lines(feeds: Sequence[Feed]) -> Iterator[pa.RecordBatchReader]:
    """The lines of all providers but banks, as a stream that is read once, inside this block.

    Raises PolicyError (`reconciliation.mapping`), and SourceError (`reconciliation.file`) for a broken file: also in
    place of what a reader of the stream makes of it.
    """
    reads = [(feed, _reader(feed)) for feed in feeds if feed.format != BANK]
    with told_stream(
        PROVIDER_LINES, (batch for feed, read in reads for path in feed.files() for batch in read(path))
    ) as it:
        yield it


@contextmanager
def bank_lines(feeds: Sequence[Feed]) -> Iterator[pa.RecordBatchReader]:
    """The entries of all banks' statements. Raises as `provider_lines`."""
    with told_stream(BANK_LINES, _entries([feed for feed in feeds if feed.format == BANK])) as it:
        yield it


def _entries(feeds: Sequence[Feed]) -> Iterator[pa.RecordBatch]:
    for feed in feeds:
        statements = Statements()
        for path in feed.files():
            yield from statements.lines(path)
        statements.connect()


@contextmanager
def told_stream(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatchReader]:
    """An engine that reads a stream turns our errors into its own words: ours are kept and raised in their place."""
    met: list[DrError] = []

    def kept() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except DrError as error:
            met.append(error)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(schema, kept())
    except Exception:
        if met:
            raise met[0] from None
        raise


def _reader(feed: Feed) -> Callable[[Path], Iterator[pa.RecordBatch]]:
    if feed.format == "csv":
        if feed.mapping is None:
            raise PolicyError(
                "reconciliation.mapping",
                f"provider {feed.name}: nothing says what its columns mean",
                "name a mapping (docs/provider-files.md)",
            )
        mapping = load_mapping(feed.mapping)
        return lambda path: mapped_lines(feed.name, path, mapping)
    options = load_options(feed.mapping)
    lines = stripe_lines if feed.format == "stripe" else adyen_lines
    return lambda path: lines(feed.name, path, options)


def _refuse_twice(paths: Sequence[Path]) -> None:
    """Files of one content: their lines would count twice. Only files of one size are read for it."""
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        by_size.setdefault(path.stat().st_size, []).append(path)
    for alike in by_size.values():
        seen: dict[str, Path] = {}
        for path in alike if len(alike) > 1 else []:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest in seen:
                raise broken(path, f"it is the same file as {seen[digest].name}", "take one of the two away")
            seen[digest] = path
