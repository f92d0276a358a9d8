"""A bucket that is restored into: documents put with all that belongs to them, each read back before it counts.

What belongs here: puts, what the store then says or holds, the throttle. What stays out: what to put (restore.py).
"""

import base64
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.header import Header
from typing import Any, Final, cast
from urllib.parse import urlencode

from botocore.utils import parse_timestamp

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.bucket.document import Head
from dr_assets.stores.bucket.listing import Listed, listing, of_name
from dr_assets.stores.bucket.manifest import Tally
from dr_assets.stores.bucket.source import HEADERS, Place, version_of
from dr_assets.vault.storage.s3_errors import ABSENT, BROKEN_BODY, StoreAnswer

PARTS_MOST: Final = 10_000  # S3's own limit for one object
_READ_BYTES: Final = 1 << 20
_READ_ATTEMPTS: Final = 3


@dataclass(slots=True)
class Throttle:
    """At most so many bytes a second, over all threads; None for as fast as it goes."""

    bytes_a_s: float | None
    _next_s: float = 0.0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, size_bytes: int) -> None:
        """Until so many bytes may go."""
        if self.bytes_a_s is None:
            return
        with self._mutex:
            now_s = time.monotonic()
            begin_s = max(self._next_s, now_s)
            self._next_s = begin_s + size_bytes / self.bytes_a_s
        time.sleep(max(0.0, begin_s - now_s))


