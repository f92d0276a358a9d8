"""What a restore brings back, on disk: one row for each version that was chosen, and whether it is there by now.

What belongs here: one SQLite file and the questions asked of it. What stays out: choosing the run (plan.py), bringing
things back (restore.py).

It lives in the work folder until the restore is done, so that whoever was killed goes on. No name stands in it.
"""

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.bucket.inventory import Row, Spot
from dr_assets.stores.bucket.listing import Listed
from dr_assets.stores.bucket.manifest import Tally
from dr_assets.stores.bucket.names import FOLDER_BYTES

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS found (
    name_id BLOB NOT NULL, version TEXT NOT NULL, age INT NOT NULL, state TEXT NOT NULL, subject_id TEXT,
    size_bytes INT NOT NULL, digest TEXT NOT NULL, folders BLOB NOT NULL, part INT, at INT, length INT,
    pieces TEXT, gone_at INT, PRIMARY KEY (name_id, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS picked (
    ord INTEGER PRIMARY KEY, rank INT NOT NULL, name_id BLOB NOT NULL, version TEXT NOT NULL, age INT NOT NULL,
    state TEXT NOT NULL, subject_id TEXT, size_bytes INT NOT NULL, digest TEXT NOT NULL, folders BLOB NOT NULL,
    part INT, at INT, length INT, pieces TEXT,
    step INT NOT NULL DEFAULT 0, put_version TEXT, is_brought INT NOT NULL DEFAULT 0);
"""
_COLUMNS: Final = "name_id, version, age, state, subject_id, size_bytes, digest, folders, part, at, length, pieces"
# Of two contents of one second that one is newer which stayed longer: it took the other's place.
# The newest version of each name at a moment; of a name whose newest is a delete marker there is nothing.
_CURRENT: Final = (
    f"INSERT INTO picked (rank, {_COLUMNS}) SELECT 0, {_COLUMNS} FROM (SELECT *, row_number() OVER"  # noqa: S608
    " (PARTITION BY name_id ORDER BY age DESC, gone_at IS NOT NULL, gone_at DESC) AS newest FROM found"
    " WHERE age <= ? AND (gone_at IS NULL OR gone_at > ?)) WHERE newest = 1 AND state != 'marker' ORDER BY part, at"
)
_ALL: Final = (
    f"INSERT INTO picked (rank, {_COLUMNS}) SELECT nth, {_COLUMNS} FROM (SELECT *, row_number() OVER"  # noqa: S608
    " (PARTITION BY name_id ORDER BY age) - 1 AS nth FROM found"
    " WHERE age <= ? AND (gone_at IS NULL OR gone_at > ?)) ORDER BY nth, part, at"
)
WAITS, BEGUN, DONE, LEFT_OUT, ERASED = range(5)


@dataclass(frozen=True, slots=True)
class Pick:
    """One row to bring back; `rank` counts the versions of its name from the oldest. `begun`: it may be there."""

    ord: int
    rank: int
    row: Row
    begun: bool


@dataclass(frozen=True, slots=True)
class Brought:
    """What an attempt has put, or may have, of somebody who was erased since; None: nobody noted its version."""

    ord: int
    subject_id: str
    size_bytes: int
    is_marker: bool
    put_version: str | None

    def is_it(self, row: Listed) -> bool:
        """Whether this row of the target's listing, of the same name, is what was put."""
        if self.put_version:
            return row.version_id == self.put_version
        return bool(self.is_marker) is row.is_marker and self.size_bytes == row.size_bytes


class Picked:
    """Open it for one restore; one thread uses it. Raises PolicyError `bucket.busy` where somebody else has it open."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self.path = path
        self._lock = path.with_suffix(".plan").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise PolicyError(
                "bucket.busy",
                f"another plan of a restore is being made or carried out in {path.parent}",
                "wait for it, or give this one another --work folder: else it would bring back what this one chose",
            ) from None
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;"
            "PRAGMA cache_size = -16384; PRAGMA temp_store = FILE;" + _SCHEMA
        )
        self._ids: dict[str, int] = {}
        self._keys: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._lock.close()

    def meta(self, name: str) -> str | None:
        """A remembered text."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Remember a text."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def begin(self) -> None:
        """Anew: nothing of an earlier restore counts."""
        self._db.executescript("DELETE FROM meta; DELETE FROM parts; DELETE FROM found; DELETE FROM picked;")
        self._ids.clear()
        self._keys.clear()

    def remove(self) -> None:
        """The restore is done: nobody goes on with it."""
        self._db.close()
        self._lock.close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()

    def find(self, rows: Iterable[Row]) -> None:
        """Rows that fit what is wanted; what a later run says of a version holds."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(self._values, rows)
        )
        self._db.execute("COMMIT")

    def pick(self, at_us: int, *, all_versions: bool) -> None:
        """Of all that was found, what was there at a moment: the newest of each name, or every version and marker."""
        self._db.execute("BEGIN")
        self._db.execute(_ALL if all_versions else _CURRENT, (at_us, at_us))
        self._db.execute("DELETE FROM found")
        self._db.execute("COMMIT")

    def people(self) -> list[str]:
        """Everybody whom something that was picked belongs to."""
        found = self._db.execute("SELECT DISTINCT subject_id FROM picked WHERE subject_id IS NOT NULL ORDER BY 1")
        return [str(row[0]) for row in found]

    def erase(self, people: Iterable[str]) -> int:
        """What is theirs is never brought back, nor what was withheld when it was copied; how much that is.

        What an earlier attempt has brought of theirs, or may have, is noted as such until it is removed.
        """
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE picked SET is_brought = step IN (?, ?), step = ? WHERE subject_id = ? AND step NOT IN (?, ?)",
            ((BEGUN, DONE, ERASED, who, LEFT_OUT, ERASED) for who in list(people)),
        )
        withheld = self._db.execute("UPDATE picked SET step = ? WHERE state = 'withheld'", (ERASED,)).rowcount
        self._db.execute("COMMIT")
        return withheld

    def brought_of_erased(self) -> dict[bytes, list[Brought]]:
        """By name id, what attempts have brought back, or may have, of people who were erased since."""
        found: dict[bytes, list[Brought]] = {}
        for name_id, *rest in self._db.execute(
            "SELECT name_id, ord, subject_id, size_bytes, state = 'marker', put_version FROM picked"
            " WHERE is_brought = 1"
        ):
            found.setdefault(name_id, []).append(Brought(*rest))
        return found

    def removed(self, ords: Iterable[int]) -> None:
        """These are in the target no more."""
        self._db.execute("BEGIN")
        self._db.executemany("UPDATE picked SET is_brought = 0 WHERE ord = ?", ((one,) for one in ords))
        self._db.execute("COMMIT")

    def tally(self, *steps: int) -> Tally:
        """What was picked; of it only what is at one of these steps, where some are given."""
        wanted = steps or (WAITS, BEGUN, DONE, LEFT_OUT, ERASED)
        marks = ", ".join("?" * len(wanted))
        versions, markers, size_bytes = self._db.execute(
            "SELECT count(*) FILTER (WHERE state != 'marker'), count(*) FILTER (WHERE state = 'marker'),"  # noqa: S608
            f" coalesce(sum(size_bytes) FILTER (WHERE state != 'marker'), 0) FROM picked WHERE step IN ({marks})",
            wanted,
        ).fetchone()
        return Tally(versions, markers, size_bytes)

    def current(self) -> Tally:
        """What a plain listing of the target has to show: the newest of each name that was brought back."""
        versions, size_bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM (SELECT *, row_number() OVER"
            " (PARTITION BY name_id ORDER BY rank DESC) AS newest FROM picked WHERE step = ?)"
            " WHERE newest = 1 AND state = 'version'",
            (DONE,),
        ).fetchone()
        return Tally(versions, 0, size_bytes)

    def erased_people(self) -> list[str]:
        """Whose documents were left out for an erasure."""
        found = self._db.execute(
            "SELECT DISTINCT subject_id FROM picked WHERE step = ? AND subject_id IS NOT NULL ORDER BY 1", (ERASED,)
        )
        return [str(row[0]) for row in found]

    def ranks(self) -> int:
        """How many versions the name with the most of them has."""
        (most,) = self._db.execute("SELECT coalesce(max(rank), -1) FROM picked").fetchone()
        return int(most) + 1

    def parts(self) -> list[str]:
        """Every part that has to be read."""
        found = self._db.execute("SELECT DISTINCT part FROM picked WHERE part IS NOT NULL AND step < ?", (DONE,))
        ids = {int(row[0]) for row in found}
        for (pieces,) in self._db.execute("SELECT pieces FROM picked WHERE pieces IS NOT NULL AND step < ?", (DONE,)):
            ids |= {int(piece[0]) for piece in json.loads(pieces)}
        return sorted(self._key(number) for number in ids)

    def by_part(self, rank: int) -> Iterator[tuple[str, list[Pick]]]:
        """What waits of one rank, part by part."""
        parts = self._db.execute(
            "SELECT DISTINCT part FROM picked WHERE rank = ? AND step < ? AND part IS NOT NULL ORDER BY part",
            (rank, DONE),
        ).fetchall()
        for (part,) in parts:
            rows = self._db.execute(
                f"SELECT ord, rank, step, {_COLUMNS} FROM picked WHERE rank = ? AND part = ? AND step < ? ORDER BY at",  # noqa: S608
                (rank, part, DONE),
            ).fetchall()
            yield self._key(part), [self._pick(row) for row in rows]

    def without_part(self, rank: int) -> list[Pick]:
        """Delete markers of which nothing but digests is left: nobody can tell their names."""
        rows = self._db.execute(
            f"SELECT ord, rank, step, {_COLUMNS} FROM picked WHERE rank = ? AND part IS NULL AND step < ?",  # noqa: S608
            (rank, DONE),
        )
        return [self._pick(row) for row in rows.fetchall()]

    def begin_all(self, picks: Sequence[Pick]) -> None:
        """These are about to be put."""
        self._db.execute("BEGIN")
        self._db.executemany("UPDATE picked SET step = ? WHERE ord = ?", ((BEGUN, one.ord) for one in picks))
        self._db.execute("COMMIT")

    def end(self, ended: Iterable[tuple[int, int, str]]) -> None:
        """Rows with the step they have come to, and their version in the target."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE picked SET step = ?, put_version = ? WHERE ord = ?",
            ((step, version, ord_) for ord_, step, version in ended),
        )
        self._db.execute("COMMIT")

    # -- within ------------------------------------------------------------------------------------------------------

    def _id(self, key: str) -> int:
        if key not in self._ids:
            self._db.execute("INSERT OR IGNORE INTO parts (key) VALUES (?)", (key,))
            (number,) = self._db.execute("SELECT id FROM parts WHERE key = ?", (key,)).fetchone()
            self._ids[key] = int(number)
        return self._ids[key]

    def _key(self, number: int) -> str:
        if number not in self._keys:
            (key,) = self._db.execute("SELECT key FROM parts WHERE id = ?", (number,)).fetchone()
            self._keys[number] = str(key)
        return self._keys[number]

    def _values(self, row: Row) -> tuple[Any, ...]:
        head = row.head
        pieces = [[self._id(one.part), one.offset, one.length] for one in row.pieces]
        return (
            row.name_id, row.version, row.order, row.state, row.subject_id, row.size_bytes, row.digest,
            b"".join(row.folders), None if head is None else self._id(head.part),
            None if head is None else head.offset, None if head is None else head.length,
            json.dumps(pieces, separators=(",", ":")) if pieces else None, row.gone_at,
        )  # fmt: skip

    def _pick(self, values: tuple[Any, ...]) -> Pick:
        ord_, rank, step, name_id, version, age, state, subject_id, size_bytes, digest, folders, *where = values
        part, at, length, pieces = where
        row = Row(
            name_id, version, age, state, subject_id, size_bytes, digest,
            tuple(folders[n : n + FOLDER_BYTES] for n in range(0, len(folders), FOLDER_BYTES)),
            None if part is None else Spot(self._key(part), at, length),
            tuple(Spot(self._key(number), offset, size) for number, offset, size in json.loads(pieces or "[]")),
        )  # fmt: skip
        return Pick(ord_, rank, row, begun=step == BEGUN)
