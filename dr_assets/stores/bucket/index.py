"""The work folder's index: what is known to be in the vault, and what the source's listing shows, on disk.

What belongs here: one SQLite file and the questions asked of it. What stays out: the vault and the source.

A million names don't fit into memory twice, so both sides lie in tables and SQLite compares them. The file is a memory
aid: lost, it is made anew from the vault's manifests. While a run is under way it also tells what that run has sealed
already, so that whoever was killed copies nothing twice. Names stand in it in clear only in the listing's table, which
is emptied (with what lay on its pages) at the end of every run.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from dr_assets.stores.bucket.inventory import Row, Spot, State
from dr_assets.stores.bucket.listing import Listed
from dr_assets.stores.bucket.manifest import Part, Tally
from dr_assets.stores.bucket.names import FOLDER_BYTES, Names

CHUNK: Final = 2000
_VERSION: Final = "1"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, size_bytes INT NOT NULL,
    plain_bytes INT NOT NULL, snapshot_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS known (
    name_id BLOB NOT NULL, version TEXT NOT NULL, age INT NOT NULL, state TEXT NOT NULL, subject_id TEXT,
    size_bytes INT NOT NULL, digest TEXT NOT NULL, folders BLOB NOT NULL, part INT, at INT, length INT,
    pieces TEXT, gone_at INT, is_fresh INT NOT NULL, PRIMARY KEY (name_id, version)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fresh ON known (is_fresh) WHERE is_fresh = 1;
CREATE INDEX IF NOT EXISTS gone ON known (gone_at) WHERE gone_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS listed (
    ord INTEGER PRIMARY KEY, name TEXT NOT NULL, name_id BLOB NOT NULL, version TEXT NOT NULL, version_id TEXT NOT NULL,
    age INT NOT NULL, modified_s INT NOT NULL, etag TEXT NOT NULL, size_bytes INT NOT NULL, is_marker INT NOT NULL);
CREATE TABLE IF NOT EXISTS todo (ord INTEGER PRIMARY KEY);
"""
_ALL_ROWS: Final = (
    "SELECT name_id, version, age, state, subject_id, size_bytes, digest, folders, part, at, length, pieces, gone_at"
    " FROM known WHERE gone_at IS NULL OR gone_at = ? ORDER BY name_id, age"
)
_FRESH_ROWS: Final = _ALL_ROWS.replace("WHERE gone_at IS NULL", "WHERE (is_fresh = 1 AND gone_at IS NULL)")
_WITHHELD: Final = "(known.state = 'withheld' OR (known.state = 'marker' AND known.part IS NULL))"
_INSERT: Final = "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_GONE: Final = (
    "UPDATE known SET gone_at = ? WHERE gone_at IS NULL AND NOT EXISTS (SELECT 1 FROM listed"
    " WHERE listed.name_id = known.name_id AND listed.version = known.version)"
)


@dataclass(frozen=True, slots=True)
class Todo:
    """One version to copy, as it was listed."""

    row: Listed
    name_id: bytes
    version: str
    order: int


