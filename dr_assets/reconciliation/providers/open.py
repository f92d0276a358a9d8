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
from dr_assets.reconciliation.providers.lines import BANK_LINES, PROVIDER_LINES, Sent, broken
from dr_assets.reconciliation.providers.mapping import load_mapping, mapped_lines
from dr_assets.reconciliation.providers.options import load_options
from dr_assets.reconciliation.providers.stripe import stripe_lines

FeedFormat = Literal["stripe", "adyen", "camt053", "csv"]
BANK: Final = "camt053"
_DEEPEST: Final = 16


@dataclass(frozen=True)
class Feed:
    """What one provider sent: `place` is a folder, or one file. `mapping` says what its columns mean."""

    name: str
    format: FeedFormat
    place: Path
    mapping: Path | None = None

    def files(self) -> list[Sent]:
        """The files by name, those of subfolders too; hidden ones are not a provider's.

        Raises SourceError (`reconciliation.file`), for what is neither a file nor a folder, too: none is passed over.
        """
        if self.place.is_file():
            return [Sent(self.place, self.place.name)]
        try:
            found = [Sent(path, str(path.relative_to(self.place))) for path in _below(self.place)]
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise self._refused(f"{error.filename} can't be read ({type(error).__name__})") from None
        if not found:
            raise self._refused("there is no file in its folder")
        _refuse_twice(found)
        return found

    def _refused(self, why: str) -> SourceError:
        return SourceError(
            "reconciliation.file",
            f"provider {self.name}: {why}",
            "put the provider's files there, or take the provider out of `reconcile:`",
        )


def _below(folder: Path, depth: int = 0) -> Iterator[Path]:
    """By name, a folder's files where the folder stands: providers and banks drop files in folders of a day."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and depth < _DEEPEST:
            yield from _below(path, depth + 1)
        elif path.is_file():
            yield path
        else:
            raise broken(Sent(path, path.name), "it is no file, or lies too deep", "take it out of the feed's folder")


@contextmanager
def provider_lines(feeds: Sequence[Feed]) -> Iterator[pa.RecordBatchReader]:
    """The lines of all providers but banks, as a stream that is read once, inside this block.

    Raises PolicyError (`reconciliation.mapping`), and SourceError (`reconciliation.file`) for a broken file: also in
    place of what a reader of the stream makes of it.
    """
    reads = [(feed, _reader(feed)) for feed in feeds if feed.format != BANK]
    with told_stream(
        PROVIDER_LINES, (batch for feed, read in reads for sent in feed.files() for batch in read(sent))
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
        for sent in feed.files():
            yield from statements.lines(sent)
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


def _reader(feed: Feed) -> Callable[[Sent], Iterator[pa.RecordBatch]]:
    if feed.format == "csv":
        if feed.mapping is None:
            raise PolicyError(
                "reconciliation.mapping",
                f"provider {feed.name}: nothing says what its columns mean",
                "name a mapping (docs/provider-files.md)",
            )
        mapping = load_mapping(feed.mapping)
        return lambda sent: mapped_lines(feed.name, sent, mapping)
    options = load_options(feed.mapping)
    lines = stripe_lines if feed.format == "stripe" else adyen_lines
    return lambda sent: lines(feed.name, sent, options)


def _refuse_twice(files: Sequence[Sent]) -> None:
    """Files of one content: their lines would count twice. Only files of one size are read for it."""
    by_size: dict[int, list[Sent]] = {}
    for sent in files:
        by_size.setdefault(sent.path.stat().st_size, []).append(sent)
    for alike in by_size.values():
        seen: dict[str, Sent] = {}
        for sent in alike if len(alike) > 1 else []:
            with sent.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest in seen:
                raise broken(sent, f"it is the same file as {seen[digest].name}", "take one of the two away")
            seen[digest] = sent
