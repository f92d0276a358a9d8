"""Documents out of the source: many at a time, each with its metadata and tags, sealed for its person on the way.

What belongs here: the threads, one version's requests, what came of it. What stays out: which versions (index.py), and
where their records go (packing.py).

What the listing showed may be another thing by the time it is asked for. A version that has an id is that version or
gone. Where no versions are kept, whatever is there now is copied as what it is: one answer's bytes, digest, size and
time belong together.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

from botocore.exceptions import IncompleteReadError

from dr_assets.estate.errors import SourceError
from dr_assets.stores.bucket.document import Head, Owner, record
from dr_assets.stores.bucket.index import Todo
from dr_assets.stores.bucket.inventory import Row
from dr_assets.stores.bucket.names import Names
from dr_assets.stores.bucket.persons import Keys, Whose
from dr_assets.stores.bucket.source import HEADERS, NULL, Place, version_of
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.storage.s3_errors import ABSENT, BROKEN_BODY, StoreAnswer

WORKERS: Final = 12
SMALL_BYTES: Final = 4 << 20
PIECE_BYTES: Final = 8 << 20
ROOM_BYTES: Final = 64 << 20
BODY_ATTEMPTS: Final = 3
_AHEAD: Final = 4 * WORKERS

Outcome = Literal["copied", "vanished", "withheld", "unread"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a large document, sealed; its document's other pieces and its end follow."""

    todo: Todo
    sealed: bytes = field(repr=False)
    content_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one version. `row` lacks its spots; `sealed` is its head, and the content unless there are `pieces`.

    `todo` is what was asked for, the row may be of what replaced it. `why` tells what kept an `unread` one from being
    read.
    """

    todo: Todo
    outcome: Outcome
    row: Row | None = None
    sealed: bytes = field(default=b"", repr=False)
    content_bytes: int = 0
    pieces: int = 0
    is_replaced: bool = False
    why: str = ""


class Room:
    """Bytes that may be in memory at once; whoever wants more than there is waits."""

    def __init__(self, size_bytes: int) -> None:
        self._left = self._all = size_bytes
        self._changed = threading.Condition()

    def take(self, size_bytes: int, abandoned: threading.Event) -> None:
        """Wait until there is room, or until nobody wants it any more."""
        wanted = min(size_bytes, self._all)
        with self._changed:
            while self._left < wanted and not abandoned.is_set():
                self._changed.wait(0.5)
            self._left -= wanted

    def give(self, size_bytes: int) -> None:
        """So many bytes are let go."""
        with self._changed:
            self._left += min(size_bytes, self._all)
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Reader:
    """Everything that reading and sealing one version takes; threads share it.

    `has_versions`: a name of the source may have several, and then the one from before versioning is asked for by its
    id, `null`: without one the store would hand out whatever is current.
    """

    place: Place
    estate: str
    dataset: str
    names: Names
    whose: Whose
    keys: Keys
    has_versions: bool = False

    def marker(self, todo: Todo, subject_id: str | None) -> tuple[Row, bytes]:
        """A delete marker's row and its record: a name, and that it was deleted. Empty where its person is erased."""
        head = Head(todo.row.name, todo.row.version_id, "", todo.row.modified_at, 0, "", is_marker=True)
        row = self.row(todo, subject_id, 0, "", state="marker")
        if subject_id is None:
            return row, record(head)
        person = self.keys.of(subject_id)
        return row, b"" if person is None else self.owner(row).seal(person, record(head))

    def row(self, todo: Todo, subject_id: str | None, size_bytes: int, sha256: str, state: Any = "version") -> Row:
        """The row, without its spots."""
        return Row(
            todo.name_id, todo.version, todo.order, state, subject_id, size_bytes,
            self.names.digest(sha256, subject_id) if sha256 else "", self.names.folder_ids(todo.row.name), None,
        )  # fmt: skip

    def owner(self, row: Row) -> Owner:
        """What the row's envelopes are bound to."""
        return Owner(self.estate, self.dataset, row.subject_id, row.name_id, row.version)

    def read(self, todo: Todo, room: Room, abandoned: threading.Event) -> Iterator[Piece | Fetched]:
        """Everything of one version; the last is its `Fetched`. Raises SourceError when the store is away."""
        for attempt in range(BODY_ATTEMPTS):
            try:
                yield from self._read(todo, room, abandoned)
            except StoreAnswer as said:
                if said.code in ABSENT:
                    yield Fetched(todo, "vanished")
                else:
                    yield Fetched(todo, "unread", why=said.code)
            except BROKEN_BODY as error:  # the pieces of a broken attempt lie unused in their parts
                if attempt + 1 < BODY_ATTEMPTS and not abandoned.is_set():
                    continue
                yield Fetched(todo, "unread", why=type(error).__name__)
            except SourceError as error:
                if error.code != "bucket.unreachable":
                    raise
                self.place.now()  # raises if it is the store that is away, and not this one object
                yield Fetched(todo, "unread", why=error.code)
            return

    def _read(self, todo: Todo, room: Room, abandoned: threading.Event) -> Iterator[Piece | Fetched]:
        name, version_id = todo.row.name, todo.row.version_id
        asked: Any = version_of(version_id) or ({"VersionId": NULL} if self.has_versions else {})
        with self.place.answers():
            found = self.place.client.get_object(Bucket=self.place.bucket, Key=name, **asked)
        answer = cast("Mapping[str, Any]", found)
        body = answer["Body"]
        with body:
            tags: dict[str, str] = {}
            if self.whose.wants_tags or answer.get("TagCount", 0):
                tags = self.place.tags(name, asked)
            metadata = dict(answer.get("Metadata", {}))
            now = _as_answered(todo, answer, self.names)
            subject_id = self.whose.of(name, tags, metadata)
            person = None if subject_id is None else self.keys.of(subject_id)
            size_bytes = int(answer["ContentLength"])
            if subject_id is not None and person is None:
                yield Fetched(todo, "withheld", self.row(now, subject_id, size_bytes, "", state="withheld"))
                return
            head = Head(
                name, version_id, now.row.etag, now.row.modified_at, size_bytes, "",
                headers=_headers(answer), metadata=metadata, tags=tags,
            )  # fmt: skip
            draft = self.row(now, subject_id, size_bytes, "")
            for sealed in self._sealed(todo, draft, head, person, lambda wanted: _taken(body, wanted, room, abandoned)):
                yield sealed if isinstance(sealed, Piece) else replace(sealed, is_replaced=now is not todo)

    def _sealed(
        self, todo: Todo, draft: Row, head: Head, person: DataKey | None, take: Callable[[int], bytes]
    ) -> Iterator[Piece | Fetched]:
        size_bytes, owner = head.size_bytes, self.owner(draft)
        digest, number, content = hashlib.sha256(), 0, b""
        if size_bytes <= SMALL_BYTES:
            content = take(size_bytes)
            digest.update(content)
        else:
            for begin in range(0, size_bytes, PIECE_BYTES):
                wanted = min(PIECE_BYTES, size_bytes - begin)
                piece = take(wanted)
                digest.update(piece)
                yield Piece(todo, owner.seal(person, piece, number), wanted)
                number += 1
        sha256 = digest.hexdigest()
        row = replace(draft, digest=self.names.digest(sha256, draft.subject_id))
        sealed = owner.seal(person, record(replace(head, sha256=sha256), content))
        yield Fetched(todo, "copied", row, sealed, len(content), pieces=number)