class Index:
    """Open it for one run at a time; one thread uses it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._part_keys: dict[int, str] = {}
        self._part_ids: dict[str, int] = {}
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            discard(path)
            self._db = _opened(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    # -- what holds for the file -------------------------------------------------------------------------------------

    def meta(self, name: str) -> str | None:
        """A remembered text."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str | None) -> None:
        """Remember a text, or forget it."""
        if value is None:
            self._db.execute("DELETE FROM meta WHERE name = ?", (name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def forget(self, *, keep_fresh: bool) -> None:
        """Everything that was known; what an unfinished run has sealed may stay."""
        self._db.execute("DELETE FROM known WHERE is_fresh = 0" if keep_fresh else "DELETE FROM known")
        self.set_meta("base", None)

    # -- what the vault holds ----------------------------------------------------------------------------------------

    def learn(self, rows: Iterable[Row], *, fresh: bool = False, parts: Iterable[tuple[Part, int, str]] = ()) -> None:
        """Rows and the parts that they lie in, in one transaction; what was known of a version is replaced.

        What an unfinished run has sealed itself is newer than what an older manifest tells.
        """
        with self._transaction():
            for part, plain_bytes, snapshot_id in parts:
                self._note_part(part, plain_bytes, snapshot_id)
            if not fresh:
                rows = list(rows)
                self._db.executemany(
                    "DELETE FROM known WHERE name_id = ? AND version = ? AND is_fresh = 0",
                    [(row.name_id, row.version) for row in rows],
                )
            self._db.executemany(
                _INSERT if fresh else _INSERT.replace("REPLACE", "IGNORE"),
                (self._values(row, fresh=fresh) for row in rows),
            )

    def note_parts(self, parts: Iterable[tuple[Part, int, str]]) -> None:
        """Parts of a run, without rows: shards of its inventory, or another run's."""
        with self._transaction():
            for part, plain_bytes, snapshot_id in parts:
                self._note_part(part, plain_bytes, snapshot_id)

    def parts_of(self, snapshot_id: str) -> list[Part]:
        """All parts that a run has put, in their order."""
        found = self._db.execute(
            "SELECT key, sha256, size_bytes FROM parts WHERE snapshot_id = ? ORDER BY key", (snapshot_id,)
        )
        return [Part(*row) for row in found]

    def drop_parts(self, keys: Iterable[str]) -> None:
        """Forget parts and whatever was known to lie in them."""
        with self._transaction():
            for key in keys:
                (number,) = self._db.execute("SELECT id FROM parts WHERE key = ?", (key,)).fetchone() or (None,)
                self._db.execute("DELETE FROM known WHERE part = ?", (number,))
                self._db.execute("DELETE FROM known WHERE pieces LIKE ?", (f"%[{number},%",))
                self._db.execute("DELETE FROM parts WHERE id = ?", (number,))
        self._part_keys.clear()
        self._part_ids.clear()

    def referred(self, snapshot_id: str) -> list[str]:
        """Parts of other runs in which something lies that is there still, or has only now gone."""
        rows = self._db.execute("SELECT DISTINCT part FROM known WHERE part IS NOT NULL").fetchall()
        ids = {int(row[0]) for row in rows}
        for (pieces,) in self._db.execute("SELECT pieces FROM known WHERE pieces IS NOT NULL"):
            ids |= {int(piece[0]) for piece in json.loads(pieces)}
        own = {int(row[0]) for row in self._db.execute("SELECT id FROM parts WHERE snapshot_id = ?", (snapshot_id,))}
        return sorted(self._part_key(number) for number in ids - own)

    def sparse_parts(self, least: float) -> list[str]:
        """Parts of which less than the share `least` is still of use."""
        live = self._db.execute(
            "SELECT part, sum(length) FROM known WHERE part IS NOT NULL AND gone_at IS NULL GROUP BY part"
        )
        used = {int(number): int(length) for number, length in live}
        for (pieces,) in self._db.execute("SELECT pieces FROM known WHERE pieces IS NOT NULL AND gone_at IS NULL"):
            for number, _, length in json.loads(pieces):
                used[number] = used.get(number, 0) + length
        sizes = dict(self._db.execute("SELECT id, plain_bytes FROM parts WHERE plain_bytes > 0"))
        return [self._part_key(number) for number, length in used.items() if length < least * sizes.get(number, 0)]

    def rows(self, *, only_fresh: bool = False, gone_at: int | None = None) -> Iterator[Row]:
        """All that is there still, and what was noticed to be gone at `gone_at`; or of that only what is fresh."""
        for row in self._db.execute(_FRESH_ROWS if only_fresh else _ALL_ROWS, (gone_at,)):
            yield self._row(row)

    def subject_of(self, name_id: bytes) -> str | None:
        """Whose the newest version of a name is that is somebody's."""
        row = self._db.execute(
            "SELECT subject_id FROM known WHERE name_id = ? AND subject_id IS NOT NULL ORDER BY age DESC LIMIT 1",
            (name_id,),
        ).fetchone()
        return None if row is None else str(row[0])

    def tally(self) -> Tally:
        """What of the listing's is here."""
        versions, markers, size_bytes = self._db.execute(
            "SELECT count(*) FILTER (WHERE state = 'version'), count(*) FILTER (WHERE state = 'marker'),"
            " coalesce(sum(size_bytes) FILTER (WHERE state = 'version'), 0) FROM known WHERE gone_at IS NULL"
        ).fetchone()
        return Tally(versions, markers, size_bytes)

    def withheld(self) -> Tally:
        """What the listing shows of people who are erased here."""
        versions, size_bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM known WHERE gone_at IS NULL AND state = 'withheld'"
        ).fetchone()
        return Tally(versions, 0, size_bytes)

    def settle(self, base: str, snapshot_id: str | None) -> None:
        """A run is sealed: what it found is known as any other, and its listing is forgotten."""
        with self._transaction():
            self._db.execute("UPDATE known SET is_fresh = 0 WHERE is_fresh = 1")
            self._db.execute("DELETE FROM known WHERE gone_at IS NOT NULL")
            self.set_meta("base", base)
            self.set_meta("snapshot_id", snapshot_id)
        self.clear_listing()

    def drop_gone(self) -> None:
        """What was there once is of no use for the next comparison."""
        self._db.execute("DELETE FROM known WHERE gone_at IS NOT NULL AND is_fresh = 0")

    # -- what the source shows ---------------------------------------------------------------------------------------

    def begin_listing(self) -> None:
        """A listing begins: what an earlier one, of a run that was killed, said of what is gone counts no more."""
        self.clear_listing()
        self._db.execute("UPDATE known SET gone_at = NULL WHERE gone_at IS NOT NULL")

    def clear_listing(self) -> None:
        """Forget every name, on the disk as well."""
        self._db.executescript(
            "DELETE FROM listed; DELETE FROM todo; DROP INDEX IF EXISTS listed_key;PRAGMA wal_checkpoint(TRUNCATE);"
        )

    def list_rows(self, rows: Sequence[Listed], names: Names) -> None:
        """Rows of a listing; all of one name come in one call, newest first.

        Their order is the store's, not that of their times: several fall into one second, and S3 tells of an object in
        pieces when it was begun, though it became current when it was ended. So ages grow from version to version.
        """
        values: list[tuple[Any, ...]] = []
        same_name, name_id, age = "", b"", -1
        for row in reversed(rows):  # oldest first within a name
            if row.name != same_name or not name_id:
                same_name, name_id, age = row.name, names.name_id(row.name), -1
            at_us = int(row.modified_at.timestamp()) * 1_000_000 + row.modified_at.microsecond
            age = max(at_us, age + 1)
            values.append(
                (
                    row.name,
                    name_id,
                    names.version(row),
                    row.version_id,
                    age,
                    int(row.modified_at.timestamp()),
                    row.etag,
                    row.size_bytes,
                    int(row.is_marker),
                )
            )
        with self._transaction():
            self._db.executemany(
                "INSERT INTO listed (name, name_id, version, version_id, age, modified_s, etag, size_bytes, is_marker)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def listed_all(self, *, scope: Iterable[bytes] | None, gone_at: int) -> int:
        """The listing is at its end: compare. What went is marked gone; how many versions are to be copied.

        `scope`: only these names were listed, and of others nothing is said.
        """
        with self._transaction():
            self._db.execute("CREATE INDEX listed_key ON listed (name_id, version)")
            if scope is None:
                self._db.execute(_GONE, (gone_at,))
            else:
                self._db.executemany(_GONE + " AND name_id = ?", ((gone_at, name_id) for name_id in scope))
            self._db.execute(
                "INSERT INTO todo SELECT ord FROM listed WHERE NOT EXISTS (SELECT 1 FROM known WHERE"
                " known.name_id = listed.name_id AND known.version = listed.version AND known.gone_at IS NULL)"
            )
        return int(self._db.execute("SELECT count(*) FROM todo").fetchone()[0])

    def lacking_before(self, at_us: int) -> int:
        """How many listed rows are not known, though they were last modified before a moment."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM todo JOIN listed ON listed.ord = todo.ord WHERE age < ?", (at_us,)
        ).fetchone()
        return int(count)

    def withheld_people(self) -> list[str]:
        """Of whom something that is listed was not copied, since they were erased here."""
        found = self._db.execute(
            f"SELECT DISTINCT subject_id FROM known WHERE {_WITHHELD} AND subject_id IS NOT NULL ORDER BY 1"  # noqa: S608
        )
        return [str(row[0]) for row in found]

    def copy_anew(self, parts: Iterable[str] = (), names: Iterable[bytes] = (), withheld_of: Iterable[str] = ()) -> int:
        """What lies in these parts, has one of these names, or was withheld of these people, is copied again; how many.

        Who was erased may have been brought back within the grace.
        """
        known = (
            "INSERT OR IGNORE INTO todo SELECT ord FROM listed JOIN known USING (name_id, version)"
            " WHERE known.gone_at IS NULL AND "
        )
        again = known + "listed.is_marker = 0 AND "
        (before,) = self._db.execute("SELECT count(*) FROM todo").fetchone()
        with self._transaction():
            self._db.executemany(again + "known.part = ?", ((self._part_id(key),) for key in parts))
            self._db.executemany(again + "known.name_id = ?", ((name_id,) for name_id in names))
            self._db.executemany(known + _WITHHELD + " AND known.subject_id = ?", ((who,) for who in withheld_of))
        (after,) = self._db.execute("SELECT count(*) FROM todo").fetchone()
        return int(after) - int(before)

    def todo(self, *, markers: bool) -> Iterator[Todo]:
        """What is to be copied, in the listing's order: versions, or delete markers."""
        at = 0
        while True:
            rows = self._db.execute(
                "SELECT todo.ord, name, version_id, etag, modified_s, age, size_bytes, name_id, version, is_marker"
                " FROM todo JOIN listed ON listed.ord = todo.ord WHERE todo.ord > ? AND is_marker = ?"
                " ORDER BY todo.ord LIMIT ?",
                (at, int(markers), CHUNK),
            ).fetchall()
            for ord_, name, version_id, etag, modified_s, age, size_bytes, name_id, version, is_marker in rows:
                at = ord_
                modified_at = datetime.fromtimestamp(modified_s, UTC)
                row = Listed(name, version_id, etag, modified_at, size_bytes, bool(is_marker))
                yield Todo(row, name_id, version, age)
            if not rows:
                return

    def listing_tally(self) -> Tally:
        """What the listing showed."""
        versions, markers, size_bytes = self._db.execute(
            "SELECT count(*) FILTER (WHERE is_marker = 0), count(*) FILTER (WHERE is_marker = 1),"
            " coalesce(sum(size_bytes) FILTER (WHERE is_marker = 0), 0) FROM listed"
        ).fetchone()
        return Tally(versions, markers, size_bytes)

    def changes(self, gone_at: int) -> tuple[int, int]:
        """How many rows are fresh, and how many were noticed to be gone."""
        (fresh,) = self._db.execute("SELECT count(*) FROM known WHERE is_fresh = 1").fetchone()
        (gone,) = self._db.execute("SELECT count(*) FROM known WHERE gone_at = ?", (gone_at,)).fetchone()
        return int(fresh), int(gone)

    # -- within ------------------------------------------------------------------------------------------------------

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)

    def _note_part(self, part: Part, plain_bytes: int, snapshot_id: str) -> None:
        self._db.execute(
            "INSERT INTO parts (key, sha256, size_bytes, plain_bytes, snapshot_id) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes,"
            " plain_bytes = max(plain_bytes, excluded.plain_bytes), snapshot_id = excluded.snapshot_id",
            (part.key, part.sha256, part.size_bytes, plain_bytes, snapshot_id),
        )

    def _part_id(self, key: str) -> int:
        if key not in self._part_ids:
            row = self._db.execute("SELECT id FROM parts WHERE key = ?", (key,)).fetchone()
            if row is None:  # an earlier run's, of which nothing but its name is told
                self._note_part(Part(key, "", 0), 0, "")
                row = self._db.execute("SELECT id FROM parts WHERE key = ?", (key,)).fetchone()
            self._part_ids[key] = int(row[0])
        return self._part_ids[key]

    def _part_key(self, number: int) -> str:
        if number not in self._part_keys:
            (key,) = self._db.execute("SELECT key FROM parts WHERE id = ?", (number,)).fetchone()
            self._part_keys[number] = str(key)
        return self._part_keys[number]

    def _values(self, row: Row, *, fresh: bool) -> tuple[Any, ...]:
        head = row.head
        pieces = [[self._part_id(one.part), one.offset, one.length] for one in row.pieces]
        return (
            row.name_id, row.version, row.order, row.state, row.subject_id, row.size_bytes, row.digest,
            b"".join(row.folders), None if head is None else self._part_id(head.part),
            None if head is None else head.offset, None if head is None else head.length,
            json.dumps(pieces, separators=(",", ":")) if pieces else None, row.gone_at, int(fresh),
        )  # fmt: skip

    def _row(self, values: tuple[Any, ...]) -> Row:
        (name_id, version, age, state, subject_id, size_bytes, digest, folders, part, at, length, pieces, gone_at) = (
            values
        )
        known: State = state
        return Row(
            name_id, version, age, known, subject_id, size_bytes, digest,
            tuple(folders[n : n + FOLDER_BYTES] for n in range(0, len(folders), FOLDER_BYTES)),
            None if part is None else Spot(self._part_key(part), at, length),
            tuple(Spot(self._part_key(number), offset, size) for number, offset, size in json.loads(pieces or "[]")),
            gone_at,
        )  # fmt: skip


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it is the file's fault; a lock or a full disk isn't."""
    return type(error) is sqlite3.DatabaseError


def discard(path: Path) -> None:
    """Remove the file with what belongs to it: the next run makes it anew from the vault."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()


def _opened(path: Path) -> sqlite3.Connection:
    """The file's connection; raises DatabaseError for what is damaged, or another release's."""
    path.touch(mode=0o600)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;"
            "PRAGMA cache_size = -16384; PRAGMA temp_store = FILE;" + _SCHEMA
        )
        db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (_VERSION,))
        _require_release(db)
    except BaseException:
        db.close()
        raise
    return db


def _require_release(db: sqlite3.Connection) -> None:
    (version,) = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    if version != _VERSION:
        raise sqlite3.DatabaseError(f"an index of release {version}")


class _Transaction:
    """All or nothing, and never nested."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