@dataclass(frozen=True, slots=True)
class Target:
    """The bucket, with how fast it may be written to; threads may share it."""

    place: Place
    throttle: Throttle

    def put(self, head: Head, content: bytes | memoryview) -> str:
        """One document whole; returns its version there. Raises SourceError, among others `restore.not_equal`."""
        self.throttle.wait(len(content))
        checksum = base64.b64encode(bytes.fromhex(head.sha256)).decode("ascii")
        arguments: dict[str, Any] = {"Body": bytes(content), "ChecksumSHA256": checksum, **_belongings(head)}
        answer = self._ask("to put", self.place.client.put_object, Key=head.name, **arguments)
        version_id = str(answer.get("VersionId", ""))
        self._verify(head, version_id)
        return version_id

    def put_large(self, head: Head, pieces: Iterable[bytes]) -> str:
        """One document in pieces of at least 5 MiB each, save the last; all or nothing."""
        client, name = self.place.client, head.name
        begun = self._ask("to begin a put", client.create_multipart_upload, Key=name, **_belongings(head))
        upload = {"Key": name, "UploadId": begun["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            for number, piece in enumerate(in_parts(pieces, head.size_bytes), start=1):
                self.throttle.wait(len(piece))
                part = self._ask("to put a piece", client.upload_part, **upload, PartNumber=number, Body=piece)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
            ended = {"MultipartUpload": {"Parts": parts}}
            answer = self._ask("to end a put", client.complete_multipart_upload, **upload, **ended)
        except BaseException:
            client.abort_multipart_upload(Bucket=self.place.bucket, **upload)
            raise
        version_id = str(answer.get("VersionId", ""))
        self._verify(head, version_id)
        return version_id

    def mark_deleted(self, name: str) -> str:
        """A delete marker on a name."""
        answer = self._ask("to delete", self.place.client.delete_object, Key=name)
        return str(answer.get("VersionId", ""))

    def remove(self, name: str, version_id: str) -> None:
        """One version that was put here, for good."""
        self._ask("to remove", self.place.client.delete_object, Key=name, **version_of(version_id))

    def rows_of(self, name: str) -> list[Listed]:
        """Every version and marker of a name, oldest first."""
        return list(reversed(of_name(self.place, name)))

    def holds(self, head: Head, version_id: str) -> bool:
        """Whether a version has the bytes of a document and what belongs to them: metadata, headers, tags."""
        return not self._lacks(head, version_id)

    def tally(self, prefix: str = "") -> Tally:
        """What is current there now, counted by a listing of its own."""
        versions = size_bytes = markers = 0
        for rows in listing(Place(self.place.client, self.place.bucket, prefix)):
            last = ""
            for row in rows:  # the first of a name is its newest
                is_newest, last = row.name != last, row.name
                versions += is_newest and not row.is_marker
                markers += row.is_marker
                size_bytes += row.size_bytes if is_newest and not row.is_marker else 0
        return Tally(versions, markers, size_bytes)

    def is_empty(self, prefix: str = "") -> bool:
        """Whether no version and no marker is there."""
        return not any(True for _ in listing(Place(self.place.client, self.place.bucket, prefix)))

    def require_ready(self, prefix: str, *, all_versions: bool, overwrite: bool) -> None:
        """Raise PolicyError `restore.not_empty`, `restore.no_versions`; SourceError where it can't be reached."""
        self.place.now()
        if all_versions and not self.place.is_versioned():
            raise PolicyError(
                "restore.no_versions",
                f"{self.place.bucket} keeps no versions, so older ones would overwrite each other",
                "switch versioning on there, or restore --versions current",
            )
        if not overwrite and not self.is_empty(prefix):
            raise PolicyError(
                "restore.not_empty",
                f"{self.place.bucket} holds something already{f' below {prefix}' if prefix else ''}",
                "restore into a new bucket, or say --overwrite: where names are equal, what is there is replaced",
            )

    def _verify(self, head: Head, version_id: str) -> None:
        if lacks := self._lacks(head, version_id):
            raise SourceError(
                "restore.not_equal",
                f"{self.place.endpoint} took a document of {head.size_bytes} bytes into {self.place.bucket} and holds"
                f" other {lacks} than it was given",
                "the store or something before it alters data: restore into another one",
            )

    def _lacks(self, head: Head, version_id: str) -> str:
        """What of a version isn't the document's, empty when all of it is."""
        try:
            with self.place.answers():
                found = self.place.client.head_object(
                    Bucket=self.place.bucket, Key=head.name, ChecksumMode="ENABLED", **version_of(version_id)
                )
            answer = cast("Mapping[str, Any]", found)
            if self._digest(head, version_id, answer) != head.sha256:
                return "bytes"
            if _metadata(answer.get("Metadata", {})) != _metadata(head.metadata):
                return "metadata"
            if any(str(answer.get(name, "")) != text for name, text in _told(head).items()):
                return "headers"
            asked: Any = version_of(version_id)
            return "tags" if head.tags and self.place.tags(head.name, asked) != dict(head.tags) else ""
        except StoreAnswer as said:
            if said.code in ABSENT:
                return "bytes"
            raise self.place.refusal(said, "to read back") from None

    def _digest(self, head: Head, version_id: str, answer: Mapping[str, Any]) -> str:
        """The store's own checksum of the whole where it keeps one, else that of the bytes read back."""
        if int(answer["ContentLength"]) != head.size_bytes:
            return ""
        checksum = str(answer.get("ChecksumSHA256", ""))
        if checksum and "-" not in checksum and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            return base64.b64decode(checksum).hex()
        return self._digest_of_bytes(head.name, version_id)

    def _digest_of_bytes(self, name: str, version_id: str) -> str:
        for attempt in range(_READ_ATTEMPTS):
            digest = hashlib.sha256()
            try:
                with self.place.answers():
                    found = self.place.client.get_object(Bucket=self.place.bucket, Key=name, **version_of(version_id))
                with found["Body"] as body:
                    while data := body.read(_READ_BYTES):
                        digest.update(data)
            except BROKEN_BODY:
                if attempt + 1 == _READ_ATTEMPTS:
                    raise
                continue
            break
        return digest.hexdigest()

    def _ask(self, what: str, call: Any, **arguments: Any) -> Mapping[str, Any]:
        try:
            with self.place.answers():
                return cast("Mapping[str, Any]", call(Bucket=self.place.bucket, **arguments))
        except StoreAnswer as said:
            raise self.place.refusal(said, what) from None


def in_parts(pieces: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """Pieces as they are put: joined where there were more of them than a store takes for one object."""
    least = -(-size_bytes // PARTS_MOST)
    held: list[bytes] = []
    held_bytes = 0
    for piece in pieces:
        held.append(piece)
        held_bytes += len(piece)
        if held_bytes >= least:
            yield b"".join(held)
            held.clear()
            held_bytes = 0
    if held:
        yield b"".join(held)


def _belongings(head: Head) -> dict[str, Any]:
    """Metadata, headers and tags as arguments of a put."""
    tags = {"Tagging": urlencode(head.tags)} if head.tags else {}
    headers: dict[str, Any] = dict(head.headers)
    if "Expires" in headers:
        headers["Expires"] = _expiry(headers["Expires"])
    return {**headers, "Metadata": {name: _in_ascii(text) for name, text in head.metadata.items()}, **tags}


def _expiry(text: str) -> datetime:
    """Stores keep whatever they were given; what is no time means "has expired" (RFC 9111), as 1970 does.

    The SDK takes nothing but a time, and one document's must not keep all others from coming back.
    """
    try:
        found: datetime = parse_timestamp(text)
    except (ValueError, OverflowError, RuntimeError):
        return datetime.fromtimestamp(0, UTC)
    return found


def _told(head: Head) -> dict[str, str]:
    """Headers that have to come back. Nothing has no type: SeaweedFS gives an empty object one by its name."""
    wanted = {name: text for name, text in head.headers.items() if name in HEADERS}
    return wanted if head.size_bytes else {name: text for name, text in wanted.items() if name != "ContentType"}


def _metadata(told: Mapping[str, str]) -> dict[str, str]:
    """Metadata in one form: names are HTTP's, in any case; texts as a store is given them."""
    return {name.lower(): _in_ascii(text) for name, text in told.items()}


def _in_ascii(text: str) -> str:
    """Some clients put metadata as UTF-8: the SDK reads it as Latin-1 and takes it from nobody; S3 tells it so."""
    if text.isascii():
        return text
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return Header(text, "utf-8", maxlinelen=1 << 20).encode()