def _taken(body: Any, size_bytes: int, room: Room, abandoned: threading.Event) -> bytes:
    """So many bytes, once there is room for them; which is given back when they don't come."""
    room.take(size_bytes, abandoned)
    try:
        return _exactly(body, size_bytes)
    except BaseException:
        room.give(size_bytes)
        raise


def _exactly(body: Any, size_bytes: int) -> bytes:
    data = bytes(body.read(size_bytes))
    while len(data) < size_bytes:
        more = body.read(size_bytes - len(data))
        if not more:
            raise IncompleteReadError(actual_bytes=len(data), expected_bytes=size_bytes)
        data += more
    return data


def _headers(answer: Mapping[str, Any]) -> dict[str, str]:
    found = {name: str(answer[name]) for name in HEADERS if answer.get(name)}
    return found | ({"Expires": str(answer["ExpiresString"])} if answer.get("ExpiresString") else {})


def _as_answered(todo: Todo, answer: Mapping[str, Any], names: Names) -> Todo:
    """What was listed, or for an object without versions what is there now in its place."""
    if todo.row.version_id not in {"", NULL}:
        return todo
    etag, modified_at = str(answer.get("ETag", "")).strip('"'), answer["LastModified"].astimezone(UTC)
    size_bytes = int(answer["ContentLength"])
    version = names.version_of(NULL, etag, modified_at, size_bytes)
    if version == todo.version:
        return todo
    row = type(todo.row)(todo.row.name, NULL, etag, modified_at, size_bytes, is_marker=False)
    return Todo(row, todo.name_id, version, int(modified_at.timestamp()) * 1_000_000)


class Fetcher:
    """Threads that read what they are given; `results` hands out what came of it, in any order.

    Whoever takes a result lets its bytes go with `done_with`. Leaving the context ends the threads.
    """

    def __init__(self, reader: Reader, *, workers: int = WORKERS, room_bytes: int = ROOM_BYTES) -> None:
        self._reader = reader
        self._tasks: queue.SimpleQueue[Todo | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Piece | Fetched | BaseException] = queue.SimpleQueue()
        self._room = Room(room_bytes)
        self._abandoned = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True) for number in range(workers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def results(self, todo: Iterable[Todo]) -> Iterator[Piece | Fetched]:
        """Everything that is to be read. Raises SourceError as soon as the store is away, and our own bugs."""
        in_flight = 0
        for one in todo:
            self._tasks.put(one)
            in_flight += 1
            while in_flight >= _AHEAD:
                result = self._take()
                in_flight -= isinstance(result, Fetched)
                yield result
        while in_flight:
            result = self._take()
            in_flight -= isinstance(result, Fetched)
            yield result

    def done_with(self, result: Piece | Fetched) -> None:
        """The bytes lie elsewhere now."""
        self._room.give(result.content_bytes)

    def _take(self) -> Piece | Fetched:
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self) -> None:
        while (todo := self._tasks.get()) is not None and not self._abandoned.is_set():
            try:
                for result in self._reader.read(todo, self._room, self._abandoned):
                    self._results.put(result)
            except BaseException as error:  # noqa: BLE001 - raised again where results are taken
                self._results.put(error)
                return


def require_readable(unread: int, reasons: Mapping[str, int], place: Place) -> None:
    """Raise SourceError `bucket.unread` when versions could not be read that are there."""
    if unread:
        told = ", ".join(f"{why} ({count})" for why, count in sorted(reasons.items()))
        raise SourceError(
            "bucket.unread",
            f"{unread} versions in {place.bucket} are listed and can't be read: {told}; everything else is stored",
            "the recovery point stays where it was until they can: look into their permissions, encryption, class",
        )
