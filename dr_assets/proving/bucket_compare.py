"""What a restored bucket has to hold, by the inventory, and whether it does: read anew, by nobody who restored it.

What belongs here: the expectation on disk (an inventory may have a million rows), and the comparison. What stays out:
restoring (stores/bucket).

No name is kept or told: a name stands as its keyed digest, so whoever reads a record learns nothing of a person.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.stores.bucket.inventory import Row
from dr_assets.stores.bucket.listing import Listed, listing
from dr_assets.stores.bucket.runs import Run, chain_to, rows_of
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place, version_of

_READERS: Final = 8
_READ_BYTES: Final = 1 << 20
_SCHEMA: Final = (
    "CREATE TABLE held (name_id BLOB, version TEXT, age INT, state TEXT, subject_id TEXT, size_bytes INT, digest TEXT,"
    " gone_at INT, seen INT DEFAULT 0, PRIMARY KEY (name_id, version)) WITHOUT ROWID"
)
_PUT: Final = "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)"
_NEWEST: Final = (
    "CREATE TABLE newest AS SELECT name_id, subject_id, size_bytes, digest, 0 AS seen FROM"
    " (SELECT *, row_number() OVER (PARTITION BY name_id ORDER BY age DESC) AS nth FROM held WHERE gone_at IS NULL)"
    " WHERE nth = 1 AND state = 'version'"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison came to, in documents; `size_bytes` of those that are equal."""

    objects: int
    size_bytes: int
    missing: int
    foreign: int
    differing: int

    def broken(self) -> list[str]:
        """What is wrong, in words; empty where everything is equal."""
        told = {
            "document(s) are missing": self.missing,
            "document(s) are there that nobody copied, or of people who are erased": self.foreign,
            "document(s) differ from what was copied": self.differing,
        }
        return [f"{count} {what}" for what, count in told.items() if count]


@dataclass(frozen=True, slots=True)
class Expected:
    """The newest version of every name, without those of erased people, in a file of its own."""

    site: Site
    path: Path

    @classmethod
    def of(cls, site: Site, run: Run, gone: frozenset[str], path: Path) -> "Expected":
        """From the inventories that lead to a run. Raises VaultError for what is missing or damaged of them."""
        with _opened(path) as db:
            db.execute(_SCHEMA)
            for rows in rows_of(site.vault, chain_to(site.vault, run)):
                db.executemany(_PUT, _values(rows))
            db.execute(_NEWEST)
            db.executemany("DELETE FROM newest WHERE subject_id = ?", ((who,) for who in gone))
            db.execute("CREATE UNIQUE INDEX by_name ON newest (name_id)")
            db.execute("DROP TABLE held")
        return cls(site, path)

    def compare(self, place: Place) -> Compared:
        """Every object of `place` read whole, and every row accounted for. Raises SourceError."""
        objects = size_bytes = foreign = differing = 0
        with _opened(self.path) as db, ThreadPoolExecutor(_READERS, thread_name_prefix="compare") as pool:
            db.execute("UPDATE newest SET seen = 0")
            for rows in listing(place):
                there = list(_current(rows))
                read = pool.map(lambda row: _digest(place, row), there)
                for row, (sha256, length) in zip(there, read, strict=True):
                    name_id = self.site.names.name_id(row.name)
                    found = db.execute(
                        "SELECT subject_id, size_bytes, digest FROM newest WHERE name_id = ?", (name_id,)
                    ).fetchone()
                    if found is None:
                        foreign += 1
                        continue
                    db.execute("UPDATE newest SET seen = 1 WHERE name_id = ?", (name_id,))
                    same = (length, self.site.names.digest(sha256, found[0])) == (found[1], found[2])
                    objects, size_bytes, differing = objects + same, size_bytes + length * same, differing + (not same)
            (missing,) = db.execute("SELECT count(*) FROM newest WHERE seen = 0").fetchone()
        return Compared(objects, size_bytes, missing, foreign, differing)


def _values(rows: Iterable[Row]) -> Iterator[tuple[object, ...]]:
    for row in rows:
        yield (row.name_id, row.version, row.order, row.state, row.subject_id, row.size_bytes, row.digest, row.gone_at)


def _current(rows: Iterable[Listed]) -> Iterator[Listed]:
    """A listing's newest of each name, unless that is a delete marker."""
    last = ""
    for row in rows:
        if row.name != last and not row.is_marker:
            yield row
        last = row.name


def _digest(place: Place, row: Listed) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    with place.answers():
        body = place.client.get_object(Bucket=place.bucket, Key=row.name, **version_of(row.version_id))["Body"]
        for piece in body.iter_chunks(_READ_BYTES):
            digest.update(piece)
            length += len(piece)
    return digest.hexdigest(), length


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database file, committed and closed behind the block."""
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA journal_mode = OFF")
        yield db
        db.commit()
    finally:
        db.close()
